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
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe", err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])

	out := new([2]int32)
	// Signals stay away from the child: Go's handlers must not run there.
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old); err != nil {
		return nil, os.NewSyscallError("sigprocmask", err)
	}
	pid, errno := visit(userNS.Fd(), netNS.Fd(), uintptr(pipe[1]), out)
	err := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
	if errno != 0 {
		return nil, os.NewSyscallError("clone", errno)
	}
	for {
		_, werr := unix.Wait4(int(pid), nil, 0, nil)
		if werr != unix.EINTR {
			break
		}
	}
	if err != nil {
		return nil, os.NewSyscallError("sigprocmask", err)
	}
	if _, err := unix.FcntlInt(uintptr(pipe[0]), unix.F_SETFL, unix.O_NONBLOCK); err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	n, err := unix.Read(pipe[0], unsafe.Slice((*byte)(unsafe.Pointer(out)), 8)) //nolint:gosec // two int32
	if err != nil || n != 8 {
		return nil, fmt.Errorf("the child that enters the user namespace said nothing (%v)", err)
	}
	if out[1] != 0 {
		return nil, fmt.Errorf("enter the engine's namespaces (step %d): %w", out[0], syscall.Errno(out[1]))
	}
	return &nsSocket{int(out[0])}, nil
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
