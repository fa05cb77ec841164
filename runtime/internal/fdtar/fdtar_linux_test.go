package fdtar

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/internal/needs"
)

func open(t *testing.T, path string) int {
	t.Helper()
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// entries reads an archive: name to type, link target and content.
func entries(t *testing.T, r io.Reader) map[string]string {
	t.Helper()
	got := map[string]string{}
	for tr := tar.NewReader(r); ; {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return got
		}
		must(t, err)
		content, err := io.ReadAll(tr)
		must(t, err)
		got[hdr.Name] = string(hdr.Typeflag) + " " + hdr.Linkname + string(content)
	}
}

func TestFilesLinksAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "outside")
	must(t, os.WriteFile(outside, []byte("secret of the host"), 0o600))
	must(t, os.MkdirAll(filepath.Join(dir, "top", "sub"), 0o755))
	top := filepath.Join(dir, "top")
	must(t, os.WriteFile(filepath.Join(top, "file"), []byte("content"), 0o640))
	must(t, os.Link(filepath.Join(top, "file"), filepath.Join(top, "sub", "again")))
	must(t, os.Symlink(outside, filepath.Join(top, "link")))
	must(t, unix.Mkfifo(filepath.Join(top, "fifo"), 0o600))
	must(t, os.WriteFile(filepath.Join(top, "sub", "empty"), nil, 0o600))
	var out bytes.Buffer
	must(t, Write(t.Context(), &out, open(t, top), "name"))
	got := entries(t, &out)
	first, second := got["name/file"], got["name/sub/again"]
	if first != "0 content" {
		first, second = second, first
	}
	if first != "0 content" || !strings.HasPrefix(second, "1 name/") {
		t.Errorf("the file is %q, its other name %q", first, second)
	}
	for name, want := range map[string]string{"name/": "5 ", "name/sub/": "5 ", "name/sub/empty": "0 ", "name/link": "2 " + outside} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
	if len(got) != 6 {
		t.Errorf("the archive holds %v", got)
	}
}

func TestAnAttributeIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	if err := unix.Setxattr(file, "user.note", []byte("kept"), 0); errors.Is(err, unix.EOPNOTSUPP) {
		needs.Missing(t, "%s is on a file system without user attributes", file)
	} else {
		must(t, err)
	}
	var out bytes.Buffer
	must(t, Write(t.Context(), &out, open(t, file), "file"))
	hdr, err := tar.NewReader(&out).Next()
	must(t, err)
	if hdr.PAXRecords[XattrRecord+"user.note"] != "kept" {
		t.Errorf("the header has %v", hdr.PAXRecords)
	}
	if KeepsXattr("security.selinux") || KeepsXattr("trusted.overlay.opaque") {
		t.Error("an attribute that means something else elsewhere is kept")
	}
}

// TestADirectorySwappedForALink swaps a directory for a link to a foreign one, over
// and over, while it is read: nothing of the foreign one may be in any archive.
func TestADirectorySwappedForALink(t *testing.T) {
	top, foreign := t.TempDir(), t.TempDir()
	must(t, os.WriteFile(filepath.Join(foreign, "file"), []byte("foreign"), 0o600))
	sub, aside := filepath.Join(top, "sub"), filepath.Join(top, "aside")
	must(t, os.Mkdir(sub, 0o700))
	must(t, os.WriteFile(filepath.Join(sub, "file"), []byte("own"), 0o600))
	stop := make(chan struct{})
	var swapping sync.WaitGroup
	swapping.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Rename(sub, aside)
			_ = os.Symlink(foreign, sub)
			_ = os.Remove(sub)
			_ = os.Rename(aside, sub)
		}
	})
	defer func() { close(stop); swapping.Wait() }()
	fd := open(t, top)
	read := 0
	for try := 0; try < 3000 || read < 300; try++ {
		var out bytes.Buffer
		if Write(t.Context(), &out, fd, "top") != nil {
			continue // it was gone between two steps
		}
		read++
		if strings.Contains(out.String(), "foreign\x00") {
			t.Fatal("an archive holds the foreign file")
		}
	}
}

func TestWhatTheKernelMakesUpIsLeftOut(t *testing.T) {
	var out bytes.Buffer
	must(t, Write(t.Context(), &out, open(t, "/proc"), "proc"))
	if got := entries(t, &out); len(got) != 1 || got["proc/"] == "" {
		t.Errorf("the archive of /proc holds %d entries", len(got))
	}
}

// shrinker cuts a file off when the first byte of the archive is written.
type shrinker struct {
	bytes.Buffer
	cut func()
}

func (s *shrinker) Write(p []byte) (int, error) {
	if s.cut != nil {
		s.cut()
		s.cut = nil
	}
	return s.Buffer.Write(p)
}

func TestAFileThatShrinksIsFilledUp(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, bytes.Repeat([]byte("x"), 3*bufferSize/2), 0o600))
	out := &shrinker{cut: func() { _ = os.Truncate(file, 10) }}
	must(t, Write(t.Context(), out, open(t, file), "file"))
	content := entries(t, out)["file"]
	if want := "0 " + strings.Repeat("x", 10); len(content) != len("0 ")+3*bufferSize/2 || !strings.HasPrefix(content, want+"\x00") {
		t.Errorf("%d bytes, beginning with %.20q", len(content), content)
	}
}

func TestItEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if err := Write(ctx, io.Discard, open(t, t.TempDir()), "dir"); !errors.Is(err, cause) {
		t.Errorf("the error is %v", err)
	}
}
