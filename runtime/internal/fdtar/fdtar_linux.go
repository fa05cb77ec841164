package fdtar

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

// bufferSize is the size in which files are copied, in bytes.
const bufferSize = 256 << 10

// XattrRecord stands before the name of an extended attribute among the PAX records
// of a header.
const XattrRecord = "SCHILY.xattr."

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

// Write writes an archive of the file or the directory that an O_PATH descriptor
// stands for, under a name. Owners are those that this process sees. The descriptor
// stays open. An archive that could not be written to its end has no end.
func Write(ctx context.Context, w io.Writer, fd int, name string) error {
	a := &archiver{ctx: ctx, w: tar.NewWriter(w), links: map[inode]string{}, buffer: make([]byte, bufferSize)}
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
		return &os.PathError{Op: "stat", Path: name, Err: err}
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
			return &os.PathError{Op: "readlink", Path: name, Err: err}
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, string(target[:n])
		return a.w.WriteHeader(hdr)
	}
	return nil // devices, FIFOs and sockets are left out
}

func (a *archiver) directory(fd int, hdr *tar.Header) error {
	f, err := openBelow(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return &os.PathError{Op: "open", Path: hdr.Name, Err: err}
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
	if Pseudo(f) {
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
	defer func() { _ = unix.Close(fd) }()
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
	if Pseudo(fd) {
		return nil
	}
	// Known to be a regular file, and the same one: opened through its descriptor.
	f, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: hdr.Name, Err: err}
	}
	defer f.Close()
	hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	a.xattrs(int(f.Fd()), hdr)
	if err := a.w.WriteHeader(hdr); err != nil {
		return err
	}
	// The size is the header's, whatever becomes of the file meanwhile.
	for left := st.Size; left > 0; {
		if err := context.Cause(a.ctx); err != nil {
			return err
		}
		piece := a.buffer[:min(left, int64(len(a.buffer)))]
		n, err := f.Read(piece)
		if n == 0 && err != nil {
			if !errors.Is(err, io.EOF) {
				return fmt.Errorf("read %s: %w", hdr.Name, err)
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

// xattrs adds a file's extended attributes to its header.
func (a *archiver) xattrs(fd int, hdr *tar.Header) {
	list, value := a.buffer[:len(a.buffer)/2], a.buffer[len(a.buffer)/2:]
	n, err := unix.Flistxattr(fd, list)
	if err != nil || n == 0 {
		return
	}
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if !KeepsXattr(name) {
			continue
		}
		if n, err := unix.Fgetxattr(fd, name, value); err == nil {
			if hdr.PAXRecords == nil {
				hdr.PAXRecords = map[string]string{}
			}
			hdr.PAXRecords[XattrRecord+name] = string(value[:n])
		}
	}
}

// KeepsXattr reports whether an extended attribute means the same in another place.
func KeepsXattr(name string) bool {
	return name == "security.capability" || strings.HasPrefix(name, "user.")
}

// pseudoTypes are file systems in which a file is a way to the kernel.
var pseudoTypes = map[int64]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true,
	unix.DEVPTS_SUPER_MAGIC: true, unix.DEBUGFS_MAGIC: true, unix.TRACEFS_MAGIC: true, unix.SECURITYFS_MAGIC: true,
	unix.BPF_FS_MAGIC: true, unix.NSFS_MAGIC: true, 0x19800202 /* mqueue */ : true,
}

// Pseudo reports whether a file is in a file system that the kernel makes up.
func Pseudo(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && pseudoTypes[int64(st.Type)] //nolint:unconvert // narrower on some architectures
}
