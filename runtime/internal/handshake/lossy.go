package handshake

import (
	"context"
	"io"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// patience is how long a process may take to have ended when its streams have.
const patience = 5 * time.Second

// Attached are the streams of a process as an engine's connection carries them. When the
// process ends with input unread, such a connection may break, or lose what was written last:
// what is missing is then taken from the log.
type Attached struct {
	// Errors copies the standard error until the connection ends.
	Errors func(w io.Writer) error
	// Log copies the standard error as the log has it when the process has ended.
	Log func(ctx context.Context, w io.Writer) error
	// Ended returns when the process has ended.
	Ended func(ctx context.Context) (runtime.ExitStatus, error)
}

// Process is the one that is attached to.
func (a Attached) Process(ctx context.Context, input io.WriteCloser) Process {
	return Process{Input: input, Ended: a.Ended, Errors: func(w io.Writer) error { return a.errors(ctx, w) }}
}

func (a Attached) errors(ctx context.Context, w io.Writer) error {
	told := &counted{w: w}
	err := a.Errors(told)
	if told.err != nil {
		return told.err
	}
	soon, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, unknown := a.Ended(soon); unknown != nil {
		return err // whoever asks how it ended sees why
	}
	if err := a.Log(ctx, &after{w: w, skip: told.n}); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}

// counted counts what it passes on, and keeps the error of who takes it.
type counted struct {
	w   io.Writer
	n   int64
	err error
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	if err != nil {
		c.err = err
	}
	return n, err
}

// after passes on what comes after so many bytes.
type after struct {
	w    io.Writer
	skip int64
}

func (a *after) Write(p []byte) (int, error) {
	n := min(a.skip, int64(len(p)))
	a.skip -= n
	if _, err := a.w.Write(p[n:]); err != nil {
		return 0, err
	}
	return len(p), nil
}
