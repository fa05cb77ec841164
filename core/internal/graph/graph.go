// Package graph runs the steps of a launch: each as soon as the steps that it
// needs are done, side by side with whatever else can run. It also keeps the
// undos of what has succeeded.
package graph

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/hashicorp/go-multierror"
)

// Step is one thing to do.
type Step struct {
	// Name says what is done ("build image"), and is what others need it by.
	Name string
	// Object says to what, for messages.
	Object string
	// Needs names the steps that must be done before.
	Needs []string
	Run   func(ctx context.Context) error
}

// stepKey is the key of a context's step.
type stepKey struct{}

// Of is the step that a context was given to, if it was given to one: for those who watch
// what is done with it.
func Of(ctx context.Context) (Step, bool) {
	s, ok := ctx.Value(stepKey{}).(Step)
	return s, ok
}

// StepError is the error of a step.
type StepError struct {
	Step, Object string
	Err          error
}

// Error names the step, its object and why it failed.
func (e *StepError) Error() string {
	if e.Object == "" {
		return fmt.Sprintf("%s: %v", e.Step, e.Err)
	}
	return fmt.Sprintf("%s %q: %v", e.Step, e.Object, e.Err)
}

// Unwrap gives the cause.
func (e *StepError) Unwrap() error { return e.Err }

// Observer is told when steps begin and end. Its calls do not overlap.
type Observer interface {
	Begin(s Step)
	End(s Step, elapsed time.Duration, err error)
}

// ErrStopped is what an [Observer] is told of a step that did not fail by itself:
// another one did, or the whole was ended.
var ErrStopped = errors.New("stopped")

// Run runs the steps and returns when none is running any more. When a step fails
// or ctx ends, the context of those running ends and no other is begun. The error
// is that of the step that failed first, joined by those of steps that failed by
// themselves meanwhile; if ctx ended before any step failed, it is ctx's cause.
func Run(ctx context.Context, steps []Step, o Observer) error {
	waiting, err := order(steps)
	if err != nil {
		return err
	}
	parent := ctx
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)

	type result struct {
		step    Step
		elapsed time.Duration
		err     error
	}
	results := make(chan result)
	running, done := 0, map[string]bool{}
	var failures []error
	for {
		var later []Step
		for _, s := range waiting {
			if ctx.Err() != nil || !ready(s, done) {
				later = append(later, s)
				continue
			}
			o.Begin(s)
			running++
			go func() {
				begun := time.Now()
				err := guarded(context.WithValue(ctx, stepKey{}, s), s.Run)
				results <- result{s, time.Since(begun), err}
			}()
		}
		waiting = later
		if running == 0 {
			break
		}
		r := <-results
		running--
		switch {
		case r.err == nil:
			done[r.step.Name] = true
			o.End(r.step, r.elapsed, nil)
		// Whatever a step says when the whole has been told to stop.
		case parent.Err() != nil, ctx.Err() != nil && ended(ctx, r.err):
			o.End(r.step, r.elapsed, ErrStopped)
		default:
			o.End(r.step, r.elapsed, r.err)
			failures = append(failures, &StepError{Step: r.step.Name, Object: r.step.Object, Err: r.err})
			cancel(ErrStopped)
		}
	}
	switch {
	case len(failures) == 1:
		return failures[0]
	case len(failures) > 1:
		return &multierror.Error{Errors: failures}
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return nil
}

// PanicError is a step that panicked: an error of the program, which must not keep
// what other steps have made from being undone.
type PanicError struct {
	Value any
	// Stack is where it happened.
	Stack []byte
}

// Error gives the value; the stack is for a log.
func (e *PanicError) Error() string {
	return fmt.Sprintf("this is an error of bottle itself, please report it: %v", e.Value)
}

// Unwrap gives the value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Guard runs f and makes a panic its error. A step that starts goroutines of its own
// has to guard each: nobody else can.
func Guard(f func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &PanicError{Value: v, Stack: debug.Stack()}
		}
	}()
	return f()
}

func guarded(ctx context.Context, f func(context.Context) error) error {
	return Guard(func() error { return f(ctx) })
}

func ready(s Step, done map[string]bool) bool {
	for _, need := range s.Needs {
		if !done[need] {
			return false
		}
	}
	return true
}

// ended reports whether err only says that ctx has ended.
func ended(ctx context.Context, err error) bool {
	return errors.Is(err, context.Cause(ctx)) || errors.Is(err, ctx.Err())
}

// order checks that every step can become ready, and puts the steps in an order
// in which they could run one by one.
func order(steps []Step) ([]Step, error) {
	done := map[string]bool{}
	var sorted []Step
	for rest := steps; len(rest) > 0; {
		var later []Step
		for _, s := range rest {
			if !ready(s, done) {
				later = append(later, s)
				continue
			}
			if done[s.Name] {
				return nil, fmt.Errorf("two steps are called %q", s.Name)
			}
			done[s.Name] = true
			sorted = append(sorted, s)
		}
		if len(later) == len(rest) {
			return nil, fmt.Errorf("step %q needs a step that is missing or needs it in turn", rest[0].Name)
		}
		rest = later
	}
	return sorted, nil
}
