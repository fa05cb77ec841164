package containerd

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/fdtar"
)

// copyBuffer is the size in which files are copied, and of the holes looked for.
const copyBuffer = 256 << 10

// extractor unpacks an archive below a directory of a container. Every name is
// resolved inside the container's root, whatever the container does to the
// directories on the way; nothing that exists is opened for writing.
type extractor struct {
	ctx  context.Context
	root *rootfs
	dir  string

	// parent is the directory of the last entry, open.
	parent     int
	parentName string
	parentOpen bool
	// dirs get their times last, since every entry in them changes those.
	dirs   []*tar.Header
	buffer []byte
}

var zeros = make([]byte, copyBuffer)

func (x *extractor) extract(archive io.Reader) error {
	x.buffer = make([]byte, copyBuffer)
	defer x.closeParent()
	r := tar.NewReader(&contextReader{x.ctx, archive})
	for {
		hdr, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if cause := context.Cause(x.ctx); cause != nil {
				return cause
			}
			return runtime.WithKind(errdefs.ErrInvalidArgument, fmt.Errorf("read the archive: %w", err))
		}
		if err := x.entry(hdr, r); err != nil {
			return copyError(path.Join(x.dir, hdr.Name), err)
		}
	}
	for i := len(x.dirs) - 1; i >= 0; i-- {
		if err := x.dirTimes(x.dirs[i]); err != nil {
			return err
		}
	}
	return nil
}

// contextReader stops with its context.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if cause := context.Cause(c.ctx); cause != nil {
		return 0, cause
	}
	return n, err
}

func (x *extractor) closeParent() {
	if x.parentOpen {
		_ = unix.Close(x.parent)
		x.parentOpen = false
	}
}

// enter opens the directory that an entry lies in, making it if it is missing.
func (x *extractor) enter(name string) (int, error) {
	dir := path.Join(x.dir, path.Dir(name))
	if x.parentOpen && x.parentName == dir {
		return x.parent, nil
	}
	x.closeParent()
	fd, err := x.root.open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOENT) {
		fd, err = x.root.mkdirAll(dir)
	}
	if err != nil {
		return -1, err
	}
	if fdtar.Pseudo(fd) {
		_ = unix.Close(fd)
		return -1, precondition("%s is of the kernel's making and takes no files", dir)
	}
	x.parent, x.parentName, x.parentOpen = fd, dir, true
	return fd, nil
}

func (x *extractor) entry(hdr *tar.Header, content io.Reader) error {
	name := path.Clean(hdr.Name)
	if path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../") {
		return invalid("the archive's name %q leads out of it", hdr.Name)
	}
	if name == "." {
		return x.top(hdr)
	}
	parent, err := x.enter(name)
	if err != nil {
		return err
	}
	base := path.Base(name)
	switch hdr.Typeflag {
	case tar.TypeDir:
		return x.directory(parent, base, hdr)
	case tar.TypeReg:
		return x.file(parent, base, hdr, content)
	case tar.TypeSymlink:
		return x.replace(parent, base, func(temporary string) error {
			if err := unix.Symlinkat(hdr.Linkname, parent, temporary); err != nil {
				return err
			}
			if err := unix.Fchownat(parent, temporary, hdr.Uid, hdr.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return err
			}
			return unix.UtimesNanoAt(parent, temporary, times(hdr), unix.AT_SYMLINK_NOFOLLOW)
		})
	case tar.TypeLink:
		return x.link(parent, base, hdr)
	}
	return invalid("the archive's %q is neither file, directory nor link", hdr.Name)
}

