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
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/faulty"
)

// TestWhateverGoesWrongAtAnyCallNothingIsLeft lets the k-th call of a launch go
// wrong, for every k and in every way.
func TestWhateverGoesWrongAtAnyCallNothingIsLeft(t *testing.T) {
	everyCallGoesWrong(t, 12, func(t *testing.T) (*bench, launcher) {
		b := wholeBench(t)
		plan, secrets := b.plan(wholeText, core.Wishes{})
		return b, func(ctx context.Context, rt runtime.Runtime) (*core.Bottle, error) {
			return core.Launch(ctx, rt, plan, core.LaunchOptions{Secrets: secrets, Observer: b.observe})
		}
	})
}

// busyText is a bottle with every sidecar, and with files that a launch reads in its image.
const busyText = `
bottles:
  dev:
    image: img
    workspace: false
    supervise: {propose: [egress_allow, routes], mcp: [claude, cursor]}
    egress:
      allow: [a.test]
      routes: [{host: api.test, credential: {token: TOKEN}}]
    git:
      web: {url: "https://code.test/web.git", credential: {token: TOKEN}, push: {branches: ["agent/**"]}}
agents: {coder: {bottle: dev, prompt: "do it"}}
`

// TestWhateverGoesWrongAtAnyCallOfALaunchWithEverySidecarNothingIsLeft does the same with
// all that a bottle can have beside its agent.
func TestWhateverGoesWrongAtAnyCallOfALaunchWithEverySidecarNothingIsLeft(t *testing.T) {
	everyCallGoesWrong(t, 28, func(t *testing.T) (*bench, launcher) {
		b, _ := sealedBench(t)
		return b, func(ctx context.Context, rt runtime.Runtime) (*core.Bottle, error) {
			b.rt = rt
			return b.launchSealed(ctx, busyText)
		}
	})
}

// launcher launches on an engine that has faults.
type launcher func(context.Context, runtime.Runtime) (*core.Bottle, error)

// everyCallGoesWrong has prepare make a bench and a launch for each call, and each way
// in which it goes wrong. A launch has at least so many calls.
func everyCallGoesWrong(t *testing.T, least int, prepare func(*testing.T) (*bench, launcher)) {
	for _, way := range []string{"fail", "do, fail unavailable", "panic", "do, panic", "hang", "do, hang", "do, break 0"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			k := 1
			for ; ; k++ {
				b, launch := prepare(t)
				if !goesWrong(t, b, launch, k, way) {
					break
				}
				if k > 500 {
					t.Fatal("the launch has no end")
				}
			}
			if k < least {
				t.Errorf("a launch is only %d calls", k-1)
			}
		})
	}
}

// goesWrong launches with a fault at the k-th call. It reports whether the launch
// has a k-th call.
func goesWrong(t *testing.T, b *bench, launch launcher, k int, way string) bool {
	t.Helper()
	rt := faulty.New(b.rt, faulty.MustParse(fmt.Sprintf("*@%d = %s", k, way)))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hangs := strings.HasSuffix(way, "hang")
	rt.OnCall(func(c faulty.Call) {
		if c.Rule != "" && hangs {
			// Whoever waits loses patience.
			time.AfterFunc(10*time.Millisecond, cancel)
		}
	})
	bottle, err := launch(ctx, rt)
	rt.SetPlan(faulty.Plan{})
	calls := rt.Calls()
	if len(calls) < k {
		if err != nil {
			t.Fatalf("%d calls, none of which went wrong, and yet: %v", len(calls), err)
		}
		must(t, bottle.Close(t.Context()))
		b.empty()
		return false
	}
	name := fmt.Sprintf("call %d, %s %q: %s", k, calls[k-1].Method, calls[k-1].Object, way)
	if err == nil {
		// The call failed by itself before the fault came to it, which the launch
		// expects of some; or it is one that only tidies up, and the launch says so.
		c := calls[k-1]
		broke := !strings.Contains(way, "break") || c.Method == "CopyFrom" // the others have no stream
		if c.Acted && broke && !b.noted(c) {
			t.Errorf("%s: no error", name)
		}
		must(t, bottle.Close(t.Context()))
		b.empty()
		return true
	}
	var failed *core.LaunchError
	if !errors.As(err, &failed) || failed.Teardown != nil || strings.Contains(err.Error(), "kestrel") {
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

// noted reports whether a call is one without which a launch goes on, and the user was told:
// older images stay if they cannot be listed.
func (b *bench) noted(c faulty.Call) bool {
	return c.Method == "ListImages" && slices.ContainsFunc(b.events, func(e core.Event) bool {
		return e.State == core.StateNote && strings.Contains(e.Text, "older images could not be listed: ")
	})
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
