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
	mu sync.Mutex
	// items run first, last when they have.
	items, last []Step
}

// Push adds the undo of something that has been done. Undos that are pushed so do not
// depend on each other.
func (u *Undo) Push(name, object string, f func(ctx context.Context) error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.items = append(u.items, Step{Name: name, Object: object, Run: f})
}

// PushLast adds the undo of something that what is undone by [Undo.Push] uses, such as the
// network of a container.
func (u *Undo) PushLast(name, object string, f func(ctx context.Context) error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.last = append(u.last, Step{Name: name, Object: object, Run: f})
}

// Drop forgets everything: it stays as it is.
func (u *Undo) Drop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.items, u.last = nil, nil
}

// hurryKey is the key of a context's hurry.
type hurryKey struct{}

// WithHurry gives undos a channel that is closed when somebody is in a hurry: one that
// fails then is not tried again.
func WithHurry(ctx context.Context, hurry <-chan struct{}) context.Context {
	return context.WithValue(ctx, hurryKey{}, hurry)
}

// Run runs the undos, all of them, whatever fails: side by side, and when these have ended
// those of [Undo.PushLast], side by side too. One that fails is tried again a little later. It
// returns the errors of those that failed every time, each a *StepError, newest first;
// their undos are kept, so that Run can be called again. Calls of o do not overlap.
func (u *Undo) Run(ctx context.Context, o Observer) error {
	u.mu.Lock()
	items, last := u.items, u.last
	u.items, u.last = nil, nil
	u.mu.Unlock()

	var errs, more *multierror.Error
	var needs []string
	for _, s := range items {
		needs = append(needs, s.Name)
	}
	items, errs = undo(ctx, o, items)
	for i := range last {
		last[i].Needs = needs
	}
	last, more = undo(ctx, o, last)
	if more != nil {
		errs = multierror.Append(errs, more.Errors...)
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.items, u.last = append(items, u.items...), append(last, u.last...)
	return errs.ErrorOrNil()
}

// undo runs undos side by side and returns those that failed every time, and their errors.
func undo(ctx context.Context, o Observer, items []Step) (failed []Step, errs *multierror.Error) {
	results := make([]error, len(items))
	var told sync.Mutex
	var running sync.WaitGroup
	for i, s := range slices.Backward(items) {
		told.Lock()
		o.Begin(s)
		told.Unlock()
		running.Go(func() {
			begun := time.Now()
			results[i] = Persist(context.WithValue(ctx, stepKey{}, s), s.Run)
			told.Lock()
			defer told.Unlock()
			o.End(s, time.Since(begun), results[i])
		})
	}
	running.Wait()
	for i, s := range slices.Backward(items) {
		if err := results[i]; err != nil {
			failed = append(failed, s)
			errs = multierror.Append(errs, &StepError{Step: s.Name, Object: s.Object, Err: err})
		}
	}
	slices.Reverse(failed)
	return failed, errs
}

// retries are the pauses before further attempts of an undo: an engine may need a
// moment to see that a network is free.
var retries = []time.Duration{50 * time.Millisecond, 250 * time.Millisecond, time.Second}

// Persist runs f until it succeeds, up to a few times or until ctx ends, and
// returns the last error that is not only ctx's end. A panic of f is an error too.
func Persist(ctx context.Context, f func(ctx context.Context) error) error {
	hurry, _ := ctx.Value(hurryKey{}).(<-chan struct{})
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
		case <-hurry:
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
