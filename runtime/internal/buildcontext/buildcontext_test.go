//go:build unix

package buildcontext

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
)

// tree writes files by name; a name that ends in "/" is a directory.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if strings.HasSuffix(name, "/") {
			must(t, os.MkdirAll(path, 0o755))
			continue
		}
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type entry struct {
	tar.Header
	content string
}

func read(t *testing.T, c *Context) (names []string, entries map[string]entry) {
	t.Helper()
	r := c.Tar()
	defer r.Close()
	entries = map[string]entry{}
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names, entries
		}
		must(t, err)
		content, err := io.ReadAll(tr)
		must(t, err)
		if _, twice := entries[h.Name]; twice {
			t.Errorf("%s is in the stream twice", h.Name)
		}
		names = append(names, h.Name)
		entries[h.Name] = entry{*h, string(content)}
	}
}

func TestSelection(t *testing.T) {
	files := map[string]string{
		"Dockerfile": "FROM scratch", "a": "1", "b.log": "2", "dir/c": "3", "dir/d.log": "4", "dir/sub/e": "5",
		"empty/": "", "node_modules/x/y": "6", "node_modules/keep/z": "7",
	}
	for _, tc := range []struct {
		name   string
		ignore string
		want   []string
	}{
		{"without an ignore file everything is sent", "", []string{
			"Dockerfile", "a", "b.log", "dir/", "dir/c", "dir/d.log", "dir/sub/", "dir/sub/e", "empty/",
			"node_modules/", "node_modules/keep/", "node_modules/keep/z", "node_modules/x/", "node_modules/x/y"}},
		{"patterns with ** reach every level", "**/*.log\nnode_modules\n", []string{
			".dockerignore", "Dockerfile", "a", "dir/", "dir/c", "dir/sub/", "dir/sub/e", "empty/"}},
		{"an exception brings back what is below an excluded directory, with its parents", "node_modules\n!node_modules/keep\ndir\nempty\n", []string{
			".dockerignore", "Dockerfile", "a", "b.log", "node_modules/", "node_modules/keep/", "node_modules/keep/z"}},
		{"an exception with a wildcard does so too", "*\n!**/e\n", []string{
			".dockerignore", "Dockerfile", "dir/", "dir/sub/", "dir/sub/e"}},
		{"the Dockerfile is sent even if it is excluded", "# all\n*\n", []string{".dockerignore", "Dockerfile"}},
		{"leading slashes and spaces do not matter", "  /dir \n/node_modules/\n/empty\n", []string{".dockerignore", "Dockerfile", "a", "b.log"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := tree(t, files)
			if tc.ignore != "" {
				must(t, os.WriteFile(filepath.Join(dir, ".dockerignore"), []byte(tc.ignore), 0o644))
			}
			c, err := Open(dir, "")
			must(t, err)
			names, entries := read(t, c)
			if !slices.Equal(names, tc.want) {
				t.Errorf("stream holds %q, want %q", names, tc.want)
			}
			if tc.ignore != "" && entries[".dockerignore"].content != tc.ignore {
				t.Errorf(".dockerignore was changed to %q", entries[".dockerignore"].content)
			}
		})
	}
}

func TestDockerfilesOwnIgnoreFileWins(t *testing.T) {
	dir := tree(t, map[string]string{
		"docker/Agent": "FROM scratch", "docker/Agent.dockerignore": "a\n", ".dockerignore": "b\n", "a": "", "b": "",
	})
	c, err := Open(dir, "docker/Agent")
	must(t, err)
	names, entries := read(t, c)
	if want := []string{".dockerignore", "b", "docker/", "docker/Agent", "docker/Agent.dockerignore"}; !slices.Equal(names, want) {
		t.Errorf("stream holds %q, want %q", names, want)
	}
	if got := entries[".dockerignore"].content; got != "a\n" {
		t.Errorf("an engine that reads .dockerignore again would apply %q", got)
	}
	if c.Dockerfile != "docker/Agent" {
		t.Errorf("Dockerfile is %q", c.Dockerfile)
	}
}

