package podman

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime/internal/procs"
)

// pipefsMagic is the type of the file system of pipes.
const pipefsMagic = 0x50495045

// openInput opens the pipe that a process has as its standard input for writing.
// The process is hostile and may have put something else there since: that is
// refused.
func openInput(pid int) (*os.File, error) {
	const flags = unix.O_WRONLY | unix.O_NONBLOCK | unix.O_CLOEXEC | unix.O_NOCTTY
	name := procs.File(pid, "fd/0")
	fd, err := unix.Open(name, flags, 0)
	if errors.Is(err, unix.EACCES) && os.Geteuid() != 0 {
		// A process of another user's in a rootless container.
		fd, err = openInputOfOther(pid, name, flags)
	}
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	var st unix.Stat_t
	var fs unix.Statfs_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO || unix.Fstatfs(fd, &fs) != nil || fs.Type != pipefsMagic {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("%s is not a pipe", name)
	}
	return os.NewFile(uintptr(fd), name), nil
}

func openInputOfOther(pid int, name string, flags int) (int, error) {
	userNS, err := os.Open(procs.File(pid, "ns/user"))
	if err != nil {
		return -1, err
	}
	defer userNS.Close()
	fds, err := rawThroughUser(userNS, []string{name}, flags)
	if err != nil {
		return -1, err
	}
	if fds[0] < 0 {
		return -1, unix.Errno(-fds[0])
	}
	return fds[0], nil
}
