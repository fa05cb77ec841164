package workspace

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// plant makes files below a new directory: a name that ends in "/" is a
// directory, a content "-> x" a link to x.
func plant(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, content := range files {
		full := filepath.Join(root, name)
		if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(full, 0o755))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(full), 0o755))
		if target, link := strings.CutPrefix(content, "-> "); link {
			must(t, os.Symlink(target, full))
			continue
		}
		must(t, os.WriteFile(full, []byte(content), 0o644))
	}
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func scan(t *testing.T, root string, opts Options) *Tree {
	t.Helper()
	tree, err := Scan(t.Context(), root, opts)
	must(t, err)
	return tree
}

// copied gives what an archive of the tree holds.
func copied(t *testing.T, tree *Tree) map[string]*tar.Header {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	must(t, tree.Write(t.Context(), w, "ws", 7, 8))
	must(t, w.Close())
	got := map[string]*tar.Header{}
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return got
		}
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		if h.PAXRecords == nil {
			h.PAXRecords = map[string]string{}
		}
		h.PAXRecords["content"] = string(content)
		got[strings.TrimPrefix(h.Name, "ws/")] = h
	}
}

func names(t *testing.T, tree *Tree) []string {
	t.Helper()
	list := slices.Sorted(maps.Keys(copied(t, tree)))
	return slices.DeleteFunc(list, func(s string) bool { return s == "" || strings.HasSuffix(s, "/") })
}

func TestTheCopyIsWhatIsThere(t *testing.T) {
	long := strings.Repeat("long/", 40) + strings.Repeat("n", 200)
	root := plant(t, map[string]string{
		"a": "content", "dir/b": "", "empty/": "", "out": "-> /etc/passwd", "dir/broken": "-> nowhere", long: "x", "ümläut \n": "y",
	})
	must(t, os.Chmod(filepath.Join(root, "a"), 0o4751))
	must(t, os.Chmod(filepath.Join(root, "empty"), 0o500))
	tree := scan(t, root, Options{})
	got := copied(t, tree)
	for _, h := range got {
		if h.Uid != 7 || h.Gid != 8 {
			t.Errorf("%s belongs to %d:%d", h.Name, h.Uid, h.Gid)
		}
	}
	if h := got["a"]; h == nil || h.PAXRecords["content"] != "content" || h.Mode != 0o751 {
		t.Errorf("a: %+v", h)
	}
	if h := got["out"]; h == nil || h.Typeflag != tar.TypeSymlink || h.Linkname != "/etc/passwd" {
		t.Errorf("out: %+v", h)
	}
	if h := got["empty/"]; h == nil || h.Mode != 0o700 {
		t.Errorf("empty: %+v", h)
	}
	for _, name := range []string{"", "dir/b", "dir/broken", long, "ümläut \n"} {
		if got[name] == nil {
			t.Errorf("%q is missing", name)
		}
	}
	if tree.Files != 4 || tree.Bytes != 9 {
		t.Errorf("%d files of %d bytes", tree.Files, tree.Bytes)
	}
}

func TestIgnoreFilesDecideInOrder(t *testing.T) {
	root := plant(t, map[string]string{
		".gitignore":     "*.log\nbuild/\n.*\n!.bottleignore\n!.gitignore\n",
		".bottleignore":  "!keep.log\nsecret\n",
		"sub/.gitignore": "!deep.log\n",
		".git/HEAD":      "ref", "a.log": "", "keep.log": "", "secret": "", "sub/secret": "", "sub/deep.log": "", "sub/other.log": "",
		"build/out": "", "sub/build/out": "", "src/main.go": "", "src/note.tmp": "", ".env": "",
	})
	for name, test := range map[string]struct {
		opts Options
		want []string
	}{
		"all": {Options{}, []string{".bottleignore", ".git/HEAD", ".gitignore", "keep.log", "src/main.go", "src/note.tmp", "sub/.gitignore", "sub/deep.log"}},
		"the manifest's patterns first": {
			Options{Ignore: []string{"*.tmp", ".git", "!secret", "/src/main.go", "sub"}},
			[]string{".bottleignore", ".gitignore", "keep.log", "secret"},
		},
		"without .gitignore": {
			Options{NoGitIgnore: true},
			[]string{".bottleignore", ".env", ".git/HEAD", ".gitignore", "a.log", "build/out", "keep.log", "src/main.go", "src/note.tmp", "sub/.gitignore", "sub/build/out", "sub/deep.log", "sub/other.log"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := names(t, scan(t, root, test.opts)); !slices.Equal(got, test.want) {
				t.Errorf("got  %q\nwant %q", got, test.want)
			}
		})
	}
}

