package containerd

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// fileLock is an exclusive lock that ends with its process at the latest.
type fileLock struct{ f *os.File }

// lock waits for the lock of a path.
func lock(ctx context.Context, path string) (*fileLock, error) {
	for {
		l, err := tryLock(path)
		if l != nil || err != nil {
			return l, err
		}
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		// The kernel's wait cannot be ended, but its outcome can be thrown away.
		locked := make(chan error, 1)
		go func() { locked <- flock(f, unix.LOCK_EX) }()
		select {
		case err := <-locked:
			if err != nil {
				_ = f.Close()
				return nil, err
			}
			if current(f, path) {
				return &fileLock{f}, nil
			}
			_ = f.Close()
		case <-ctx.Done():
			go func() {
				if err := <-locked; err == nil {
					_ = flock(f, unix.LOCK_UN)
				}
				_ = f.Close()
			}()
			return nil, context.Cause(ctx)
		}
	}
}

// tryLock takes the lock of a path, or returns nil if another holds it.
func tryLock(path string) (*fileLock, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			return nil, err
		}
		if err := flock(f, unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, nil
			}
			return nil, err
		}
		if current(f, path) {
			return &fileLock{f}, nil
		}
		_ = f.Close()
	}
}

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// current reports whether path still names the file: its last holder may have
// removed it.
func current(f *os.File, path string) bool {
	ours, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Stat(path)
	return err == nil && os.SameFile(ours, named)
}

func (l *fileLock) unlock() { _ = l.f.Close() }

// remove unlocks and removes the file.
func (l *fileLock) remove() {
	_ = os.Remove(l.f.Name())
	_ = l.f.Close()
}
