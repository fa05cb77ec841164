package main

import (
	"context"
	"errors"
	"io"
	"os"
	"syscall"

	"github.com/bottle-run/bottle/core"
)

// attachOptions say how a command is connected to the user.
type attachOptions struct {
	Command []string
	Env     map[string]string
	User    string
	WorkDir string
	// Stdin is the user's if it is nil.
	Stdin io.Reader
	// TTY is whether it gets a terminal; nil means if the user has one.
	TTY *bool
}

// attach runs a command in a bottle with the user's streams. The error is a
// statusError if it ended with a status other than 0.
func (f *factory) attach(ctx context.Context, b *core.Bottle, opts attachOptions) error {
	tty, cutOff := f.hasTerminal(opts), false
	exec := core.ExecOptions{
		Command: opts.Command, Env: opts.Env, User: opts.User, WorkDir: opts.WorkDir,
		Stdin: opts.Stdin, Stdout: f.io.Stdout, Stderr: f.io.Stderr, TTY: tty,
	}
	if exec.Stdin == nil {
		exec.Stdin = f.io.Stdin
	}
	if tty {
		exec.Terminal = orElse(os.Getenv("TERM"), "xterm")
		if t := f.io.Terminal; t != nil {
			before, known := stateOf(t)
			restore, err := rawTerminal(t)
			if err != nil {
				return err
			}
			if known {
				f.watchdog.terminal(before)
			}
			_, _ = io.WriteString(f.io.Stdout, titleSave)
			defer func() {
				after := terminalDone
				if err := recover(); err != nil {
					_, _ = io.WriteString(f.io.Stdout, titleBack+terminalReset)
					restore()
					panic(err)
				}
				if cutOff {
					after = terminalReset
				}
				_, _ = io.WriteString(f.io.Stdout, titleBack+after)
				restore()
				f.watchdog.terminal(terminalState{})
			}()
			sizes, stop := watchSize(t)
			defer stop()
			exec.Size, exec.Resize = terminalSize(t), sizes
		}
	}
	// Who closes the pipe that we write to wants no more: as the program would
	// end if it wrote there itself, it is ended.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	exec.Stdout = pipeWatcher{f.io.Stdout, cancel}
	status, err := b.Exec(ctx, exec)
	cutOff = err != nil || ctx.Err() != nil
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if err != nil {
		return err
	}
	if status.Code != 0 {
		return statusError(status.Code)
	}
	return nil
}

// hasTerminal reports whether the command gets a terminal.
func (f *factory) hasTerminal(opts attachOptions) bool {
	if opts.TTY != nil {
		return *opts.TTY
	}
	return f.io.Terminal != nil
}

func orElse(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}

// pipeWatcher reports a reader that has gone.
type pipeWatcher struct {
	io.Writer
	gone func(error)
}

func (w pipeWatcher) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if errors.Is(err, syscall.EPIPE) {
		w.gone(err)
	}
	return n, err
}
