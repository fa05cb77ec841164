package core_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime/faulty"
)

// TestWhateverGoesWrongAtAnyCallNothingIsLeft lets the k-th call of a launch go
// wrong, for every k and in every way.
func TestWhateverGoesWrongAtAnyCallNothingIsLeft(t *testing.T) {
	for _, way := range []string{"fail", "do, fail unavailable", "panic", "do, panic", "hang", "do, hang"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			for k := 1; goesWrong(t, k, way); k++ {
				if k > 500 {
					t.Fatal("the launch has no end")
				}
			}
		})
	}
}

// goesWrong launches with a fault at the k-th call. It reports whether the launch
// has a k-th call.
func goesWrong(t *testing.T, k int, way string) bool {
	t.Helper()
	b := wholeBench(t)
	rt := faulty.New(b.rt, faulty.MustParse(fmt.Sprintf("*@%d = %s", k, way)))
	plan, secrets := b.plan(wholeText, core.Wishes{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hangs := strings.HasSuffix(way, "hang")
	rt.OnCall(func(c faulty.Call) {
		if c.Rule != "" && hangs {
			// Whoever waits loses patience.
			time.AfterFunc(10*time.Millisecond, cancel)
		}
	})
	bottle, err := core.Launch(ctx, rt, plan, core.LaunchOptions{Secrets: secrets, Observer: b.observe})
	rt.SetPlan(faulty.Plan{})
	calls := rt.Calls()
	if len(calls) < k {
		if err != nil || k < 12 {
			t.Fatalf("%d calls, none of which went wrong, and yet: %v", len(calls), err)
		}
		must(t, bottle.Close(t.Context()))
		b.empty()
		return false
	}
	name := fmt.Sprintf("call %d, %s %q: %s", k, calls[k-1].Method, calls[k-1].Object, way)
	if err == nil {
		// The call failed by itself before the fault came to it, which the launch
		// expects of some; or it is one that only tidies up.
		if c := calls[k-1]; c.Acted && c.Method != "ListImages" {
			t.Errorf("%s: no error", name)
		}
		must(t, bottle.Close(t.Context()))
		b.empty()
		return true
	}
	var launch *core.LaunchError
	if !errors.As(err, &launch) || launch.Teardown != nil {
		t.Errorf("%s: %v", name, err)
	}
	switch {
	case hangs:
		if core.KindOf(err) != core.KindInterrupted {
			t.Errorf("%s: %v (%s)", name, err, core.KindOf(err))
		}
	case !errors.Is(err, faulty.ErrFault):
		t.Errorf("%s: the error is another: %v", name, err)
	case !slices.ContainsFunc(b.events, func(e core.Event) bool {
		return e.State == core.StateFailed && strings.HasPrefix(err.Error(), e.Step) && strings.Contains(err.Error(), e.Object)
	}):
		t.Errorf("%s: the error names no step that failed, with its object: %v", name, err)
	}
	b.empty()
	return true
}

// TestATeardownThatGoesWrongOnceIsCompletedNevertheless lets the k-th call of a
// teardown go wrong, for every k.
func TestATeardownThatGoesWrongOnceIsCompletedNevertheless(t *testing.T) {
	for _, way := range []string{"fail", "do, fail", "panic"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			for k := 1; ; k++ {
				b := wholeBench(t)
				rt := faulty.New(b.rt, faulty.Plan{})
				plan, secrets := b.plan(wholeText, core.Wishes{})
				bottle, err := core.Launch(t.Context(), rt, plan, core.LaunchOptions{Secrets: secrets})
				must(t, err)
				before := len(rt.Calls())
				rt.SetPlan(faulty.MustParse(fmt.Sprintf("*@%d = %s", k, way)))
				must(t, bottle.Close(t.Context()))
				b.empty()
				if len(rt.Calls())-before < k {
					if k < 4 {
						t.Errorf("a teardown is only %d calls", k-1)
					}
					return
				}
			}
		})
	}
}
