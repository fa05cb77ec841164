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
func takeRoot(ctx context.Context, root string, blocked func()) (*rootLock, error) {
	for {
		l, free, err := openRoot(root)
		if err != nil {
			return nil, err
		}
		if !free {
			if blocked != nil {
				blocked()
				blocked = nil
			}
			if l, err = l.wait(ctx); err != nil {
				return nil, err
			}
		}
		// The root may have been removed by who had the claim.
		if l.current(root) {
			return l, nil
		}
		l.release()
		if err := os.MkdirAll(root, 0o700); err != nil {
			return nil, err
		}
	}
}

// wait waits for the claim to be free and takes it.
func (l *rootLock) wait(ctx context.Context) (*rootLock, error) {
	if err := flock(l.waiting, unix.LOCK_SH); err != nil {
		l.release()
		return nil, err
	}
	// The kernel's wait cannot be ended, but its outcome can be thrown away.
	locked := make(chan error, 1)
	go func() { locked <- flock(l.held, unix.LOCK_EX) }()
	select {
	case err := <-locked:
		if err := errors.Join(err, flock(l.waiting, unix.LOCK_UN)); err != nil {
			l.release()
			return nil, err
		}
		return l, nil
	case <-ctx.Done():
		_ = flock(l.waiting, unix.LOCK_UN)
		go func() { _ = <-locked; l.release() }()
		return nil, context.Cause(ctx)
	}
}

// current reports whether the lock file is the one that others see.
func (l *rootLock) current(root string) bool {
	ours, err := l.held.Stat()
	if err != nil {
		return false
	}
	theirs, err := os.Stat(filepath.Join(root, "lock"))
	return err == nil && os.SameFile(ours, theirs)
}

// tryRoot takes the claim, or returns nil if another process has it.
func tryRoot(root string) (*rootLock, error) {
	l, free, err := openRoot(root)
	if err == nil && !free {
		l.release()
		return nil, nil
	}
	return l, err
}

// openRoot takes the claim if it is free.
func openRoot(root string) (_ *rootLock, free bool, err error) {
	l := &rootLock{}
	if l.held, err = openLock(root, "lock"); err != nil {
		return nil, false, err
	}
	if l.waiting, err = openLock(root, "lock.waiting"); err != nil {
		_ = l.held.Close()
		return nil, false, err
	}
	err = flock(l.held, unix.LOCK_EX|unix.LOCK_NB)
	if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
		l.release()
		return nil, false, err
	}
	return l, err == nil, nil
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
