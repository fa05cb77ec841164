package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/fdtar"
)

// CopyTo implements [runtime.Containers].
func (e *Engine) CopyTo(ctx context.Context, name, dir string, archive io.Reader) error {
	return wrap(ctx, "copy to container", name, e.copyTo(e.ctx(ctx), name, dir, archive))
}

func (e *Engine) copyTo(ctx context.Context, name, dir string, archive io.Reader) error {
	root, c, live, err := e.openRoot(ctx, name)
	if err != nil {
		return err
	}
	if !live {
		if err := c.writableWhenStopped(dir); err != nil {
			return errors.Join(err, root.Close())
		}
	}
	target, err := root.open(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return errors.Join(copyError(dir, err), root.Close())
	}
	_ = unix.Close(target)
	// The archive's Read may never return; the call does all the same.
	done := make(chan error, 1)
	go func() {
		x := &extractor{ctx: ctx, root: root, dir: dir}
		err := x.extract(archive)
		done <- errors.Join(err, root.Close())
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// CopyFrom implements [runtime.Containers].
func (e *Engine) CopyFrom(ctx context.Context, name, file string) (io.ReadCloser, error) {
	r, err := e.copyFrom(e.ctx(ctx), name, file)
	if err != nil {
		return nil, wrap(ctx, "copy from container", name, err)
	}
	return r, nil
}

func (e *Engine) copyFrom(ctx context.Context, name, file string) (io.ReadCloser, error) {
	root, _, _, err := e.openRoot(ctx, name)
	if err != nil {
		return nil, err
	}
	// The last element is not followed: a link is copied as a link.
	fd := -1
	if file = path.Clean("/" + file); file == "/" {
		fd, err = root.open("/", unix.O_PATH, 0)
	} else {
		var parent int
		if parent, err = root.open(path.Dir(file), unix.O_PATH|unix.O_DIRECTORY, 0); err == nil {
			fd, err = unix.Openat(parent, path.Base(file), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			_ = unix.Close(parent)
		}
	}
	if err != nil {
		return nil, errors.Join(copyError(file, err), root.Close())
	}
	if fdtar.Pseudo(fd) {
		return nil, errors.Join(precondition("%s is of the kernel's making and has no files to copy", file), unix.Close(fd), root.Close())
	}
	base := path.Base(file)
	if file == "/" {
		base = "."
	}
	reader, writer := io.Pipe()
	// A read that waits for the walk ends with the context.
	stop := context.AfterFunc(ctx, func() { writer.CloseWithError(context.Cause(ctx)) })
	go func() {
		err := fdtar.Write(ctx, writer, fd, base)
		err = errors.Join(err, unix.Close(fd), root.Close())
		stop()
		writer.CloseWithError(wrap(ctx, "copy from container", name, err))
	}()
	return reader, nil
}

// openRoot opens a container's root: that of its process if it runs, else its
// snapshot.
func (e *Engine) openRoot(ctx context.Context, name string) (root *rootfs, c *stored, live bool, err error) {
	if c, err = e.find(ctx, name); err != nil {
		return nil, nil, false, err
	}
	p, err := e.process(ctx, c.ID)
	if err != nil {
		return nil, nil, false, err
	}
	if p != nil && (p.Status == task.Status_RUNNING || p.Status == task.Status_PAUSED) {
		root, err := openProcessRoot(p.Pid)
		if err == nil {
			return root, c, true, nil
		}
		if !errdefs.IsFailedPrecondition(err) {
			return nil, nil, false, err
		}
		// It has ended since.
	}
	mounts, err := e.snapshots().Mounts(ctx, c.SnapshotKey)
	if err != nil {
		return nil, nil, false, err
	}
	root, err = e.openSnapshot(mounts)
	return root, c, false, err
}

// writableWhenStopped refuses what a running container would refuse, and what
// would be hidden when it ran.
func (c *stored) writableWhenStopped(dir string) error {
	var s specs.Spec
	if err := json.Unmarshal(c.Spec.GetValue(), &s); err != nil {
		return err
	}
	if s.Root != nil && s.Root.Readonly {
		return precondition("the container's root is read-only")
	}
	for _, m := range s.Mounts {
		if within(dir, m.Destination) {
			return precondition("%s is a mount, which a container that does not run has not", m.Destination)
		}
	}
	return nil
}

// copyError gives a kind to what the kernel said of a path.
func copyError(name string, err error) error {
	var kind error
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		kind = errdefs.ErrNotFound
	case errors.Is(err, unix.ELOOP):
		kind = errdefs.ErrInvalidArgument
	case errors.Is(err, unix.EROFS):
		return runtime.WithKind(errdefs.ErrFailedPrecondition, fmt.Errorf("%s is on a read-only file system: %w", name, err))
	case errors.Is(err, unix.EISDIR), errors.Is(err, unix.ENOTEMPTY), errors.Is(err, unix.EEXIST), errors.Is(err, unix.EXDEV),
		errors.Is(err, unix.EBUSY):
		kind = errdefs.ErrFailedPrecondition
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		kind = errdefs.ErrResourceExhausted
	default:
		return err
	}
	return runtime.WithKind(kind, err)
}
