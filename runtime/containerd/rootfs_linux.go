package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/procs"
	"github.com/bottle-run/bottle/runtime/internal/tinyinit"
)

// rootfs is the root directory of a container, in which paths are resolved as the
// container resolves them: no symbolic link leads out of it, whatever the
// container does meanwhile.
type rootfs struct{ fd int }

// mountPrefix begins the names of directories on which something is mounted for a moment.
const mountPrefix = "mount-"

// openSnapshot opens what a snapshot's mounts make, without leaving a mount
// behind in any directory.
func (e *Engine) openSnapshot(mounts []mount.Mount) (_ *rootfs, err error) {
	dir, err := os.MkdirTemp(e.state, mountPrefix+e.name+"-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	if err := mount.All(mounts, dir); err != nil {
		return nil, fmt.Errorf("mount the container's file system: %w", err)
	}
	// A detached copy of the mount, which ends with the descriptor.
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if unmountErr := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); unmountErr != nil {
		err = errors.Join(err, unmountErr)
	}
	if err != nil {
		return nil, fmt.Errorf("open the container's file system: %w", err)
	}
	return &rootfs{fd}, nil
}

// openProcessRoot opens the root of a running process, mounts and all.
func openProcessRoot(pid uint32) (*rootfs, error) {
	// The PID may be another process's by the time that its root is open; not if
	// the process is still there afterwards.
	pidfd, err := unix.PidfdOpen(int(pid), 0)
	if err != nil {
		return nil, precondition("the container's process has ended")
	}
	defer closeFD(pidfd)
	fd, err := unix.Open(procs.File(int(pid), "root"), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, precondition("the container's process has ended")
	}
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		_ = unix.Close(fd)
		return nil, precondition("the container's process has ended")
	}
	return &rootfs{fd}, nil
}

// closeFD closes a descriptor that was only looked at.
func closeFD(fd int) { _ = unix.Close(fd) }

func (r *rootfs) Close() error { return unix.Close(r.fd) }

// open opens a path; flags are those of openat2.
func (r *rootfs) open(name string, flags int, mode uint32) (int, error) {
	return openIn(r.fd, name, flags, mode)
}

func openIn(dir int, name string, flags int, mode uint32) (int, error) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		name = "."
	}
	how := unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC), Mode: uint64(mode),
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		// The kernel could not tell whether a ".." stayed inside while something
		// was renamed; or a signal came.
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: "/" + name, Err: err}
		}
		return fd, nil
	}
}

// stat follows links.
func (r *rootfs) stat(name string) (unix.Stat_t, error) {
	var st unix.Stat_t
	fd, err := r.open(name, unix.O_PATH, 0)
	if err != nil {
		return st, err
	}
	defer closeFD(fd)
	return st, unix.Fstat(fd, &st)
}

// mkdirAll makes a directory and its parents, owned by root, and opens it.
func (r *rootfs) mkdirAll(name string) (int, error) {
	fd, err := r.open(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err == nil || !errors.Is(err, unix.ENOENT) || path.Clean("/"+name) == "/" {
		return fd, err
	}
	parent, err := r.mkdirAll(path.Dir(path.Clean("/" + name)))
	if err != nil {
		return -1, err
	}
	defer closeFD(parent)
	base := path.Base(name)
	if err := unix.Mkdirat(parent, base, 0o755); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	fd, err = r.open(name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return -1, err
	}
	return fd, unix.Fchmodat(parent, base, 0o755, 0)
}

// readFile reads a small regular file; FIFOs and devices are not opened.
func (r *rootfs) readFile(name string, limit int64) ([]byte, error) {
	f, err := r.openRegular(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(content)) > limit {
		err = &os.PathError{Op: "read", Path: name, Err: unix.EFBIG}
	}
	return content, err
}

// openRegular opens a regular file for reading. What it is is known before
// opening it has an effect.
func (r *rootfs) openRegular(name string) (*os.File, error) {
	fd, err := r.open(name, unix.O_PATH, 0)
	if err != nil {
		return nil, err
	}
	defer closeFD(fd)
	return reopenRegular(fd, name)
}

// reopenRegular opens for reading what an O_PATH descriptor stands for.
func reopenRegular(fd int, name string) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &os.PathError{Op: "open", Path: name, Err: unix.EINVAL}
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
}

// writeFile puts a regular file in, replacing what has its name, a link itself
// too.
func (r *rootfs) writeFile(f runtime.File) error {
	dir, err := r.mkdirAll(path.Dir(f.Path))
	if err != nil {
		return err
	}
	defer closeFD(dir)
	base := path.Base(f.Path)
	temporary := ".bottle-" + newID()
	fd, err := unix.Openat(dir, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: f.Path, Err: err}
	}
	file := os.NewFile(uintptr(fd), f.Path)
	_, err = file.Write(f.Content)
	if err == nil {
		err = unix.Fchown(fd, f.UID, f.GID)
	}
	if err == nil {
		err = unix.Fchmod(fd, f.Mode)
	}
	err = errors.Join(err, file.Close())
	if err == nil {
		err = unix.Renameat(dir, temporary, dir, base)
	}
	if err != nil {
		_ = unix.Unlinkat(dir, temporary, 0)
		return &os.PathError{Op: "write", Path: f.Path, Err: err}
	}
	return nil
}

// putFiles writes a spec's files into a new container's root.
func (r *rootfs) putFiles(ctx context.Context, files []runtime.File) error {
	for _, f := range files {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		err := r.writeFile(f)
		switch {
		case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.EISDIR), errors.Is(err, unix.ELOOP), errors.Is(err, unix.EINVAL):
			return invalid("put file %s in: %v", f.Path, err)
		case err != nil:
			return fmt.Errorf("put file %s in: %w", f.Path, err)
		}
	}
	return nil
}

// containerFiles writes what is mounted into the container into its directory on
// the host.
func (e *Engine) containerFiles(id string, spec runtime.ContainerSpec, endpoints []*endpoint, program []byte) error {
	dir := e.containerDir(id)
	for _, f := range []struct {
		name    string
		content []byte
		mode    os.FileMode
	}{
		{hostsFile, hosts(spec.Hostname, endpoints, nil), 0o644},
		{resolvFile, resolvConf(endpoints), 0o644},
		{hostnameFile, []byte(spec.Hostname + "\n"), 0o644},
		{initFile, program, 0o555},
		{logFile, nil, 0o600},
	} {
		if f.name == initFile && program == nil {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, f.name), f.content, f.mode); err != nil {
			return err
		}
		if err := os.Chmod(filepath.Join(dir, f.name), f.mode); err != nil {
			return err
		}
	}
	if spec.Handshake == nil {
		return nil
	}
	return makeInput(filepath.Join(dir, inputFile))
}

// initProgram returns the init for this machine.
func initProgram(arch string) ([]byte, error) { return tinyinit.Binary(arch) }
