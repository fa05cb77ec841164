package trace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/internal/graph"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/fake"
)

// clock moves when it is told to.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func (c *clock) forward(ms int) { c.t = c.t.Add(time.Duration(ms) * time.Millisecond) }

func recorder() (*Recorder, *clock) {
	c := &clock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	r := New(c.t)
	r.now = c.now
	return r, c
}

func (c *clock) event(state core.State, step, object string, needs ...string) core.Event {
	return core.Event{Time: c.t, State: state, Step: step, Object: object, Needs: needs}
}

// example records two steps side by side that a third needs, and a teardown.
func example() (*Recorder, *clock) {
	r, c := recorder()
	observe := r.Observer(nil)
	end := r.Span("make the plan")
	c.forward(5)
	end()
	observe(c.event(core.StateBegin, "engine", ""))
	observe(c.event(core.StateBegin, "image", "img"))
	c.forward(10)
	observe(c.event(core.StateEnd, "engine", ""))
	c.forward(20)
	observe(c.event(core.StateEnd, "image", "img"))
	observe(c.event(core.StateBegin, "agent", "coder", "engine", "image"))
	c.forward(7)
	observe(c.event(core.StateNote, "agent", "note"))
	observe(c.event(core.StateFailed, "agent", "coder"))
	down := c.event(core.StateBegin, "remove", "net")
	down.Teardown = true
	observe(down)
	c.forward(3)
	return r, c
}

func TestTheCriticalPathIsWhatTheLastStepWaitedFor(t *testing.T) {
	r, _ := example()
	var critical []string
	for _, s := range r.record().spans {
		if s.critical {
			critical = append(critical, s.name)
		}
	}
	if !slices.Equal(critical, []string{"image", "agent", "remove"}) {
		t.Errorf("critical: %q", critical)
	}
	var b bytes.Buffer
	if err := r.WriteSummary(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"make the plan ", "up: 37.0 ms; 0 engine calls", "  0.0 ms  10.0 ms   engine\n", "  0.0 ms  30.0 ms * image img\n", " 30.0 ms   7.0 ms * agent coder\n",
		"down: 3.0 ms;", // it has not ended, and ends now
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
}

// chromeEvents reads what is written as a viewer would.
func chromeEvents(t *testing.T, r *Recorder) []event {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteChrome(&b); err != nil {
		t.Fatal(err)
	}
	var file struct {
		TraceEvents []event `json:"traceEvents"`
	}
	if err := json.Unmarshal(b.Bytes(), &file); err != nil {
		t.Fatal(err)
	}
	return file.TraceEvents
}

func TestOnALineOfTheViewerThingsFollowEachOtherOrLieInEachOther(t *testing.T) {
	r, c := example()
	rt := r.Runtime(fake.New())
	observe := r.Observer(nil)
	steps := []graph.Step{{Name: "calls", Run: func(ctx context.Context) error {
		_, err := rt.Info(ctx)
		if _, missing := rt.InspectImage(ctx, "nothing"); missing == nil {
			err = errors.New("it is there")
		}
		return err
	}}}
	err := graph.Run(t.Context(), steps, observer{func(s graph.Step) { observe(c.event(core.StateBegin, s.Name, s.Object)) },
		func(s graph.Step) { c.forward(1); observe(c.event(core.StateEnd, s.Name, s.Object)) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rt.ListNetworks(t.Context(), runtime.Filter{}); err != nil { // of no step
		t.Fatal(err)
	}
	lines := map[int][]event{}
	names := map[string]event{}
	for _, e := range chromeEvents(t, r) {
		if e.Phase == "X" {
			lines[e.Thread] = append(lines[e.Thread], e)
			names[e.Name] = e
		}
	}
	for line, events := range lines {
		for i, a := range events {
			for _, b := range events[i+1:] {
				aEnd, bEnd := a.Time+*a.Duration, b.Time+*b.Duration
				if a.Time < bEnd && b.Time < aEnd && (b.Time < a.Time || bEnd > aEnd) {
					t.Errorf("on line %d %q and %q overlap", line, a.Name, b.Name)
				}
			}
		}
	}
	if e := names["InspectImage nothing"]; e.Args["step"] != "calls" || e.Args["failed"] != "not found" || e.Thread != names["calls"].Thread {
		t.Errorf("%+v", e)
	}
	if e := names["ListNetworks"]; e.Args["step"] != nil || e.Thread < firstCall {
		t.Errorf("%+v", e)
	}
	if e := names["agent coder"]; e.Time != 35_000 || *e.Duration != 7_000 || e.Args["outcome"] != string(core.StateFailed) {
		t.Errorf("%+v", e)
	}
}

type observer struct {
	begin func(graph.Step)
	end   func(graph.Step)
}

func (o observer) Begin(s graph.Step)                         { o.begin(s) }
func (o observer) End(s graph.Step, _ time.Duration, _ error) { o.end(s) }
