package builder

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// rootLock is this process's claim to a root. It ends with the process at the latest.
type rootLock struct{ held, waiting *os.File }

// takeRoot takes the claim. If another process has it, blocked is called and the
// claim waited for.
//
// Two files are locked: one by who builds, the other, shared, by those who wait, so
// that the one who builds can see them.
func takeRoot(ctx context.Context, root string, blocked func()) (_ *rootLock, err error) {
	l := &rootLock{}
	if l.held, err = openLock(root, "lock"); err != nil {
		return nil, err
	}
	if l.waiting, err = openLock(root, "lock.waiting"); err != nil {
		_ = l.held.Close()
		return nil, err
	}
	err = flock(l.held, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		return l, nil
	}
	if !errors.Is(err, unix.EWOULDBLOCK) {
		l.release()
		return nil, err
	}
	blocked()
	if err := flock(l.waiting, unix.LOCK_SH); err != nil {
		l.release()
		return nil, err
	}
	// The kernel's wait cannot be ended, but its outcome can be thrown away.
	locked := make(chan error, 1)
	go func() { locked <- flock(l.held, unix.LOCK_EX) }()
	select {
	case err = <-locked:
		if err = errors.Join(err, flock(l.waiting, unix.LOCK_UN)); err != nil {
			l.release()
			return nil, err
		}
		return l, nil
	case <-ctx.Done():
		_ = flock(l.waiting, unix.LOCK_UN)
		go func() { <-locked; l.release() }()
		return nil, context.Cause(ctx)
	}
}

// wanted reports whether another waits for the claim.
func (l *rootLock) wanted() bool {
	err := flock(l.waiting, unix.LOCK_EX|unix.LOCK_NB)
	if err == nil {
		_ = flock(l.waiting, unix.LOCK_UN)
	}
	return errors.Is(err, unix.EWOULDBLOCK)
}

func (l *rootLock) release() {
	_ = l.waiting.Close()
	_ = l.held.Close()
}

func openLock(root, name string) (*os.File, error) {
	return os.OpenFile(filepath.Join(root, name), os.O_RDWR|os.O_CREATE, 0o600)
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
