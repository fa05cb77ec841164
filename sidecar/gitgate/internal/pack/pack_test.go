package pack

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zlib"
)

var limits = Limits{Bytes: 64 << 20, Objects: 100_000, Object: 32 << 20, Whole: 8 << 20, Inflated: 256 << 20, Depth: 4096}

// raw is an object as a test writes it into a pack.
type raw struct {
	kind Type
	base string // of a refDelta: the id; of an ofsDelta: how far back
	back int64
	data []byte
	size int // if not that of data
	junk string
}

func write(objects ...raw) []byte {
	b := binary.BigEndian.AppendUint32([]byte("PACK\x00\x00\x00\x02"), uint32(len(objects)))
	for _, o := range objects {
		n := len(o.data)
		if o.size != 0 {
			n = o.size
		}
		c := byte(o.kind)<<4 | byte(n&15)
		for n >>= 4; n > 0; n >>= 7 {
			b = append(b, c|0x80)
			c = byte(n & 0x7f)
		}
		b = append(b, c)
		b = append(b, o.base...)
		if o.kind == ofsDelta {
			enc := []byte{byte(o.back & 0x7f)}
			for v := o.back >> 7; v > 0; v >>= 7 {
				v--
				enc = append([]byte{byte(v&0x7f) | 0x80}, enc...)
			}
			b = append(b, enc...)
		}
		var z bytes.Buffer
		zw := zlib.NewWriter(&z)
		_, _ = zw.Write(o.data)
		_ = zw.Close()
		b = append(append(b, z.Bytes()...), o.junk...)
	}
	sum := sha1.Sum(b)
	return append(b, sum[:]...)
}

func id(kind Type, data string) ID {
	sum := sha1.Sum(fmt.Appendf(nil, "%s %d\x00%s", kind, len(data), data))
	return SHA1.ID(sum[:])
}

// insert is a delta that makes a text of a base of a length.
func insert(base int, text string) []byte {
	d := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(base)), uint64(len(text)))
	for len(text) > 0 {
		n := min(len(text), 127)
		d = append(append(d, byte(n)), text[:n]...)
		text = text[n:]
	}
	return d
}

