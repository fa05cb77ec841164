package changes

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
)

func TestARecordSurvivesTheSeal(t *testing.T) {
	r := &Record{Ignore: []string{"*.o"}, GitIgnore: true, Files: []File{
		{Name: "a b\nc\xff \"q\"", Kind: Executable, Size: 3, Sum: SumOf([]byte("aye"))},
		LinkTo("l", "../x"),
	}}
	key := NewKey()
	sealed, err := r.Seal(key)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Unseal(sealed, key)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Files, r.Files) || !slices.Equal(got.Ignore, r.Ignore) || !got.GitIgnore || got.Tree() != r.Tree() {
		t.Errorf("got %+v", got)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := Unseal(bad, key); !errors.Is(err, ErrSeal) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	for name, k := range map[string]string{"another key": NewKey(), "no key": ""} {
		if _, err := Unseal(sealed, k); !errors.Is(err, ErrSeal) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r.Files[0].Kind = Regular
	if r.Tree() == got.Tree() {
		t.Error("the digest of the tree does not tell of a mode")
	}
}

type entry struct {
	name, content string
	kind          byte
	mode          int64
}

func archive(t testing.TB, entries ...entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.kind, Mode: e.mode, Format: tar.FormatPAX}
		switch e.kind {
		case tar.TypeReg:
			h.Size = int64(len(e.content))
		case tar.TypeSymlink, tar.TypeLink:
			h.Linkname = e.content
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if e.kind == tar.TypeReg {
			if _, err := io.WriteString(w, e.content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func TestASnapshotHoldsWhatIsWanted(t *testing.T) {
	s, err := Read(t.Context(), archive(t,
		entry{"ws/", "", tar.TypeDir, 0o755}, entry{"ws/d/", "", tar.TypeDir, 0o755}, entry{"ws/d/a", "aye", tar.TypeReg, 0o755}, entry{"ws/big", strings.Repeat("x", 100), tar.TypeReg, 0o644},
		entry{"ws/b", "bee", tar.TypeReg, 0o644}, entry{"ws/hard", "ws/b", tar.TypeLink, 0o644}, entry{"ws/again", "ws/big", tar.TypeLink, 0o644},
		entry{"ws/l", "d/a", tar.TypeSymlink, 0o777}, entry{"ws/fifo", "", tar.TypeFifo, 0o644}, entry{"ws/d/a", "later", tar.TypeReg, 0o644},
	), Options{MaxBytes: 12, Keep: func(f File) bool { return f.Name != "big" }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	var names []string
	for _, f := range s.Files() {
		names = append(names, string(f.Kind)+" "+f.Name)
	}
	if want := []string{"file again", "file b", "file big", "file d/a", "file hard", "link l"}; !slices.Equal(names, want) || !s.Dirs["d"] {
		t.Errorf("got %q, want %q", names, want)
	}
	for name, want := range map[string]string{"d/a": "later", "b": "bee", "hard": "bee", "l": "d/a"} {
		r, err := s.Content(name)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if _, err := s.Content("again"); err == nil || s.Alias("again") != "big" {
		t.Errorf("%v, alias %q", err, s.Alias("again"))
	}
}

func TestWhatAHostileArchiveHoldsIsRefused(t *testing.T) {
	for name, e := range map[string]entry{
		"a name that climbs":       {"ws/../../x", "", tar.TypeReg, 0},
		"a name that is absolute":  {"/ws/x", "", tar.TypeReg, 0},
		"a hard link to nowhere":   {"ws/x", "ws/nosuch", tar.TypeLink, 0},
		"a hard link that climbs":  {"ws/x", "../etc/passwd", tar.TypeLink, 0},
		"the workspace, as a file": {"ws", "x", tar.TypeReg, 0},
		"the workspace, as a link": {"ws", "/", tar.TypeSymlink, 0},
		"too much":                 {"ws/x", strings.Repeat("x", 11), tar.TypeReg, 0},
	} {
		if _, err := Read(t.Context(), archive(t, e), Options{MaxBytes: 10}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	many := []entry{{"ws/a", "", tar.TypeReg, 0}, {"ws/b", "", tar.TypeReg, 0}}
	if _, err := Read(t.Context(), archive(t, many...), Options{MaxFiles: 1}); err == nil {
		t.Error("too many files are taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Read(ctx, archive(t, many...), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestLinksThatMayLeadOut(t *testing.T) {
	for link, want := range map[[2]string]bool{
		{"l", "x"}: false, {"a/l", "../x"}: false, {"a/b/l", "../../x"}: false, {"a/l", "./x/y"}: false,
		{"l", "/x"}: true, {"l", "../x"}: true, {"a/l", "../../x"}: true, {"a/l", "x/../../y"}: true, {"l", ""}: true, {"l", "a\\b"}: true,
	} {
		if LeadsOut(link[0], link[1]) != want {
			t.Errorf("%s -> %s: want %v", link[0], link[1], want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(archive(f, entry{"ws/a", "aye", tar.TypeReg, 0o644}, entry{"ws/h", "ws/a", tar.TypeLink, 0}, entry{"ws/l", "../x", tar.TypeSymlink, 0}).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Read(t.Context(), bytes.NewReader(data), Options{MaxBytes: 1 << 20, MaxFiles: 1000})
		if err != nil {
			return
		}
		defer func() { _ = s.Close() }()
		for _, c := range s.Compare(&Record{}) {
			if strings.HasPrefix(c.Name, "/") || slices.Contains(strings.Split(c.Name, "/"), "..") || c.Status() != Added {
				t.Errorf("%q, %s", c.Name, c.Status())
			}
			if r, err := s.Content(c.Name); err == nil {
				if n, err := io.Copy(io.Discard, r); err != nil || n != c.New.Size {
					t.Errorf("%q: %d bytes of %d, %v", c.Name, n, c.New.Size, err)
				}
			}
		}
	})
}

func TestNothingIsLeftInTheTemporaryDirectory(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	s, err := Read(t.Context(), archive(t, entry{"ws/a", "aye", tar.TypeReg, 0}), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(os.TempDir()); err != nil || len(left) != 0 {
		t.Errorf("%v, %v", left, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