// top applies an entry for the target directory itself.
func (x *extractor) top(hdr *tar.Header) error {
	if hdr.Typeflag != tar.TypeDir {
		return invalid("the archive's %q is not a directory", hdr.Name)
	}
	fd, err := x.root.open(x.dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	x.dirs = append(x.dirs, hdr)
	return adorn(fd, hdr)
}

// replace makes something under a temporary name and then gives it its own.
func (x *extractor) replace(parent int, base string, make func(temporary string) error) error {
	temporary := ".bottle-" + newID()
	err := make(temporary)
	if err == nil {
		err = unix.Renameat(parent, temporary, parent, base)
	}
	if err != nil {
		_ = unix.Unlinkat(parent, temporary, 0)
	}
	return err
}

func (x *extractor) directory(parent int, base string, hdr *tar.Header) error {
	err := unix.Mkdirat(parent, base, 0o700)
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(parent, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := unix.Unlinkat(parent, base, 0); err != nil {
				return err
			}
			err = unix.Mkdirat(parent, base, 0o700)
		} else {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	fd, err := unix.Openat(parent, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	x.dirs = append(x.dirs, hdr)
	return adorn(fd, hdr)
}

func (x *extractor) file(parent int, base string, hdr *tar.Header, content io.Reader) error {
	return x.replace(parent, base, func(temporary string) error {
		fd, err := unix.Openat(parent, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return err
		}
		err = x.write(fd, content, hdr.Size)
		if err == nil {
			err = adorn(fd, hdr)
		}
		if err == nil {
			err = unix.UtimesNanoAt(parent, temporary, times(hdr), unix.AT_SYMLINK_NOFOLLOW)
		}
		return errors.Join(err, unix.Close(fd))
	})
}

// write copies a file's content, leaving holes for zeros.
func (x *extractor) write(fd int, content io.Reader, size int64) error {
	var at int64
	for {
		n, err := io.ReadFull(content, x.buffer)
		if n > 0 && !bytes.Equal(x.buffer[:n], zeros[:n]) {
			for done := 0; done < n; {
				w, err := unix.Pwrite(fd, x.buffer[done:n], at+int64(done))
				if errors.Is(err, unix.EINTR) {
					continue
				}
				if err != nil {
					return err
				}
				done += w
			}
		}
		at += int64(n)
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			if at != size {
				if cause := context.Cause(x.ctx); cause != nil {
					return cause
				}
				return invalid("the archive ends in the middle of a file")
			}
			return unix.Ftruncate(fd, size)
		case err != nil:
			return err
		}
	}
}

// link makes a hard link to a file that the archive held before.
func (x *extractor) link(parent int, base string, hdr *tar.Header) error {
	target := path.Clean(hdr.Linkname)
	if path.IsAbs(target) || target == ".." || strings.HasPrefix(target, "../") {
		return invalid("the archive's %q is a hard link to %q, out of it", hdr.Name, hdr.Linkname)
	}
	dir, err := x.root.open(path.Join(x.dir, path.Dir(target)), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	defer closeFD(dir)
	return x.replace(parent, base, func(temporary string) error {
		return unix.Linkat(dir, path.Base(target), parent, temporary, 0)
	})
}

// adorn sets owner, mode and extended attributes, in the order in which none of
// them undoes another.
func adorn(fd int, hdr *tar.Header) error {
	if err := unix.Fchown(fd, hdr.Uid, hdr.Gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode&0o7777)); err != nil {
		return err
	}
	for key, value := range hdr.PAXRecords {
		attr, ok := strings.CutPrefix(key, fdtar.XattrRecord)
		if !ok || !fdtar.KeepsXattr(attr) {
			continue
		}
		err := unix.Fsetxattr(fd, attr, []byte(value), 0)
		if err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("set attribute %s: %w", attr, err)
		}
	}
	return nil
}

func times(hdr *tar.Header) []unix.Timespec {
	accessed := hdr.AccessTime
	if accessed.IsZero() {
		accessed = hdr.ModTime
	}
	return []unix.Timespec{timespec(accessed), timespec(hdr.ModTime)}
}

func timespec(t time.Time) unix.Timespec {
	if t.IsZero() {
		t = time.Unix(0, 0)
	}
	return unix.NsecToTimespec(t.UnixNano())
}

// dirTimes sets a directory's times, if it still is one.
func (x *extractor) dirTimes(hdr *tar.Header) error {
	parent, err := x.enter(path.Join(path.Clean(hdr.Name), "x"))
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	fd, err := unix.Openat(parent, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer closeFD(fd)
	ts := times(hdr)
	tv := []unix.Timeval{unix.NsecToTimeval(ts[0].Nano()), unix.NsecToTimeval(ts[1].Nano())}
	return unix.Futimes(fd, tv)
}
