package patch

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/internal/needs"
)

// TestGitMakesTheNewTreeOfTheOldOne has git apply patches of trees made at random.
func TestGitMakesTheNewTreeOfTheOldOne(t *testing.T) {
	git := needs.Program(t, "git", "git")
	const rounds = 10
	for seed := range uint64(rounds) {
		rng := rand.New(rand.NewPCG(seed, 6))
		dir := t.TempDir()
		var all bytes.Buffer
		want := map[string]*Side{}
		for i := range 40 {
			c := Change{Name: randomName(rng, i), Old: randomSide(rng), New: randomSide(rng)}
			if rng.IntN(3) == 0 && c.Old != nil && c.New != nil {
				c.New.Content = edit(rng, c.Old.Content)
				c.Old.Mode, c.New.Mode = Regular, Executable
			}
			lay(t, dir, c.Name, c.Old)
			if _, err := Write(&all, c); err != nil {
				t.Fatal(err)
			}
			want[c.Name] = c.New
		}
		cmd := exec.Command(git, "apply", "--whitespace=nowarn", "-")
		cmd.Dir, cmd.Stdin = dir, bytes.NewReader(all.Bytes())
		cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CEILING_DIRECTORIES="+filepath.Dir(dir))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("seed %d: %v\n%s\n%s", seed, err, out, all.String())
		}
		for name, side := range want {
			if got := read(t, dir, name); !equal(got, side) {
				t.Errorf("seed %d: %q is %v, want %v", seed, name, got, side)
			}
		}
	}
}

func equal(a, b *Side) bool {
	return a == nil && b == nil || a != nil && b != nil && a.Mode == b.Mode && bytes.Equal(a.Content, b.Content)
}

func lay(t *testing.T, dir, name string, s *Side) {
	t.Helper()
	if s == nil {
		return
	}
	full := filepath.Join(dir, name)
	err := os.MkdirAll(filepath.Dir(full), 0o755)
	switch {
	case err != nil:
	case s.Mode == Symlink:
		err = os.Symlink(string(s.Content), full)
	default:
		err = os.WriteFile(full, s.Content, fs.FileMode(s.Mode&0o777))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, dir, name string) *Side {
	t.Helper()
	full := filepath.Join(dir, name)
	info, err := os.Lstat(full)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(full)
		if err != nil {
			t.Fatal(err)
		}
		return &Side{Symlink, []byte(target)}
	}
	content, err := os.ReadFile(full)
	if err != nil {
		t.Fatal(err)
	}
	mode := Regular
	if info.Mode()&0o100 != 0 {
		mode = Executable
	}
	return &Side{mode, content}
}

func randomName(rng *rand.Rand, i int) string {
	part := []string{"a", "b c", " x ", "tab\there", "new\nline", "\x1b[2J", "žluť", "q\"uote", "back\\slash", "\xff\xfe", "+++", "--- a"}
	return fmt.Sprintf("%s/%s%d", part[rng.IntN(len(part))], part[rng.IntN(len(part))], i)
}

func randomSide(rng *rand.Rand) *Side {
	switch rng.IntN(8) {
	case 0:
		return nil
	case 1:
		return &Side{Symlink, []byte(strings.Repeat("x", 1+rng.IntN(3)))}
	case 2:
		content := make([]byte, rng.IntN(300))
		for i := range content {
			content[i] = byte(rng.IntN(256))
		}
		return &Side{Regular, append(content, 0)}
	case 3:
		return &Side{Executable, nil}
	}
	return &Side{Regular, randomText(rng, rng.IntN(60))}
}

func randomText(rng *rand.Rand, n int) []byte {
	words := []string{"", "{", "}", "a", "b", "return", "\r", " ", "\\ No newline at end of file", "-- ", "@@ -1 +1 @@", "diff --git a/x b/x", "\x80", "unique"}
	var b bytes.Buffer
	for i := range n {
		w := words[rng.IntN(len(words))]
		if w == "unique" {
			w += fmt.Sprint(i)
		}
		b.WriteString(w)
		if i < n-1 || rng.IntN(2) == 0 {
			b.WriteByte('\n')
		}
	}
	return b.Bytes()
}

// edit changes a few lines.
func edit(rng *rand.Rand, text []byte) []byte {
	list := lines(text)
	for range 1 + rng.IntN(4) {
		i := rng.IntN(len(list) + 1)
		switch {
		case i < len(list) && rng.IntN(2) == 0:
			list = append(list[:i:i], list[i+1:]...)
		default:
			list = append(list[:i:i], append([][]byte{[]byte("new\n")}, list[i:]...)...)
		}
	}
	return bytes.Join(list, nil)
}

