package docker

import (
	"context"
	"errors"
	"fmt"
	"time"
)

const (
	// undoTime bounds what is done after the caller's context has ended.
	undoTime = 30 * time.Second
	// lateTime bounds how long an answer is waited for after that.
	lateTime = 10 * time.Second
)

// cleanup gives what has to be undone a context of its own: the caller's may be
// what ended.
func cleanup(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), undoTime)
}

// detached makes a call that creates something. The daemon carries such a call out
// even if its client goes away in the middle, and then nobody knows what it made:
// so when ctx ends, the answer is still waited for, and undone. A daemon that does
// not answer in time is left with its undo pending.
func detached[T any](ctx context.Context, call func(context.Context) (T, error), undo func(context.Context, T) error) (T, error) {
	var zero T
	if ctx.Err() != nil {
		return zero, context.Cause(ctx)
	}
	type answer struct {
		result T
		err    error
	}
	done := make(chan answer, 1)
	go func() {
		result, err := call(context.WithoutCancel(ctx))
		done <- answer{result, err}
	}()
	select {
	case a := <-done:
		return a.result, a.err
	case <-ctx.Done():
	}
	finish := func(a answer) error {
		if a.err != nil {
			return nil
		}
		undoCtx, cancel := cleanup(ctx)
		defer cancel()
		return undo(undoCtx, a.result)
	}
	late := time.NewTimer(lateTime)
	defer late.Stop()
	select {
	case a := <-done:
		return zero, errors.Join(context.Cause(ctx), finish(a))
	case <-late.C:
		go func() { _ = finish(<-done) }()
		return zero, fmt.Errorf("%w (the daemon has not answered for %v)", context.Cause(ctx), lateTime)
	}
}

// pause waits, or returns ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
