package control

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// watcher tells when something appears in a directory.
type watcher struct{ f *os.File }

func watch(dir string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR); err != nil {
		f.Close()
		return nil, &os.PathError{Op: "watch", Path: dir, Err: err}
	}
	return &watcher{f}, nil
}

// wait returns after the next change, or those since the last wait.
func (w *watcher) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = w.f.SetReadDeadline(time.Now()) })
	defer stop()
	var events [4096]byte
	if _, err := w.f.Read(events[:]); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return err
	}
	return nil
}

func (w *watcher) close() { _ = w.f.Close() }
