// Package trace keeps when the steps of a launch and of a teardown, and their calls of the
// engine, began and ended; it writes that for a trace viewer, and as a summary.
//
// What is kept are names and times: see [traced] for what is not told of a call. Nothing
// of it costs anything where no [Recorder] is made.
package trace

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/internal/graph"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/traced"
)

// Recorder records one run of the program. It is safe for concurrent use.
type Recorder struct {
	mu    sync.Mutex
	now   func() time.Time
	begun time.Time
	spans []*span
	calls []*call
}

// span is a step, or another part of the run.
type span struct {
	name, object string
	needs        []string
	teardown     bool
	// step tells a step of the launch's or the teardown's from what is around them.
	step       bool
	start, end time.Time // end is zero while it lasts
	outcome    core.State
	critical   bool
}

// call is a call of the engine.
type call struct {
	traced.Call
	in         *span // nil for one of no step
	start, end time.Time
}

// New begins a record; begun is when the run began.
func New(begun time.Time) *Recorder { return &Recorder{now: time.Now, begun: begun} }

// Span records a part of the run that is no step, until end is called.
func (r *Recorder) Span(name string) (end func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := &span{name: name, start: r.now()}
	r.spans = append(r.spans, s)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		s.end = r.now()
	}
}

// Runtime is rt, with its calls recorded.
func (r *Recorder) Runtime(rt runtime.Runtime) runtime.Runtime { return traced.New(rt, r.begin) }

func (r *Recorder) begin(ctx context.Context, c traced.Call) func(traced.Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := &call{Call: c, start: r.now()}
	if step, ok := graph.Of(ctx); ok {
		kept.in = r.open(step.Name, step.Object)
	}
	r.calls = append(r.calls, kept)
	return func(c traced.Call) {
		r.mu.Lock()
		defer r.mu.Unlock()
		kept.Call, kept.end = c, r.now()
	}
}

// open finds a step that lasts.
func (r *Recorder) open(name, object string) *span {
	for _, s := range slices.Backward(r.spans) {
		if s.step && s.end.IsZero() && s.name == name && s.object == object {
			return s
		}
	}
	return nil
}

// Observer is next, which may be nil, with the steps recorded that it is told of.
func (r *Recorder) Observer(next core.Observer) core.Observer {
	return func(e core.Event) {
		r.observe(e)
		if next != nil {
			next(e)
		}
	}
}

func (r *Recorder) observe(e core.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch e.State {
	case core.StateBegin:
		r.spans = append(r.spans, &span{name: e.Step, object: e.Object, needs: e.Needs, teardown: e.Teardown, step: true, start: e.Time})
	case core.StateEnd, core.StateFailed, core.StateStopped:
		if s := r.open(e.Step, e.Object); s != nil {
			s.end, s.outcome = e.Time, e.State
		}
	}
}

// record is a snapshot with what is derived from it. What lasts still ends now.
type record struct {
	begun, ended time.Time
	spans        []*span
	calls        []*call
}

func (r *Recorder) record() record {
	r.mu.Lock()
	defer r.mu.Unlock()
	rec := record{begun: r.begun, ended: r.now()}
	copies := map[*span]*span{}
	for _, s := range r.spans {
		c := *s
		if c.end.IsZero() {
			c.end = rec.ended
		}
		copies[s] = &c
		rec.spans = append(rec.spans, &c)
	}
	for _, s := range r.calls {
		c := *s
		c.in = copies[c.in]
		if c.end.IsZero() {
			c.end = rec.ended
		}
		rec.calls = append(rec.calls, &c)
	}
	for _, teardown := range []bool{false, true} {
		markCritical(rec.spans, teardown)
	}
	return rec
}

// markCritical marks the chain of steps that the last one to end has waited for: of what a
// step needed, the one that ended last.
func markCritical(spans []*span, teardown bool) {
	var last *span
	for _, s := range spans {
		if s.step && s.teardown == teardown && (last == nil || !s.end.Before(last.end)) {
			last = s
		}
	}
	for last != nil {
		last.critical = true
		var before *span
		for _, s := range spans {
			if s.step && s.teardown == teardown && !s.critical && slices.Contains(last.needs, s.name) && !s.end.After(last.start) &&
				(before == nil || s.end.After(before.end)) {
				before = s
			}
		}
		last = before
	}
}
