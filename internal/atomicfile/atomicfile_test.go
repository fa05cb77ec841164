package atomicfile_test

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/bottle-run/bottle/internal/atomicfile"
)

// TestWrite makes a file and replaces it, with modes that the umask does not allow.
func TestWrite(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	for _, want := range []struct {
		content string
		mode    os.FileMode
	}{{"first", 0o644}, {"", 0o400}, {"third", 0o600}} {
		if err := atomicfile.Write(file, []byte(want.content), want.mode); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want.content || info.Mode() != want.mode {
			t.Errorf("it holds %q with mode %v, want %q with %v", got, info.Mode(), want.content, want.mode)
		}
	}
	alone(t, dir)
}

// TestWriteFails leaves what was there, and nothing else.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	taken := filepath.Join(dir, "taken") // a directory is replaced by no file
	if err := os.MkdirAll(filepath.Join(taken, "within"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := atomicfile.Write(taken, []byte("new"), 0o600); err == nil {
		t.Error("a directory was replaced")
	}
	if _, err := os.Stat(filepath.Join(taken, "within")); err != nil {
		t.Error(err)
	}
	alone(t, dir)
	if err := atomicfile.Write(filepath.Join(dir, "missing", "file"), nil, 0o600); !os.IsNotExist(err) {
		t.Errorf("a directory that is missing: %v", err)
	}
}

// alone checks that a directory holds one thing.
func alone(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("there are %v", entries)
	}
}
