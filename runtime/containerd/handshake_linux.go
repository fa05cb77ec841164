package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/handshake"
)

// A shim has no input for a process whose output a logger takes. So the input is a FIFO,
// mounted into the container, which the init opens for the process; what the process says is
// read from its log.

// makeInput makes the FIFO. On the host its directory keeps others away.
func makeInput(path string) error {
	if err := unix.Mkfifo(path, 0o444); err != nil {
		return &os.PathError{Op: "mkfifo", Path: path, Err: err}
	}
	return os.Chmod(path, 0o444)
}

// conversation is a handshake with a container's first process, or none.
type conversation struct {
	e    *Engine
	id   string
	with *runtime.Handshake
	in   *input
}

func (e *Engine) conversation(ctx context.Context, id string, with *runtime.Handshake) *conversation {
	c := &conversation{e: e, id: id, with: with}
	if with != nil {
		c.in = newInput(ctx, filepath.Join(e.containerDir(id), inputFile))
	}
	return c
}

// have has the handshake with a container that has been started.
func (c *conversation) have(ctx context.Context) error {
	if c.with == nil {
		return nil
	}
	listening, stop := context.WithCancel(ctx)
	defer stop()
	return handshake.Do(ctx, c.with, handshake.Process{
		Input:  c.in,
		Errors: func(w io.Writer) error { return c.errors(listening, w) },
		Ended:  func(ctx context.Context) (runtime.ExitStatus, error) { return c.e.ended(ctx, c.id) },
	})
}

func (c *conversation) errors(ctx context.Context, w io.Writer) error {
	f, err := os.Open(filepath.Join(c.e.containerDir(c.id), logFile))
	if err != nil {
		return err
	}
	defer f.Close()
	return c.e.follow(ctx, c.id, &logReader{file: f, opts: runtime.LogOptions{Stderr: w}})
}

// close lets go of the input.
func (c *conversation) close() {
	if c.in != nil {
		c.in.abandon()
	}
}

// input is the writing end of a FIFO. It is opened by its first use, which waits until
// somebody has opened the other end.
type input struct {
	path string
	ctx  context.Context // until it is abandoned
	stop context.CancelFunc
	open func() (*os.File, error)

	mu   sync.Mutex
	file *os.File
}

func newInput(ctx context.Context, path string) *input {
	in := &input{path: path}
	in.ctx, in.stop = context.WithCancel(context.WithoutCancel(ctx))
	in.open = sync.OnceValues(in.opened)
	return in
}

// opened opens the FIFO. Without a reader what is written would be lost, and one that came
// when the writer had gone would wait forever.
func (in *input) opened() (*os.File, error) {
	// By this it is found when its directory is gone, too.
	fd, err := unix.Open(in.path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: in.path, Err: err}
	}
	defer closeFD(fd)
	path := fmt.Sprintf("/proc/self/fd/%d", fd)
	done := make(chan struct{})
	var f *os.File
	go func() {
		defer close(done)
		f, err = os.OpenFile(path, os.O_WRONLY, 0)
	}()
	select {
	case <-done:
	case <-in.ctx.Done():
		// A reader ends the wait.
		reader, unable := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		if unable != nil {
			return nil, unable
		}
		<-done
		_ = reader.Close()
	}
	if err != nil {
		return nil, err
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.ctx.Err() != nil {
		return nil, errors.Join(in.ctx.Err(), f.Close())
	}
	in.file = f
	return f, nil
}

func (in *input) Write(p []byte) (int, error) {
	f, err := in.open()
	if err != nil {
		return 0, err
	}
	return f.Write(p)
}

// Close ends the input, once it is opened at the other end.
func (in *input) Close() error {
	f, err := in.open()
	if err != nil {
		return err
	}
	return f.Close()
}

// abandon ends what waits, and the input with it.
func (in *input) abandon() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.stop()
	if in.file != nil {
		_ = in.file.Close()
	}
}
