package faulty

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/bottle-run/bottle/runtime"
)

// ErrFault is in the chain of every error that a rule makes.
var ErrFault = errors.New("fault on purpose")

// Call is one call that was made.
type Call struct {
	// N counts the calls, from 1.
	N      int
	Method string
	Object string
	// Rule is the rule that was due, or empty.
	Rule string
	// Acted reports that it came to fail, hang, panic or break: the call did not
	// fail by itself before.
	Acted bool
	// Err is what the call returned, of its own or by a rule; nil until it has.
	Err error
}

// Runtime misbehaves as its plan says, and is otherwise the one it was made from.
type Runtime struct {
	rt runtime.Runtime

	mu     sync.Mutex
	plan   Plan
	counts []int64
	calls  []Call
	on     func(Call)
}

var _ runtime.Runtime = (*Runtime)(nil)

// New makes a Runtime that does what rt does, except where plan says otherwise.
func New(rt runtime.Runtime, plan Plan) *Runtime {
	return &Runtime{rt: rt, plan: plan, counts: make([]int64, len(plan.rules))}
}

// SetPlan takes another plan, whose rules count from the beginning.
func (r *Runtime) SetPlan(plan Plan) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.plan, r.counts = plan, make([]int64, len(plan.rules))
}

// OnCall has f told of every call before anything of it happens. Calls may be made
// side by side, and so may f.
func (r *Runtime) OnCall(f func(Call)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.on = f
}

// Calls returns the calls made so far, in the order in which they began.
func (r *Runtime) Calls() []Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// enter notes a call and returns its number and the rule that is due, or nil.
func (r *Runtime) enter(method, object string) (int, *rule) {
	r.mu.Lock()
	var acts *rule
	for i := range r.plan.rules {
		this := &r.plan.rules[i]
		if !this.matches(method, object) {
			continue
		}
		r.counts[i]++
		if n := r.counts[i]; acts == nil && n >= this.from && n <= this.to {
			acts = this
		}
	}
	call := Call{N: len(r.calls) + 1, Method: method, Object: object}
	if acts != nil {
		call.Rule = acts.String()
	}
	r.calls = append(r.calls, call)
	on := r.on
	r.mu.Unlock()
	if on != nil {
		on(call)
	}
	return call.N, acts
}

// acts notes that a call's rule acts.
func (r *Runtime) acts(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls[n-1].Acted = true
}

// returned notes what a call came to.
func (r *Runtime) returned(n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls[n-1].Err = err
}

// call makes a call, with what its rule says. do is made at most once.
func call[T any](ctx context.Context, r *Runtime, method, object string, do func() (T, error)) (T, error) {
	n, due := r.enter(method, object)
	got, err := act(ctx, r, n, due, method, object, do)
	r.returned(n, err)
	return got, err
}

// act is what happens in the n-th call, of which a rule is due or nil.
func act[T any](ctx context.Context, r *Runtime, n int, due *rule, method, object string, do func() (T, error)) (T, error) {
	var zero, got T
	if due == nil {
		return do()
	}
	done := false
	for _, a := range due.do {
		if a.verb != verbDo && a.verb != verbDelay {
			r.acts(n)
		}
		switch a.verb {
		case verbDo:
			var err error
			if got, err = do(); err != nil {
				return got, err
			}
			done = true
		case verbBreak:
			got = broken(got, a.bytes, a.err(method, object))
		case verbPanic:
			panic(a.err(method, object))
		default:
			if err := a.wait(ctx, method, object); err != nil {
				drop(got)
				return zero, err
			}
		}
	}
	if !done {
		return do()
	}
	return got, nil
}

// wait does delay, hang and fail.
func (a action) wait(ctx context.Context, method, object string) error {
	switch a.verb {
	case verbDelay:
		timer := time.NewTimer(a.delay)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
		}
	case verbHang:
		<-ctx.Done()
	default:
		return a.err(method, object)
	}
	return &runtime.Error{Op: method, Object: object, Err: ctx.Err()}
}

// err is the error of fail, panic and break.
func (a action) err(method, object string) error {
	kind := kinds[a.kind]
	if kind == nil {
		kind = kinds["internal"]
	}
	text := a.text
	if text == "" {
		text = fmt.Sprintf("%s, as a rule says", a.verb)
	}
	return &runtime.Error{Op: method, Object: object, Err: runtime.WithKind(kind, fmt.Errorf("%w: %s", ErrFault, text))}
}

// drop lets go of what a call gave that is said to have failed.
func drop(got any) {
	if c, ok := got.(io.Closer); ok && c != nil {
		_ = c.Close()
	}
}

// broken makes a stream break off; anything else stays as it is.
func broken[T any](got T, after int64, err error) T {
	stream, ok := any(got).(io.ReadCloser)
	if !ok {
		return got
	}
	var cut io.ReadCloser = &cutStream{ReadCloser: stream, left: after, err: err}
	return cut.(T)
}

// cutStream fails after so many bytes, also if the stream would end there.
type cutStream struct {
	io.ReadCloser
	left int64
	err  error
}

func (c *cutStream) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, c.err
	}
	n, err := c.ReadCloser.Read(p[:min(int64(len(p)), c.left)])
	if c.left -= int64(n); errors.Is(err, io.EOF) {
		err = c.err
	}
	return n, err
}