func TestDockerfileOutsideIsHiddenFromCopy(t *testing.T) {
	dir := tree(t, map[string]string{"a": ""})
	other := tree(t, map[string]string{"Agentfile": "FROM scratch\n"})
	c, err := Open(dir, filepath.Join(other, "Agentfile"))
	must(t, err)
	names, entries := read(t, c)
	if want := []string{".dockerignore", c.Dockerfile, "a"}; !slices.Equal(names, want) {
		t.Fatalf("stream holds %q, want %q", names, want)
	}
	if entries[c.Dockerfile].content != "FROM scratch\n" {
		t.Errorf("Dockerfile holds %q", entries[c.Dockerfile].content)
	}
	lines := strings.Fields(entries[".dockerignore"].content)
	if !slices.Contains(lines, c.Dockerfile) || !slices.Contains(lines, ".dockerignore") {
		t.Errorf("COPY would see the Dockerfile or the ignore file: %q", lines)
	}
}

func TestDockerfileThatIsALinkOutOfTheContext(t *testing.T) {
	other := tree(t, map[string]string{"Agentfile": "FROM scratch\n"})
	dir := tree(t, map[string]string{"a": ""})
	must(t, os.Symlink(filepath.Join(other, "Agentfile"), filepath.Join(dir, "Dockerfile")))
	if _, err := Open(dir, ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("relative name: %v, want InvalidArgument", err)
	}
	c, err := Open(dir, filepath.Join(dir, "Dockerfile"))
	must(t, err)
	if _, entries := read(t, c); entries[c.Dockerfile].content != "FROM scratch\n" {
		t.Errorf("Dockerfile holds %q", entries[c.Dockerfile].content)
	}
}

func TestModesLinksAndSpecialFiles(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "", "run.sh": "#!", "sub/": ""})
	must(t, os.Chmod(filepath.Join(dir, "run.sh"), 0o751|os.ModeSetuid))
	must(t, os.Symlink("/etc/passwd", filepath.Join(dir, "abs")))
	must(t, os.Symlink("../sub", filepath.Join(dir, "sub", "up")))
	must(t, syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600))
	c, err := Open(dir, "")
	must(t, err)
	names, entries := read(t, c)
	if want := []string{"Dockerfile", "abs", "run.sh", "sub/", "sub/up"}; !slices.Equal(names, want) {
		t.Fatalf("stream holds %q, want %q", names, want)
	}
	if got := entries["run.sh"].Mode; got != 0o4751 {
		t.Errorf("mode is %o", got)
	}
	for name, target := range map[string]string{"abs": "/etc/passwd", "sub/up": "../sub"} {
		if e := entries[name]; e.Typeflag != tar.TypeSymlink || e.Linkname != target {
			t.Errorf("%s is %c to %q", name, e.Typeflag, e.Linkname)
		}
	}
	for name, e := range entries {
		if e.Uid != 0 || e.Gid != 0 || e.Uname != "" {
			t.Errorf("%s belongs to %d:%d %q", name, e.Uid, e.Gid, e.Uname)
		}
	}
}

func TestBadInput(t *testing.T) {
	dir := tree(t, map[string]string{"Dockerfile": "", "dir/": "", "bad/Dockerfile": "", "bad/.dockerignore": "[", "file": ""})
	for _, tc := range []struct {
		name, dir, dockerfile string
		is                    func(error) bool
	}{
		{"no directory", filepath.Join(dir, "none"), "", errdefs.IsNotFound},
		{"a file", filepath.Join(dir, "file"), "", errdefs.IsInvalidArgument},
		{"no Dockerfile", filepath.Join(dir, "dir"), "", errdefs.IsNotFound},
		{"the Dockerfile is a directory", dir, "dir", errdefs.IsInvalidArgument},
		{"a relative way out", filepath.Join(dir, "dir"), "../Dockerfile", errdefs.IsInvalidArgument},
		{"a bad pattern", filepath.Join(dir, "bad"), "", errdefs.IsInvalidArgument},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if _, err := Open(tc.dir, tc.dockerfile); !tc.is(err) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestCloseEndsTheStream(t *testing.T) {
	c, err := Open(tree(t, map[string]string{"Dockerfile": strings.Repeat("#", 1<<20)}), "")
	must(t, err)
	r := c.Tar()
	if _, err := io.ReadFull(r, make([]byte, 512)); err != nil {
		t.Fatal(err)
	}
	must(t, r.Close())
	if _, err := r.Read(make([]byte, 1)); err == nil {
		t.Error("a closed stream can be read")
	}
}
