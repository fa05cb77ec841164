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

// TestWhateverGoesWrongAtAnyCallOfASealedLaunchNothingIsLeft does with the firewall
// and the egress proxy what the test of that name does without them.
func TestWhateverGoesWrongAtAnyCallOfASealedLaunchNothingIsLeft(t *testing.T) {
	for _, way := range []string{"fail", "do, fail unavailable", "panic", "do, panic", "hang", "do, hang"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			for k := 1; sealedGoesWrong(t, k, way); k++ {
				if k > 500 {
					t.Fatal("the launch has no end")
				}
			}
		})
	}
}

func sealedGoesWrong(t *testing.T, k int, way string) bool {
	t.Helper()
	b, _ := sealedBench(t)
	rt := faulty.New(b.rt, faulty.MustParse(fmt.Sprintf("*@%d = %s", k, way)))
	b.rt = rt
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hangs := strings.HasSuffix(way, "hang")
	rt.OnCall(func(c faulty.Call) {
		if c.Rule != "" && hangs {
			time.AfterFunc(10*time.Millisecond, cancel)
		}
	})
	bottle, err := b.launchSealed(ctx, sealedText)
	rt.SetPlan(faulty.Plan{})
	calls := rt.Calls()
	if len(calls) < k {
		if err != nil || k < 15 {
			t.Fatalf("%d calls, none of which went wrong, and yet: %v", len(calls), err)
		}
		must(t, bottle.Close(t.Context()))
		b.empty()
		return false
	}
	call := calls[k-1]
	name := fmt.Sprintf("call %d, %s %q: %s", k, call.Method, call.Object, way)
	if err == nil {
		if call.Acted && call.Method != "ListImages" {
			t.Errorf("%s: no error", name)
		}
		must(t, bottle.Close(t.Context()))
		b.empty()
		return true
	}
	var launch *core.LaunchError
	if !errors.As(err, &launch) || launch.Teardown != nil || strings.Contains(err.Error(), "4711") {
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
