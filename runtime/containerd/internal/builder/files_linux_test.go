package builder

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
)

func TestOnlyFilesOfTheDirectoryAreRead(t *testing.T) {
	dir := write(t, map[string]string{"file": "content", "sub/file": "more"})
	outside := write(t, map[string]string{"secret": "secret"})
	for link, target := range map[string]string{
		"absolute": filepath.Join(outside, "secret"), "upwards": "../" + filepath.Base(outside) + "/secret",
		"out": outside, "within": "sub",
	} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	fs, c, err := openFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, want := range map[string]string{"file": "content", "/file": "content", "sub/file": "more", "within/file": "more"} {
		f, err := fs.Open(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		content, err := io.ReadAll(f)
		if err != nil || string(content) != want {
			t.Errorf("%s holds %q %v", name, content, err)
		}
		_ = f.Close()
	}
	for _, name := range []string{"absolute", "upwards", "out/secret", "pipe", "sub", "../" + filepath.Base(outside) + "/secret"} {
		if f, err := fs.Open(name); err == nil {
			t.Errorf("%s was opened", name)
			_ = f.Close()
		}
	}
}

func TestAContextMayHoldAnything(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	dir := write(t, from("COPY . /c", "RUN ls -l /c | tr -s ' '; cat /c/script; readlink /c/link"))
	if err := os.WriteFile(filepath.Join(dir, "script"), []byte("text\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	// Chmod, since umask has its say when a file is made.
	if err := os.Chmod(filepath.Join(dir, "script"), 0o4751); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "Dockerfile"), 4711, 4711); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/hostname", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, out, err := w.build(b, runtime.BuildSpec{ContextDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	contains(t, out, "-rwxr-x--x 1 root root 5", "\ntext\n", "\n/etc/hostname\n")
	if strings.Contains(out, " 4711 ") {
		t.Error("an owner was kept")
	}
}
