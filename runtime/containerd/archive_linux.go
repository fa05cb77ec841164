package containerd

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// archiver writes files of a container into an archive. It walks by descriptors,
// each opened below the one before and none through a link; it opens no device and
// no FIFO; and it stays out of the kernel's file systems.
type archiver struct {
	ctx context.Context
	w   *tar.Writer
	// links maps files with several names to the first.
	links  map[inode]string
	buffer []byte
}

// maxLinks bounds what is remembered; files beyond it are copied once per name.
const maxLinks = 1 << 16

type inode struct{ dev, ino uint64 }

func newArchiver(ctx context.Context, w io.Writer) *archiver {
	return &archiver{ctx: ctx, w: tar.NewWriter(w), links: map[inode]string{}, buffer: make([]byte, copyBuffer)}
}

func (a *archiver) archive(fd int, name string) error {
	if err := a.add(fd, name); err != nil {
		return err
	}
	return a.w.Close()
}

// add writes what an O_PATH descriptor stands for.
func (a *archiver) add(fd int, name string) error {
	if err := context.Cause(a.ctx); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	hdr := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), Format: tar.FormatPAX,
		ModTime: time.Unix(st.Mtim.Unix()),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return a.directory(fd, hdr)
	case unix.S_IFREG:
		return a.file(fd, &st, hdr)
	case unix.S_IFLNK:
		target := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", target)
		if err != nil {
			return err
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, string(target[:n])
		return a.w.WriteHeader(hdr)
	}
	return nil // devices, FIFOs and sockets are left out
}

func (a *archiver) directory(fd int, hdr *tar.Header) error {
	f, err := openBelow(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(f), hdr.Name)
	defer dir.Close()
	hdr.Typeflag = tar.TypeDir
	name := hdr.Name
	hdr.Name += "/"
	a.xattrs(f, hdr)
	if err := a.w.WriteHeader(hdr); err != nil {
		return err
	}
	if pseudo(f) {
		return nil
	}
	for {
		// Some at a time: the container decides how many there are.
		names, err := dir.Readdirnames(1024)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, child := range names {
			if err := a.child(f, name, child); err != nil {
				return err
			}
		}
	}
}

func (a *archiver) child(dir int, dirName, name string) error {
	fd, err := openBelow(dir, name, unix.O_PATH|unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil // gone meanwhile
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path.Join(dirName, name), Err: err}
	}
	defer closeFD(fd)
	return a.add(fd, dirName+"/"+name)
}

func openBelow(dir int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dir, name, flags|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func (a *archiver) file(fd int, st *unix.Stat_t, hdr *tar.Header) error {
	if st.Nlink > 1 {
		key := inode{uint64(st.Dev), uint64(st.Ino)} //nolint:unconvert // narrower on some architectures
		if firstName, ok := a.links[key]; ok {
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, firstName
			return a.w.WriteHeader(hdr)
		}
		if len(a.links) < maxLinks {
			a.links[key] = hdr.Name
		}
	}
	if pseudo(fd) {
		return nil
	}
	f, err := reopenRegular(fd, hdr.Name)
	if err != nil {
		return err
	}
	defer f.Close()
	hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	a.xattrs(int(f.Fd()), hdr)
	if err := a.w.WriteHeader(hdr); err != nil {
		return err
	}
	// The size is the header's, whatever becomes of the file meanwhile.
	n, err := io.CopyBuffer(onlyWriter{a.w}, &contextReader{a.ctx, io.LimitReader(f, st.Size)}, a.buffer)
	if err != nil {
		return fmt.Errorf("read %s: %w", hdr.Name, err)
	}
	for left := st.Size - n; left > 0; {
		chunk := min(left, int64(len(zeros)))
		if _, err := a.w.Write(zeros[:chunk]); err != nil {
			return err
		}
		left -= chunk
	}
	return nil
}

// onlyWriter hides ReadFrom, which would not use the buffer.
type onlyWriter struct{ io.Writer }

// xattrs adds a file's extended attributes to its header.
func (a *archiver) xattrs(fd int, hdr *tar.Header) {
	list, value := a.buffer[:len(a.buffer)/2], a.buffer[len(a.buffer)/2:]
	n, err := unix.Flistxattr(fd, list)
	if err != nil || n == 0 {
		return
	}
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if !copiedXattr(name) {
			continue
		}
		if n, err := unix.Fgetxattr(fd, name, value); err == nil {
			if hdr.PAXRecords == nil {
				hdr.PAXRecords = map[string]string{}
			}
			hdr.PAXRecords[xattrRecord+name] = string(value[:n])
		}
	}
}
