//go:build unix

package podman

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

func detach(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

const (
	terminateSignal = syscall.SIGTERM
	killSignal      = syscall.SIGKILL
)

func signalProcess(pid int, s syscall.Signal) { _ = syscall.Kill(pid, s) }

func terminate(p *os.Process) { _ = p.Signal(syscall.SIGTERM) }

// checkPrivate refuses a directory that somebody else could have made or enter.
func checkPrivate(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !info.IsDir() || info.Mode().Perm()&0o077 != 0 || !ok || int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("%s is not a directory of this user's alone: remove it", dir)
	}
	return nil
}

// lockDir waits for the lock of a directory.
func lockDir(dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { _ = f.Close() }, nil
}

// holdDir takes the lock of a directory for as long as the file is open; it fails
// if another process has it.
func holdDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// noFollow makes opening a link an error, and opening a FIFO return at once.
const noFollow = syscall.O_NOFOLLOW | syscall.O_NONBLOCK