func temp(t testing.TB) *os.File {
	f, err := os.Create(filepath.Join(t.TempDir(), "pack"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

type shown struct {
	mu  sync.Mutex
	all map[int]string
}

func (s *shown) visit(i int, kind Type, size int64, content io.Reader) error {
	b, err := io.ReadAll(content)
	if err != nil {
		return err
	}
	if int64(len(b)) != size {
		return fmt.Errorf("object %d has %d bytes and is said to have %d", i, len(b), size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, twice := s.all[i]; twice {
		return fmt.Errorf("object %d is shown twice", i)
	}
	s.all[i] = kind.String() + " " + string(b)
	return nil
}

func receive(t testing.TB, in []byte, l Limits) (*Pack, map[int]string, error) {
	s := &shown{all: map[int]string{}}
	p, err := Receive(bytes.NewReader(in), temp(t), SHA1, l, s.visit)
	return p, s.all, err
}

func TestReceive(t *testing.T) {
	base := id(Blob, "base")
	first := write(raw{kind: Blob, data: []byte("base")})
	back := int64(len(first) - 12 - 20)
	in := write(
		raw{kind: Blob, data: []byte("base")},
		raw{kind: ofsDelta, back: back, data: insert(4, "one")},
		// Its base comes after it, and is itself a delta.
		raw{kind: refDelta, base: string(func() []byte { i := id(Blob, "two"); return i[:20] }()), data: insert(3, "three")},
		raw{kind: refDelta, base: string(base[:20]), data: insert(4, "two")},
		raw{kind: Tree}, raw{kind: Commit, data: []byte("c")}, raw{kind: Tag, data: []byte(strings.Repeat("t", small+1))},
	)
	p, got, err := receive(t, in, limits)
	if err != nil {
		t.Fatal(err)
	}
	want := map[int]string{0: "blob base", 1: "blob one", 2: "blob three", 3: "blob two", 4: "tree ", 5: "commit c", 6: "tag " + strings.Repeat("t", small+1)}
	if !maps.Equal(got, want) {
		t.Errorf("%v", got)
	}
	if p.Len() != 7 || p.Size() != int64(len(in)) {
		t.Errorf("%d objects, %d bytes of %d", p.Len(), p.Size(), len(in))
	}
	for i, w := range want {
		kind, text, _ := strings.Cut(w, " ")
		if p.Type(i).String() != kind || p.ID(i) != id(p.Type(i), text) {
			t.Errorf("object %d is a %v %x", i, p.Type(i), p.ID(i))
		}
		if at, ok := p.Find(p.ID(i)); !ok || at != i {
			t.Errorf("object %d is found at %d, %v", i, at, ok)
		}
		if b, err := p.Content(i); err != nil || string(b) != text {
			t.Errorf("object %d is read again as %.20q, %v", i, b, err)
		}
		r, err := p.Open(i)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(r); err != nil || string(b) != text {
			t.Errorf("object %d is opened again as %.20q, %v", i, b, err)
		}
	}
	if _, ok := p.Find(ID{1}); ok {
		t.Error("an object that is not there was found")
	}
}

func TestRefused(t *testing.T) {
	whole := write(raw{kind: Blob, data: []byte("hello")})
	l := limits
	l.Bytes, l.Objects, l.Object, l.Whole, l.Inflated, l.Depth = 2_000, 8, 50_000, 10_000, 80_000, 3
	big := bytes.Repeat([]byte("x"), 49_999)
	noise := make([]byte, 5_000)
	rnd := rand.New(rand.NewPCG(1, 2))
	for i := range noise {
		noise[i] = byte(rnd.Uint32())
	}
	back := func(objects ...raw) int64 { return int64(len(write(objects...)) - 32) }
	b0 := raw{kind: Blob, data: []byte("base")}
	var chain []raw
	chain = append(chain, b0)
	for i := range 5 {
		o := raw{kind: ofsDelta, data: insert(4, fmt.Sprintf("ab%02d", i))}
		o.back = back(chain...) - back(chain[:i]...)
		chain = append(chain, o)
	}
	sum := func(b []byte) []byte { s := sha1.Sum(b); return append(b, s[:]...) }
	for name, c := range map[string]struct {
		in   []byte
		says string
	}{
		"nothing":             {nil, "ends too early"},
		"cut":                 {whole[:len(whole)-1], "ends too early"},
		"cut in an object":    {whole[:20], "ends too early"},
		"no pack":             {[]byte("KCAP12345678"), "begin"},
		"version 3":           {sum([]byte("PACK\x00\x00\x00\x03\x00\x00\x00\x00")), "version"},
		"checksum":            {append(whole[:len(whole)-1:len(whole)-1], whole[len(whole)-1]^1), "checksum"},
		"followed":            {append(whole[:len(whole):len(whole)], 'x'), "follows"},
		"too many":            {write(make([]raw, 9)...), "9 objects, more than 8"},
		"too large a pack":    {write(raw{kind: Blob, data: noise}), "larger than 2000"},
		"type 0":              {write(raw{kind: 0}), "unknown type"},
		"type 5":              {write(raw{kind: 5}), "unknown type"},
		"longer":              {write(raw{kind: Blob, data: []byte("hello"), size: 4}), "longer"},
		"shorter":             {write(raw{kind: Blob, data: []byte("hello"), size: 6}), "shorter"},
		"empty and not":       {write(raw{kind: Tree, data: []byte("hello"), junk: "\x00"}, raw{kind: Blob, junk: "junk"}), "malformed"},
		"large":               {write(raw{kind: Blob, data: make([]byte, 50_001)}), "50001 bytes"},
		"large tree":          {write(raw{kind: Tree, data: make([]byte, 10_001)}), "as a whole"},
		"bomb":                {write(raw{kind: Blob, data: big}, raw{kind: Blob, data: big}), "together"},
		"thin":                {write(raw{kind: refDelta, base: strings.Repeat("\xab", 20), data: insert(4, "x")}), "abababab"},
		"itself":              {write(b0, raw{kind: ofsDelta, back: 0, data: insert(4, "x")}), "no object begins"},
		"between":             {write(b0, raw{kind: ofsDelta, back: 3, data: insert(4, "x")}), "no object begins"},
		"before the pack":     {write(b0, raw{kind: ofsDelta, back: 1 << 40, data: insert(4, "x")}), "no object begins"},
		"a base too long":     {write(b0, raw{kind: ofsDelta, back: back(b0), data: insert(5, "x")}), "for a base of 5"},
		"reserved":            {write(b0, raw{kind: ofsDelta, back: back(b0), data: []byte{4, 1, 0}}), "reserved"},
		"copies too much":     {write(b0, raw{kind: ofsDelta, back: back(b0), data: []byte{4, 5, 0x90, 5}}), "copies"},
		"copies from afar":    {write(b0, raw{kind: ofsDelta, back: back(b0), data: []byte{4, 1, 0x91, 4, 1}}), "copies"},
		"inserts too much":    {write(b0, raw{kind: ofsDelta, back: back(b0), data: []byte{4, 1, 2, 'a', 'b'}}), "inserts"},
		"ends in a delta":     {write(b0, raw{kind: ofsDelta, back: back(b0), data: []byte{4, 1, 0x91, 4}}), "ends within"},
		"makes too little":    {write(b0, raw{kind: ofsDelta, back: back(b0), data: []byte{4, 2, 1, 'a'}}), "makes 1 bytes"},
		"a delta bomb":        {write(b0, raw{kind: ofsDelta, back: back(b0), data: []byte{4, 0xff, 0xff, 0xff, 0x7f}}), "bytes"},
		"a delta of nothing":  {write(b0, raw{kind: ofsDelta, back: back(b0)}), "no length"},
		"a chain":             {write(chain...), "more than 3 deltas"},
		"no zlib":             {sum([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\x35hello world")), "inflated"},
		"an enormous object":  {sum([]byte("PACK\x00\x00\x00\x02\x00\x00\x00\x01\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f")), "out of range"},
		"a stream not ending": {whole[:len(whole)-24], "ends too early"},
	} {
		_, _, err := receive(t, c.in, l)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %q", name, err, c.says)
		} else if !errors.Is(err, ErrRefused) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: an error of no kind: %v", name, err)
		}
	}
}

func TestAVisitThatFails(t *testing.T) {
	stop := errors.New("stop")
	for _, size := range []int{5, small + 1} {
		in := write(raw{kind: Blob, data: make([]byte, size)}, raw{kind: Blob, data: []byte("b")})
		_, err := Receive(bytes.NewReader(in), temp(t), SHA1, limits, func(int, Type, int64, io.Reader) error { return stop })
		if !errors.Is(err, stop) {
			t.Errorf("%v", err)
		}
	}
}

// git runs the real git, in a directory, with nothing of the host's configuration.
func git(t testing.TB, dir, in string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.com",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.com", "GIT_AUTHOR_DATE=1700000000 +0000", "GIT_COMMITTER_DATE=1700000000 +0000")
	cmd.Stdin = strings.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %q: %v\n%s", args, err, stderr.String())
	}
	return string(out)
}

// repository makes a repository with long chains of deltas.
func repository(t testing.TB, format Format, commits int) (dir string) {
	dir = t.TempDir()
	git(t, dir, "", "init", "-q", "--object-format="+format.String(), ".")
	rnd := rand.New(rand.NewPCG(1, 2))
	lines := make([]string, 400)
	for i := range lines {
		lines[i] = fmt.Sprintf("line %d %x", i, rnd.Uint64())
	}
	var in strings.Builder
	for c := range commits {
		lines[rnd.IntN(len(lines))] = fmt.Sprintf("changed %d %x", c, rnd.Uint64())
		text := strings.Join(lines, "\n")
		fmt.Fprintf(&in, "commit refs/heads/main\ncommitter a <a@example.com> %d +0000\ndata 4\nc%03d", 1700000000+c, c%1000)
		fmt.Fprintf(&in, "\nM 100644 inline dir%d/file%d\ndata %d\n%s\n", c%7, c%3, len(text), text)
	}
	in.WriteString("tag v1\nfrom refs/heads/main\ntagger a <a@example.com> 1700000000 +0000\ndata 1\nt\n")
	git(t, dir, in.String(), "fast-import", "--quiet")
	return dir
}

func TestPacksOfGit(t *testing.T) {
	for _, format := range []Format{SHA1, SHA256} {
		dir := repository(t, format, 300)
		for _, flags := range [][]string{{"--delta-base-offset", "--depth=500", "--window=300"}, {"--depth=50"}, {"--window=0"}} {
			in := git(t, dir, "", append([]string{"pack-objects", "--all", "--stdout", "--no-reuse-delta", "-q"}, flags...)...)
			s := &shown{all: map[int]string{}}
			p, err := Receive(strings.NewReader(in), temp(t), format, limits, s.visit)
			if err != nil {
				t.Fatalf("%v %q: %v", format, flags, err)
			}
			want := map[string]string{}
			for line := range strings.Lines(git(t, dir, "", "cat-file", "--batch-all-objects", "--batch-check")) {
				f := strings.Fields(line)
				want[f[0]] = f[1]
			}
			if len(want) != p.Len() || len(s.all) != p.Len() {
				t.Errorf("%v %q: %d objects, %d shown, of %d", format, flags, p.Len(), len(s.all), len(want))
			}
			for i := range p.Len() {
				if want[format.Hex(p.ID(i))] != p.Type(i).String() {
					t.Fatalf("%v %q: git has no %v %s", format, flags, p.Type(i), format.Hex(p.ID(i)))
				}
				again, err := p.Content(i)
				if err != nil || p.Type(i).String()+" "+string(again) != s.all[i] {
					t.Fatalf("%v %q: object %d differs when it is read again: %v", format, flags, i, err)
				}
			}
		}
	}
}

func TestContentsAreLetGo(t *testing.T) {
	// A tree of deltas whose contents are more than what is held, with branches.
	base := bytes.Repeat([]byte("0123456789abcdef"), 6<<20/16)
	change := func(n int, tail string) []byte {
		d := binary.AppendUvarint(binary.AppendUvarint(nil, uint64(n)), uint64(n+len(tail)))
		for at := 0; at < n; at += 0xffffff {
			m := min(n-at, 0xffffff)
			d = append(d, 0xff, byte(at), byte(at>>8), byte(at>>16), byte(at>>24), byte(m), byte(m>>8), byte(m>>16))
		}
		return append(append(d, byte(len(tail))), tail...)
	}
	objects := []raw{{kind: Blob, data: base}}
	texts := []string{string(base)}
	parents := []int{-1}
	offsets := []int64{12}
	for i := range 40 {
		parent := i / 2 * 2 / 2 // two children each, and chains
		if i > 20 {
			parent = i
		}
		tail := fmt.Sprintf("<%02d>", i)
		offset := int64(len(write(objects...)) - 20)
		objects = append(objects, raw{kind: ofsDelta, back: offset - offsets[parent], data: change(len(texts[parent]), tail)})
		offsets = append(offsets, offset)
		texts = append(texts, texts[parent]+tail)
		parents = append(parents, parent)
	}
	l := limits
	l.Inflated = 4 << 30
	ids := map[ID]bool{}
	for _, text := range texts {
		ids[id(Blob, text)] = true
	}
	var mu sync.Mutex
	count := 0
	p, err := Receive(bytes.NewReader(write(objects...)), temp(t), SHA1, l, func(int, Type, int64, io.Reader) error {
		mu.Lock()
		defer mu.Unlock()
		count++
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range p.Len() {
		if !ids[p.ID(i)] {
			t.Errorf("object %d is wrong", i)
		}
	}
	if count != len(texts) {
		t.Errorf("%d of %d were shown", count, len(texts))
	}
}

func TestTreesAndCommits(t *testing.T) {
	one := id(Blob, "one")
	tree := append([]byte("100644 a b\x00"), one[:20]...)
	tree = append(append(tree, "40000 .GIT \x00"...), one[:20]...)
	var names []string
	err := SHA1.WalkTree(tree, func(e TreeEntry) error {
		names = append(names, fmt.Sprint(e.Name, e.Mode == ModeTree, e.ID == one, CheckEntry(e) == nil))
		return nil
	})
	if err != nil || fmt.Sprint(names) != "[a bfalse true true .GIT true true false]" {
		t.Errorf("%v, %v", names, err)
	}
	for _, bad := range []string{"x", "100644 a", "100644 a\x00abc", "999 a\x0001234567890123456789", "1006440 a\x0001234567890123456789"} {
		if err := SHA1.WalkTree([]byte(bad), func(TreeEntry) error { return nil }); !errors.Is(err, ErrObject) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, name := range []string{"", ".", "..", "a/b", ".git", ".Git", "git~1", ".git ", ".git.", ".git::$INDEX_ALLOCATION", ".g\u200cit"} {
		if CheckEntry(TreeEntry{Mode: ModeFile, Name: name}) == nil {
			t.Errorf("%q was taken", name)
		}
	}
	for _, name := range []string{".gitignore", "git", "...", "a:b", "git~2"} {
		if err := CheckEntry(TreeEntry{Mode: ModeFile, Name: name}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
	if !IsGitmodules(".GitModules") || !IsGitmodules("gitmod~1") || IsGitmodules("gitmodules") {
		t.Error("names of .gitmodules")
	}
	hex := SHA1.Hex(one)
	h, err := SHA1.ReadCommit([]byte("tree " + hex + "\nparent " + hex + "\nparent " + hex + "\nauthor x\n\nparent y\n"))
	if err != nil || h.Tree != one || len(h.Parents) != 2 {
		t.Errorf("%+v, %v", h, err)
	}
	for _, bad := range []string{"", "tree x\n", "parent " + hex + "\n", "tree " + hex + "\nparent x\n", "tree " + hex} {
		if _, err := SHA1.ReadCommit([]byte(bad)); !errors.Is(err, ErrObject) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if about, kind, err := SHA1.ReadTag([]byte("object " + hex + "\ntype commit\ntag x\n")); err != nil || about != one || kind != "commit" {
		t.Errorf("%v %v %v", about, kind, err)
	}
	if _, _, err := SHA1.ReadTag([]byte("type commit\n")); !errors.Is(err, ErrObject) {
		t.Errorf("%v", err)
	}
}

func FuzzReceive(f *testing.F) {
	b0 := raw{kind: Blob, data: []byte("base")}
	base := id(Blob, "base")
	f.Add(write(b0))
	f.Add(write(b0, raw{kind: ofsDelta, back: int64(len(write(b0)) - 32), data: insert(4, "one")}))
	f.Add(write(b0, raw{kind: refDelta, base: string(base[:20]), data: insert(4, "one")}))
	f.Add(write(raw{kind: Tree}, raw{kind: Commit, data: []byte("tree 1\n")}))
	l := Limits{Bytes: 1 << 20, Objects: 100, Object: 1 << 20, Whole: 1 << 16, Inflated: 4 << 20, Depth: 10}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, in []byte) {
		// Most of what is tried has a wrong checksum: it is tried with the right one, too.
		for range 2 {
			file, err := os.CreateTemp(dir, "*")
			if err != nil {
				t.Fatal(err)
			}
			s := &shown{all: map[int]string{}}
			p, err := Receive(bytes.NewReader(in), file, SHA1, l, s.visit)
			if err == nil {
				if p.Size() != int64(len(in)) || len(s.all) != p.Len() {
					t.Fatalf("%d of %d bytes, %d of %d objects", p.Size(), len(in), len(s.all), p.Len())
				}
				for i := range p.Len() {
					again, err := p.Content(i)
					kind, text, _ := strings.Cut(s.all[i], " ")
					if errors.Is(err, ErrRefused) {
						break // all of them together are too much work
					}
					if err != nil || string(again) != text || kind != p.Type(i).String() || p.ID(i) != id(p.Type(i), text) {
						t.Fatalf("object %d: %v", i, err)
					}
				}
			} else if !errors.Is(err, ErrRefused) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("an error of no kind: %v", err)
			}
			file.Close()
			_ = os.Remove(file.Name())
			if len(in) < 32 {
				return
			}
			sum := sha1.Sum(in[:len(in)-20])
			in = append(in[:len(in)-20:len(in)-20], sum[:]...)
		}
	})
}

func FuzzDelta(f *testing.F) {
	f.Add([]byte("base"), insert(4, "one"))
	f.Add([]byte("base"), []byte{4, 4, 0x90, 4})
	f.Fuzz(func(t *testing.T, base, delta []byte) {
		size, err := deltaSize(delta, int64(len(base)))
		if err != nil || size > 1<<20 {
			return
		}
		if out, err := applyDelta(base, delta); err == nil && int64(len(out)) != size {
			t.Fatalf("%d bytes, not %d", len(out), size)
		}
	})
}

func FuzzTree(f *testing.F) {
	f.Add([]byte("100644 a\x0001234567890123456789"))
	f.Fuzz(func(_ *testing.T, in []byte) {
		_ = SHA1.WalkTree(in, func(e TreeEntry) error { return CheckEntry(e) })
		_, _ = SHA1.ReadCommit(in)
		_, _, _ = SHA1.ReadTag(in)
	})
}

func BenchmarkReceive(b *testing.B) {
	dir := repository(b, SHA1, 2000)
	in := git(b, dir, "", "pack-objects", "--all", "--stdout", "--delta-base-offset", "-q")
	file := temp(b)
	b.SetBytes(int64(len(in)))
	b.ResetTimer()
	for b.Loop() {
		if _, err := file.Seek(0, io.SeekStart); err != nil {
			b.Fatal(err)
		}
		p, err := Receive(bufio.NewReader(strings.NewReader(in)), file, SHA1, limits, func(int, Type, int64, io.Reader) error { return nil })
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(p.Len()), "objects")
	}
}
