package podman

import (
	"fmt"
	"os"
	goruntime "runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A user who started a rootless engine owns its user namespace and has every
// capability in it, but may not enter it from a process of several threads, which
// each Go program is. So a child that shares nothing with this process but its
// file descriptors enters, opens the socket and ends: about 1 ms, where running a
// program would be 15.

// socketThroughUser opens a netlink socket in a network namespace that belongs to
// a user namespace of this user's.
func socketThroughUser(userNS, netNS *os.File) (*nsSocket, error) {
	out := new([2]int32)
	err := inChild(unsafe.Slice((*byte)(unsafe.Pointer(out)), 8), func(report uintptr) (uintptr, syscall.Errno) { //nolint:gosec // two int32
		return visit(userNS.Fd(), netNS.Fd(), report, out)
	})
	if err != nil {
		return nil, err
	}
	if out[1] != 0 {
		return nil, fmt.Errorf("enter the engine's namespaces (step %d): %w", out[0], syscall.Errno(out[1]))
	}
	return &nsSocket{int(out[0])}, nil
}

// maxOpen is how many files one child opens.
const maxOpen = 64

// rawThroughUser opens at most maxOpen files that belong to users of a user
// namespace of this user's. It returns their descriptors, or minus the error.
func rawThroughUser(userNS *os.File, paths []string, flags int) ([]int, error) {
	var list [maxOpen]*byte
	for i, p := range paths {
		b, err := unix.BytePtrFromString(p)
		if err != nil {
			return nil, err
		}
		list[i] = b
	}
	out := new([maxOpen + 1]int32)
	err := inChild(unsafe.Slice((*byte)(unsafe.Pointer(out)), 4*(maxOpen+1)), func(report uintptr) (uintptr, syscall.Errno) { //nolint:gosec // int32s
		return visitFiles(userNS.Fd(), report, &list, uintptr(len(paths)), uintptr(flags|unix.O_CLOEXEC), out)
	})
	if err != nil {
		return nil, err
	}
	if out[maxOpen] != 0 {
		return nil, fmt.Errorf("enter the engine's user namespace: %w", syscall.Errno(out[maxOpen]))
	}
	fds := make([]int, len(paths))
	for i := range paths {
		fds[i] = int(out[i])
	}
	return fds, nil
}

// openThroughUser is rawThroughUser with files; those that could not be opened are
// nil.
func openThroughUser(userNS *os.File, paths []string, flags int) ([]*os.File, error) {
	fds, err := rawThroughUser(userNS, paths, flags)
	if err != nil {
		return nil, err
	}
	files := make([]*os.File, len(fds))
	for i, fd := range fds {
		if fd >= 0 {
			files[i] = os.NewFile(uintptr(fd), paths[i])
		}
	}
	return files, nil
}

// inChild runs a function that makes a child, and reads what the child reports.
func inChild(report []byte, clone func(report uintptr) (uintptr, syscall.Errno)) error {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return os.NewSyscallError("pipe", err)
	}
	defer func() { _ = unix.Close(pipe[0]) }()
	defer func() { _ = unix.Close(pipe[1]) }()

	// Signals stay away from the child: Go's handlers must not run there.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return os.NewSyscallError("sigprocmask", err)
	}
	pid, errno := clone(uintptr(pipe[1]))
	err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	if errno != 0 {
		return os.NewSyscallError("clone", errno)
	}
	for {
		_, werr := unix.Wait4(int(pid), nil, 0, nil)
		if werr != unix.EINTR {
			break
		}
	}
	if err != nil {
		return os.NewSyscallError("sigprocmask", err)
	}
	if _, err := unix.FcntlInt(uintptr(pipe[0]), unix.F_SETFL, unix.O_NONBLOCK); err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	n, err := unix.Read(pipe[0], report)
	if err != nil {
		return fmt.Errorf("the child that enters the user namespace said nothing: %w", err)
	}
	if n != len(report) {
		return fmt.Errorf("the child that enters the user namespace said %d bytes of %d", n, len(report))
	}
	return nil
}

// visitFiles makes the child that opens files: their descriptors, or minus the
// error, go to out, and the error of entering to its last element. See visit.
//
//go:noinline
//go:norace
//go:nosplit
func visitFiles(userNS, report uintptr, paths *[maxOpen]*byte, n, flags uintptr, out *[maxOpen + 1]int32) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD)|unix.CLONE_FILES, 0, 0, 0, 0, 0)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	_, _, e := syscall.RawSyscall(unix.SYS_SETNS, userNS, unix.CLONE_NEWUSER, 0)
	out[maxOpen] = int32(e)
	for i := uintptr(0); e == 0 && i < n && i < maxOpen; i++ {
		const atFDCWD = ^uintptr(99)                                                                                   // -100
		fd, _, err := syscall.RawSyscall6(unix.SYS_OPENAT, atFDCWD, uintptr(unsafe.Pointer(paths[i])), flags, 0, 0, 0) //nolint:gosec // see visit
		out[i] = int32(fd)
		if err != 0 {
			out[i] = -int32(err)
		}
	}
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, report, uintptr(unsafe.Pointer(out)), 4*(maxOpen+1)) //nolint:gosec // see visit
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// visit makes the child, which writes the socket's descriptor and 0, or the step
// at which it failed and the error, to report. Between clone and exit it is the
// copy of a program with many threads of which one goes on: it may do nothing but
// system calls.
//
//go:noinline
//go:norace
//go:nosplit
func visit(userNS, netNS, report uintptr, out *[2]int32) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD)|unix.CLONE_FILES, 0, 0, 0, 0, 0)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	step, fd := int32(1), uintptr(0)
	_, _, e := syscall.RawSyscall(unix.SYS_SETNS, userNS, unix.CLONE_NEWUSER, 0)
	if e == 0 {
		step = 2
		_, _, e = syscall.RawSyscall(unix.SYS_SETNS, netNS, unix.CLONE_NEWNET, 0)
	}
	if e == 0 {
		step = 3
		fd, _, e = syscall.RawSyscall(unix.SYS_SOCKET, unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	}
	out[0], out[1] = int32(fd), int32(e)
	if e != 0 {
		out[0] = step
	}
	_, _, _ = syscall.RawSyscall(unix.SYS_WRITE, report, uintptr(unsafe.Pointer(out)), 8) //nolint:gosec // see above
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}
