// Package handshake carries a [runtime.Handshake] between its two sides. An engine brings
// the streams; what is to be said is alike for all of them.
package handshake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// Process is a container's first process, which has been started.
type Process struct {
	// Input is its standard input, whose Close the process sees as the end. It is written to
	// by one goroutine, which may be at it when Do has returned: whoever made Input ends its
	// Write then.
	Input io.WriteCloser
	// Errors copies what the process writes to its standard error from its beginning on, until
	// it ends, or w fails, which is then the error. It may be at it when Do has returned.
	Errors func(w io.Writer) error
	// Ended returns when the process has ended. It is asked when Errors has come to its end.
	Ended func(ctx context.Context) (runtime.ExitStatus, error)
}

// Do returns nil when the handshake is done as it should. When it is not, the input has not
// been closed, unless all of it was written. It does not outlast its context.
func Do(ctx context.Context, h *runtime.Handshake, p Process) error {
	fed := make(chan error, 1)
	go func() { fed <- feed(p.Input, h.Input) }()
	a := &answers{answer: h.Answer}
	defer a.end()
	said := make(chan error, 1)
	go func() {
		err := p.Errors(a)
		if err == nil {
			a.last()
		}
		said <- err
	}()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-fed:
			if err != nil {
				return fmt.Errorf("read the input of its process: %w", err)
			}
			fed = nil
		case err := <-said:
			switch done, refused := a.state(); {
			case done || refused != nil:
				return refused
			case err != nil:
				return fmt.Errorf("listen to its process: %w", err)
			}
			return ended(ctx, p)
		}
	}
}

// ended is the error for a process that ended.
func ended(ctx context.Context, p Process) error {
	status, err := p.Ended(ctx)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errdefs.IsNotFound(err):
		return runtime.Errorf(errdefs.ErrFailedPrecondition, "its process has ended before it answered")
	case err != nil:
		return err
	}
	return runtime.WithKind(errdefs.ErrFailedPrecondition, &runtime.EndedError{Status: status})
}

// feed writes all of r and then the end. A process that reads no more is no error here: it
// ends, or answers all the same.
func feed(w io.WriteCloser, r io.Reader) error {
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, lost := w.Write(buf[:n]); lost != nil {
				return nil
			}
		}
		if errors.Is(err, io.EOF) {
			_ = w.Close() // or the process has ended
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// errEnough ends the copying of what the process says.
var errEnough = errors.New("the handshake is over")

// answers splits what is written into lines. It is safe for concurrent use.
type answers struct {
	answer func([]byte) (bool, error)

	mu   sync.Mutex
	line []byte
	over bool
	done bool
	err  error
}

func (a *answers) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for rest := p; len(rest) > 0; {
		if a.over {
			return len(p) - len(rest), errEnough
		}
		end := bytes.IndexByte(rest, '\n')
		part := rest
		if end >= 0 {
			part = rest[:end]
		}
		a.line = append(a.line, part[:min(len(part), runtime.MaxAnswer-len(a.line))]...)
		rest = rest[len(part):]
		if end >= 0 {
			rest = rest[1:]
			a.tell()
		}
	}
	if a.over {
		return len(p), errEnough
	}
	return len(p), nil
}

// tell passes a line on.
func (a *answers) tell() {
	line := a.line
	a.line = nil
	a.done, a.err = a.answer(line)
	a.over = a.done || a.err != nil
}

// last passes on what is left when the process has ended: a line without an end.
func (a *answers) last() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over && len(a.line) > 0 {
		a.tell()
	}
}

// end lets nothing through any more.
func (a *answers) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
}

func (a *answers) state() (done bool, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.done && a.err == nil, a.err
}
