package podman

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// archiver writes files of a container into an archive. It walks by descriptors,
// each opened below the one before and none through a link; it opens no device, no
// FIFO and no socket, and does not go into the kernel's file systems.
type archiver struct {
	ctx    context.Context
	w      *tar.Writer
	first  map[fileID]string // of the files with several names, the first
	buffer []byte
}

type fileID struct{ dev, ino uint64 }

// maxFirst bounds what is remembered: further files are copied once per name.
const maxFirst = 1 << 16

func newArchiver(ctx context.Context, w io.Writer) *archiver {
	return &archiver{ctx: ctx, w: tar.NewWriter(w), first: map[fileID]string{}, buffer: make([]byte, 256<<10)}
}

// archive writes what an O_PATH descriptor stands for, and closes it.
func (a *archiver) archive(fd int, name string) error {
	defer func() { _ = unix.Close(fd) }()
	if err := a.add(fd, name); err != nil {
		return err
	}
	return a.w.Close()
}

func (a *archiver) add(fd int, name string) error {
	if a.ctx.Err() != nil {
		return context.Cause(a.ctx)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: name, Err: err}
	}
	hdr := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid),
		ModTime: time.Unix(st.Mtim.Unix()), Format: tar.FormatPAX,
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
			return &os.PathError{Op: "readlink", Path: name, Err: err}
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, string(target[:n])
		return a.w.WriteHeader(hdr)
	}
	return nil // devices, FIFOs and sockets are left out
}

func (a *archiver) directory(fd int, hdr *tar.Header) error {
	name := hdr.Name
	opened, err := openBelow(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	dir := os.NewFile(uintptr(opened), name)
	defer dir.Close()
	hdr.Typeflag, hdr.Name = tar.TypeDir, name+"/"
	a.attributes(opened, hdr)
	if err := a.w.WriteHeader(hdr); err != nil {
		return err
	}
	if kernels(opened) {
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
			fd, err := openBelow(opened, child, unix.O_PATH|unix.O_NOFOLLOW)
			if errors.Is(err, unix.ENOENT) {
				continue // gone meanwhile
			}
			if err != nil {
				return &os.PathError{Op: "open", Path: name + "/" + child, Err: err}
			}
			err = a.add(fd, name+"/"+child)
			_ = unix.Close(fd)
			if err != nil {
				return err
			}
		}
	}
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
		id := fileID{uint64(st.Dev), st.Ino} //nolint:unconvert // 32 bits elsewhere
		if first, ok := a.first[id]; ok {
			hdr.Typeflag, hdr.Linkname = tar.TypeLink, first
			return a.w.WriteHeader(hdr)
		}
		if len(a.first) < maxFirst {
			a.first[id] = hdr.Name
		}
	}
	if kernels(fd) {
		return nil
	}
	// Known to be a regular file, and the same one: opened through its descriptor.
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: hdr.Name, Err: err}
	}
	defer f.Close()
	hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	a.attributes(int(f.Fd()), hdr)
	if err := a.w.WriteHeader(hdr); err != nil {
		return err
	}
	// The size is the header's, whatever becomes of the file meanwhile.
	for left := st.Size; left > 0; {
		if a.ctx.Err() != nil {
			return context.Cause(a.ctx)
		}
		piece := a.buffer[:min(left, int64(len(a.buffer)))]
		n, err := f.Read(piece)
		if n == 0 && err != nil {
			if !errors.Is(err, io.EOF) {
				return err
			}
			clear(piece)
			n = len(piece)
		}
		if _, err := a.w.Write(piece[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

// attributes adds what a file has of the user's attributes and its capabilities.
func (a *archiver) attributes(fd int, hdr *tar.Header) {
	list, value := a.buffer[:64<<10], a.buffer[64<<10:128<<10]
	n, err := unix.Flistxattr(fd, list)
	if err != nil || n == 0 {
		return
	}
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if !strings.HasPrefix(name, "user.") && name != "security.capability" {
			continue
		}
		if n, err := unix.Fgetxattr(fd, name, value); err == nil {
			if hdr.PAXRecords == nil {
				hdr.PAXRecords = map[string]string{}
			}
			hdr.PAXRecords["SCHILY.xattr."+name] = string(value[:n])
		}
	}
}

// kernels reports whether a file is one that the kernel makes up.
func kernels(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil {
		return false
	}
	switch st.Type {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEVPTS_SUPER_MAGIC,
		unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, mqueueMagic:
		return true
	}
	return false
}

const mqueueMagic = 0x19800202