func TestIgnoreFilesAboveTheWorkspaceApplyWithinTheRepository(t *testing.T) {
	root := plant(t, map[string]string{
		".gitignore": "*.o\n/ws/anchored\n", "repo/.git/info/exclude": "excluded\n", "repo/.gitignore": "*.log\n/ws/anchored\n/top\n",
		"repo/ws/a.log": "", "repo/ws/a.o": "", "repo/ws/anchored": "", "repo/ws/top": "", "repo/ws/excluded": "", "repo/ws/x": "",
	})
	want := []string{"a.o", "top", "x"}
	if got := names(t, scan(t, filepath.Join(root, "repo", "ws"), Options{})); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestSpecialFilesAreNotedAndWorktreesExplained(t *testing.T) {
	root := plant(t, map[string]string{".git": "gitdir: /elsewhere", "x": ""})
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o644))
	tree := scan(t, root, Options{})
	want := []string{`".git" belongs to a git repository elsewhere: the copy has no history`, `"fifo" is left out: it is a FIFO`}
	if !slices.Equal(tree.Notes, want) {
		t.Errorf("notes: %q", tree.Notes)
	}
	if got := names(t, tree); !slices.Equal(got, []string{".git", "x"}) {
		t.Errorf("copied: %q", got)
	}
}

func TestWhatChangesAfterTheScanIsNeitherFollowedNorWaitedFor(t *testing.T) {
	root := plant(t, map[string]string{"file": "old", "fifo": "x", "gone": "x", "grown": "ab", "link": "-> a"})
	tree := scan(t, root, Options{})
	for _, name := range []string{"file", "fifo", "gone", "link"} {
		must(t, os.Remove(filepath.Join(root, name)))
	}
	must(t, os.Symlink("/etc/passwd", filepath.Join(root, "file")))
	must(t, unix.Mkfifo(filepath.Join(root, "fifo"), 0o644))
	must(t, os.WriteFile(filepath.Join(root, "grown"), []byte("abcdef"), 0o644))
	got := copied(t, tree)
	if len(got) != 2 || got["grown"].PAXRecords["content"] != "abcdef" {
		t.Errorf("copied: %v", slices.Collect(maps.Keys(got)))
	}
}

func TestAWorkspaceThatIsNoneIsAnError(t *testing.T) {
	root := plant(t, map[string]string{"file": ""})
	if _, err := Scan(t.Context(), filepath.Join(root, "nowhere"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing one: %v", err)
	}
	if _, err := Scan(t.Context(), filepath.Join(root, "file"), Options{}); err == nil {
		t.Error("a file is no error")
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrUnexpectedEOF)
	if _, err := Scan(ctx, root, Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a cancelled scan: %v", err)
	}
}

func TestWhatScanLeavesOutIsIgnoredByName(t *testing.T) {
	root := plant(t, map[string]string{
		".gitignore": "*.o\n/build/\n!keep.o\n", ".bottleignore": "secret\n", "sub/.gitignore": "log\n!deep/log\n", "src/a.o": "", "a.c": "", "build/x": "",
	})
	ignored, err := Ignored(root, Options{Ignore: []string{"/private"}})
	must(t, err)
	for name, want := range map[string]bool{
		"a.c": false, "new.o": true, "src/a.o": true, "src/keep.o": false, "build/x/y": true, "build": false, "other/build/x": false,
		"secret": true, "sub/secret/x": true, "sub/log": true, "log": false, "sub/deep/log": false, "private/x": true, "nosuch/dir/x.o": true,
	} {
		if got := ignored(name); got != want {
			t.Errorf("%s: %v", name, got)
		}
	}
	none, err := Ignored(root, Options{All: true})
	must(t, err)
	if none("x.o") || none("secret") {
		t.Error("All leaves something out")
	}
	if _, err := Ignored(root+"/nosuch", Options{}); err == nil {
		t.Error("a directory that is not there has no rules, and that is no error")
	}
}

func TestWhatIsWrittenIsNoted(t *testing.T) {
	root := plant(t, map[string]string{"a": "aye", "d/b": "bee"})
	must(t, os.Symlink("a", filepath.Join(root, "l")))
	must(t, os.Chmod(filepath.Join(root, "a"), 0o755))
	var got []string
	must(t, scan(t, root, Options{}).WriteNoted(t.Context(), tar.NewWriter(io.Discard), "x", 1, 1, func(n Noted) {
		got = append(got, fmt.Sprintf("%s %v %d %.4x %s", n.Name, n.Mode, n.Size, n.Sum, n.Target))
	}))
	want := []string{
		fmt.Sprintf("a -rwxr-xr-x 3 %.4x ", sha256.Sum256([]byte("aye"))), fmt.Sprintf("d/b -rw-r--r-- 3 %.4x ", sha256.Sum256([]byte("bee"))),
		"l Lrwxrwxrwx 0 00000000 a",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