func TestPatchesAreShort(t *testing.T) {
	text := func(skip ...int) []byte {
		var b bytes.Buffer
		for i := range 40 {
			line := fmt.Sprintf("line %d\n", i)
			if i%4 == 0 {
				line = "}\n"
			}
			for _, s := range skip {
				if s == i {
					line = "changed\n"
				}
			}
			b.WriteString(line)
		}
		return b.Bytes()
	}
	got, stat := diff(text(), text(10, 30))
	want := `@@ -8,7 +8,7 @@
 line 7
 }
 line 9
-line 10
+changed
 line 11
 }
 line 13
@@ -28,7 +28,7 @@
 line 27
 }
 line 29
-line 30
+changed
 line 31
 }
 line 33
`
	if string(got) != want || stat != (Stat{Added: 2, Removed: 2}) {
		t.Errorf("%+v\n%s", stat, got)
	}
	// Changes that are near share a hunk.
	if got, _ := diff(text(), text(10, 17)); bytes.Count(got, []byte("@@ -")) != 1 {
		t.Errorf("%s", got)
	}
	if got, stat := diff(text(), text()); len(got) != 0 || stat != (Stat{}) {
		t.Errorf("of nothing: %s", got)
	}
}

func TestNamesAreQuotedAsGitDoes(t *testing.T) {
	for name, want := range map[string]string{
		"plain/name":    "plain/name",
		"with blank":    "with blank",
		"new\nline":     `"new\nline"`,
		"\x1b[2J":       `"\033[2J"`,
		"ž":             `"\305\276"`,
		" before":       `" before"`,
		`a"b\c`:         `"a\"b\\c"`,
		"\a\b\t\v\f\r~": `"\a\b\t\v\f\r~"`,
		"\x7f":          `"\177"`,
	} {
		if got := Quote(name); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

func TestNamesThatAPatchMayNotHoldAreRefused(t *testing.T) {
	for _, name := range []string{
		"", ".", "/abs", "../x", "a/../../x", "a//b", "a/./b", "nul\x00", ".git/hooks/x", "a/.GIT/config", ".git", ".git./config", ".git ",
		"GIT~1/x", ".g\u200cit/x", ".git::$INDEX_ALLOCATION/x", "\ufeff.git",
	} {
		if _, err := Write(&bytes.Buffer{}, Change{Name: name, New: &Side{Regular, nil}}); err == nil {
			t.Errorf("%q is taken", name)
		}
	}
	for _, name := range []string{".gitignore", "a.git", "x/.github/y", "git", "..."} {
		if err := CheckName(name); err != nil {
			t.Error(err)
		}
	}
}

func TestTextsOfRepeatedLinesTakeBoundedEffort(t *testing.T) {
	// Each line is there twice: no anchors, and too many pairs for the table.
	var a, b bytes.Buffer
	for i := range 20_000 {
		fmt.Fprintf(&a, "%d\n", i/2)
		fmt.Fprintf(&b, "%d\n", (i+7919)%20_000/2)
	}
	hunks, stat := diff(a.Bytes(), b.Bytes())
	if stat.Added == 0 || len(hunks) == 0 {
		t.Errorf("%+v", stat)
	}
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte("a\nb\n"), []byte("b\nc"))
	f.Add([]byte(""), []byte("\n\n"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		hunks, stat := diff(a, b)
		got, err := apply(a, hunks)
		if err != nil || !bytes.Equal(got, b) {
			t.Errorf("%q, %v, want %q by\n%s", got, err, b, hunks)
		}
		if (stat == Stat{}) != bytes.Equal(a, b) {
			t.Errorf("%+v", stat)
		}
	})
}

// apply is a patch program for one file.
func apply(text, hunks []byte) ([]byte, error) {
	a := lines(text)
	var out [][]byte
	at := 0
	list := lines(hunks)
	for i := 0; i < len(list); i++ {
		line := list[i]
		content := line[1:]
		if i+1 < len(list) && list[i+1][0] == '\\' {
			content = bytes.TrimSuffix(content, []byte("\n"))
		}
		switch line[0] {
		case '@':
			var start, count, to, n int
			head := strings.ReplaceAll(string(line), ",", " ")
			if _, err := fmt.Sscanf(head, "@@ -%d %d +%d %d @@", &start, &count, &to, &n); err != nil {
				count = 1
				_, _ = fmt.Sscanf(head, "@@ -%d", &start)
				if rest := strings.TrimPrefix(string(line), fmt.Sprintf("@@ -%d", start)); rest[0] == ',' {
					_, _ = fmt.Sscanf(rest, ",%d", &count)
				}
			}
			if count > 0 {
				start--
			}
			for ; at < start; at++ {
				out = append(out, a[at])
			}
		case '\\':
		case '+':
			out = append(out, content)
		default:
			if at >= len(a) || !bytes.Equal(a[at], content) {
				return nil, fmt.Errorf("line %d: %q does not match", at, content)
			}
			if line[0] == ' ' {
				out = append(out, content)
			}
			at++
		}
	}
	return bytes.Join(append(out, a[at:]...), nil), nil
}
