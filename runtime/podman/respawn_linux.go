package podman

import (
	"os"
	goruntime "runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// startArchiver starts this program as an archiver in a user namespace.
func startArchiver(root, userNS *os.File, file string) (*archiverProcess, error) {
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		_, _ = outR.Close(), outW.Close()
		return nil, err
	}
	defer outW.Close()
	defer errW.Close()
	pid, err := respawn(userNS, [3]*os.File{outW, errW, root}, []string{archiverName, file})
	var process *os.Process
	if err == nil {
		process, err = os.FindProcess(pid)
	}
	if err != nil {
		_, _ = outR.Close(), errR.Close()
		return nil, err
	}
	return &archiverProcess{out: outR, err: errR, process: process}, nil
}

// respawn runs this program in a user namespace, with three files as its standard
// output, standard error and descriptor 3, and an empty environment.
func respawn(userNS *os.File, files [3]*os.File, args []string) (int, error) {
	path, err := unix.BytePtrFromString("/proc/self/exe")
	if err != nil {
		return 0, err
	}
	argv, err := syscall.SlicePtrFromStrings(args)
	if err != nil {
		return 0, err
	}
	env := []*byte{nil}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	// Out of the way of the numbers that they are to have.
	var fds [4]uintptr
	for i, f := range []*os.File{null, files[0], files[1], files[2]} {
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 16)
		if err != nil {
			return 0, os.NewSyscallError("fcntl", err)
		}
		defer func() { _ = unix.Close(fd) }()
		fds[i] = uintptr(fd)
	}

	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	// The list of descriptors must not change between here and the child's exec:
	// what others open meanwhile is closed by exec, as Go opens everything.
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	all, old := new(unix.Sigset_t), new(unix.Sigset_t)
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, all, old); err != nil {
		return 0, os.NewSyscallError("sigprocmask", err)
	}
	none := new(unix.Sigset_t)
	pid, errno := visitExec(userNS.Fd(), &fds, path, &argv[0], &env[0], none)
	err = unix.PthreadSigmask(unix.SIG_SETMASK, old, nil)
	if errno != 0 {
		return 0, os.NewSyscallError("clone", errno)
	}
	return int(pid), err
}

// visitExec makes a child that enters a user namespace and becomes another
// program. It exits with 125 if it cannot. See visit.
//
//go:noinline
//go:norace
//go:nosplit
func visitExec(userNS uintptr, fds *[4]uintptr, path *byte, argv, env **byte, mask *unix.Sigset_t) (pid uintptr, errno syscall.Errno) {
	pid, _, errno = syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if pid != 0 || errno != 0 {
		return pid, errno
	}
	_, _, e := syscall.RawSyscall(unix.SYS_SETNS, userNS, unix.CLONE_NEWUSER, 0)
	for i := uintptr(0); e == 0 && i < 4; i++ {
		_, _, e = syscall.RawSyscall(unix.SYS_DUP3, fds[i], i, 0)
	}
	if e == 0 {
		_, _, _ = syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(mask)), 0, 8, 0, 0) //nolint:gosec // see visit
		_, _, _ = syscall.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(path)), uintptr(unsafe.Pointer(argv)), uintptr(unsafe.Pointer(env)))
	}
	for {
		_, _, _ = syscall.RawSyscall(unix.SYS_EXIT_GROUP, 125, 0, 0)
	}
}
