package graph

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-multierror"
)

// Undo keeps what has to be undone. It is safe for concurrent use.
type Undo struct {
	mu    sync.Mutex
	items []Step
}

// Push adds the undo of something that has been done.
func (u *Undo) Push(name, object string, f func(ctx context.Context) error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.items = append(u.items, Step{Name: name, Object: object, Run: f})
}

// Drop forgets everything: it stays as it is.
func (u *Undo) Drop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.items = nil
}

// hurryKey is the key of a context's hurry.
type hurryKey struct{}

// WithHurry gives undos a channel that is closed when somebody is in a hurry: those that
// are left by then run side by side.
func WithHurry(ctx context.Context, hurry <-chan struct{}) context.Context {
	return context.WithValue(ctx, hurryKey{}, hurry)
}

// Run runs the undos, newest first and all of them, whatever fails. One that
// fails is tried again a little later. It returns the errors of those that failed
// every time, each a *StepError; their undos are kept, so that Run can be called
// again.
func (u *Undo) Run(ctx context.Context, o Observer) error {
	u.mu.Lock()
	items := slices.Clone(u.items)
	u.items = nil
	u.mu.Unlock()

	hurry, _ := ctx.Value(hurryKey{}).(<-chan struct{})
	results := make([]error, len(items))
	var observed sync.Mutex // its calls do not overlap
	var running sync.WaitGroup
	for i, s := range slices.Backward(items) {
		done := make(chan struct{})
		running.Go(func() {
			defer close(done)
			observed.Lock()
			o.Begin(s)
			observed.Unlock()
			begun := time.Now()
			results[i] = Persist(ctx, s.Run)
			observed.Lock()
			defer observed.Unlock()
			o.End(s, time.Since(begun), results[i])
		})
		select {
		case <-done:
		case <-hurry:
		}
	}
	running.Wait()
	var failed []Step
	var errs *multierror.Error
	for i, s := range slices.Backward(items) {
		if err := results[i]; err != nil {
			failed = append(failed, s)
			errs = multierror.Append(errs, &StepError{Step: s.Name, Object: s.Object, Err: err})
		}
	}
	slices.Reverse(failed)
	u.mu.Lock()
	u.items = append(failed, u.items...)
	u.mu.Unlock()
	return errs.ErrorOrNil()
}

// retries are the pauses before further attempts of an undo: an engine may need a
// moment to see that a network is free.
var retries = []time.Duration{50 * time.Millisecond, 250 * time.Millisecond, time.Second}

// Persist runs f until it succeeds, up to a few times or until ctx ends, and
// returns the last error that is not only ctx's end. A panic of f is an error too.
func Persist(ctx context.Context, f func(ctx context.Context) error) error {
	err := guarded(ctx, f)
	for _, pause := range retries {
		if err == nil || ctx.Err() != nil {
			return err
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C:
		}
		if again := guarded(ctx, f); again == nil || ctx.Err() == nil {
			err = again
		}
	}
	return err
}
