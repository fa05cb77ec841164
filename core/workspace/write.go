package workspace

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Write streams the tree into an archive: its root as the directory prefix, all
// owned by uid and gid. A file that has gone since the scan is left out. One that
// changes while it is read is an error.
func (t *Tree) Write(ctx context.Context, w *tar.Writer, prefix string, uid, gid int) error {
	return t.WriteNoted(ctx, w, prefix, uid, gid, nil)
}

// Noted is a file or link as it was written into the copy.
type Noted struct {
	Name string // slash-separated, below the root
	Mode fs.FileMode
	Size int64
	// Sum is the SHA-256 of a file's content; Target is a link's.
	Sum    [sha256.Size]byte
	Target string
}

// WriteNoted is Write that tells note of each file and link that it has written, if note is
// not nil.
func (t *Tree) WriteNoted(ctx context.Context, w *tar.Writer, prefix string, uid, gid int, note func(Noted)) error {
	head := func(e entry) *tar.Header {
		return &tar.Header{
			Name: path.Join(prefix, e.name), Mode: int64(e.mode.Perm()), Uid: uid, Gid: gid, ModTime: e.mtime,
			// PAX keeps names of any length and times exactly.
			Format: tar.FormatPAX,
		}
	}
	if err := writeDir(w, head(t.top)); err != nil {
		return err
	}
	for _, e := range t.entries {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, n := head(e), Noted{Name: e.name, Mode: e.mode}
		full := filepath.Join(t.Root, filepath.FromSlash(e.name))
		var err error
		switch {
		case e.mode.IsDir():
			err = writeDir(w, h)
		case e.mode&fs.ModeSymlink != 0:
			err = writeLink(w, h, full)
		case note != nil:
			sum := sha256.New()
			err = writeFile(w, h, full, sum)
			sum.Sum(n.Sum[:0])
		default:
			err = writeFile(w, h, full, nil)
		}
		if err != nil && !errors.Is(err, ErrGone) {
			return err
		}
		if note != nil && err == nil && !e.mode.IsDir() {
			n.Size, n.Target = h.Size, h.Linkname
			note(n)
		}
	}
	return nil
}

// ErrGone is a file that has disappeared since the scan, or is no regular file any more.
var ErrGone = errors.New("the file is gone")

// writeDir makes a directory that its owner can always enter and change.
func writeDir(w *tar.Writer, h *tar.Header) error {
	h.Typeflag, h.Name, h.Mode = tar.TypeDir, h.Name+"/", h.Mode|0o700
	return w.WriteHeader(h)
}

func writeLink(w *tar.Writer, h *tar.Header, full string) error {
	target, err := os.Readlink(full)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EINVAL) {
		return ErrGone // or it is no link any more
	}
	if err != nil {
		return err
	}
	h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, target, 0o777
	return w.WriteHeader(h)
}

// openFile opens what was a regular file when it was scanned.
func openFile(full string) (*os.File, fs.FileInfo, error) {
	// It may be a link or a FIFO by now: neither is followed or waited for.
	f, err := os.OpenFile(full, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENXIO) {
		return nil, nil, ErrGone
	}
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = ErrGone
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, info, nil
}

// ReadFile reads a regular file of the copy, of no more than limit bytes.
func (t *Tree) ReadFile(name string, limit int64) ([]byte, error) {
	full := filepath.Join(t.Root, filepath.FromSlash(name))
	f, info, err := openFile(full)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	if info.Size() > limit {
		return nil, &fs.PathError{Op: "read", Path: full, Err: fmt.Errorf("it has more than %d bytes", limit)}
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

// writeFile writes a file's content to sum, too, if that is not nil.
func writeFile(w *tar.Writer, h *tar.Header, full string, sum io.Writer) error {
	f, info, err := openFile(full)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	h.Typeflag, h.Size, h.ModTime = tar.TypeReg, info.Size(), info.ModTime()
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	var out io.Writer = w
	if sum != nil {
		out = io.MultiWriter(w, sum)
	}
	switch n, err := io.Copy(out, io.LimitReader(f, h.Size)); {
	case err != nil:
		return fmt.Errorf("copy %s: %w", full, err)
	case n < h.Size:
		return &fs.PathError{Op: "copy", Path: full, Err: errors.New("it became shorter while it was read")}
	}
	return nil
}
