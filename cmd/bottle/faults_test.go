package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/imagecache"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/core/session"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/faulty"
)

// ways are those in which a call goes wrong. "cancel" ends the launch's context while the
// call is under way.
var ways = []string{"fail unavailable", "cancel", "panic", "do, fail"}

// TestWhateverCallGoesWrongNothingIsLeft launches bottles with everything, and lets the
// k-th call go wrong. BOTTLE_TEST_FAULTS says how many cases are tried, spread evenly over
// all calls and ways; "all" is each of them.
func TestWhateverCallGoesWrongNothingIsLeft(t *testing.T) {
	s := newScene(t, "true")
	defer s.end()
	store, err := session.Open(filepath.Join(s.state, "bottle", "sessions"), session.ThisSystem())
	check(t, err)
	m, err := manifest.Load(filepath.Join(s.dir, "bottle.yaml"))
	check(t, err)
	plan, secrets, err := core.NewPlan(m, core.Host{WorkDir: s.dir, HomeDir: s.dir, LookupEnv: func(name string) (string, bool) {
		return "tok-kestrel-secret-value", name == "TOKEN"
	}}, core.Wishes{Agent: "e2e-life"})
	check(t, err)
	launch := func(ctx context.Context, rt runtime.Runtime) (*core.Bottle, []core.Event, error) {
		var mu sync.Mutex
		var events []core.Event
		b, err := core.Launch(ctx, rt, plan, core.LaunchOptions{
			Secrets: secrets, Images: imagecache.New(filepath.Join(s.cache, "bottle", "images")), Recorder: &unwatched{store}, Observer: func(e core.Event) {
				mu.Lock()
				defer mu.Unlock()
				events = append(events, e)
			},
		})
		return b, events, err
	}
	calls := 0
	for range 2 { // what an engine sets up once, and keeps
		rt := faulty.New(s.rt, faulty.Plan{})
		b, _, err := launch(t.Context(), rt)
		check(t, err)
		calls = len(rt.Calls())
		check(t, b.Close(t.Context()))
	}
	s.mark()
	total := calls * len(ways)
	tried := total
	if os.Getenv("BOTTLE_TEST_FAULTS") != "all" {
		tried = min(total, number(t, "BOTTLE_TEST_FAULTS", 6))
	}
	t.Logf("a launch is %d calls; %d of %d cases", calls, tried, total)
	begun := time.Now()
	for i := range tried {
		// The middle of each of as many parts.
		n := (2*i + 1) * total / (2 * tried)
		s.goesWrong(launch, n/len(ways)+1, ways[n%len(ways)])
	}
	t.Logf("%d cases took %v", tried, time.Since(begun).Round(time.Second))
}

func (s *scene) goesWrong(launch func(context.Context, runtime.Runtime) (*core.Bottle, []core.Event, error), k int, way string) {
	t := s.t
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	plan := faulty.Plan{}
	if way != "cancel" {
		plan = faulty.MustParse(fmt.Sprintf("*@%d = %s", k, way))
	}
	rt := faulty.New(s.rt, plan)
	rt.OnCall(func(c faulty.Call) {
		if way == "cancel" && c.N == k {
			time.AfterFunc(20*time.Millisecond, cancel)
		}
	})
	b, events, err := launch(ctx, rt)
	name := fmt.Sprintf("call %d: %s", k, way)
	if calls := rt.Calls(); len(calls) >= k {
		name = fmt.Sprintf("call %d, %s %q: %s", k, calls[k-1].Method, calls[k-1].Object, way)
	}
	rt.SetPlan(faulty.Plan{})
	var failed *core.LaunchError
	switch {
	case err == nil:
		// The call was over before it was cancelled, or failed by itself before the fault came
		// to it; nothing else is passed over.
		for _, c := range rt.Calls() {
			if c.Err != nil && !expected(c) {
				t.Errorf("%s: a launch came up although %s %q failed: %v", name, c.Method, c.Object, c.Err)
			}
		}
		if way == "panic" {
			t.Errorf("%s: a launch came up although a call panicked", name)
		}
		check(t, b.Close(t.Context()))
	case !errors.As(err, &failed), failed.Teardown != nil, strings.Contains(err.Error(), "kestrel"):
		t.Errorf("%s: %v", name, err)
	case way == "cancel":
		if core.KindOf(err) != core.KindInterrupted {
			t.Errorf("%s: %v (%s)", name, err, core.KindOf(err))
		}
	case !errors.Is(err, faulty.ErrFault):
		t.Errorf("%s: the error is another: %v", name, err)
	case !slices.ContainsFunc(events, func(e core.Event) bool {
		return e.State == core.StateFailed && strings.HasPrefix(err.Error(), e.Step) && strings.Contains(err.Error(), e.Object)
	}):
		t.Errorf("%s: the error names no step that failed, with its object: %v", name, err)
	}
	took, left := s.nothingLeft(killedTime())
	if len(left) > 0 {
		t.Errorf("%s: %v\nthis is left:\n%s", name, err, strings.Join(left, "\n"))
		s.mark()
	}
	t.Logf("%s: launched: %v, nothing left after %v", name, err == nil, took.Round(time.Millisecond))
}

// expected are the calls that may fail while a launch comes up nevertheless.
func expected(c faulty.Call) bool {
	switch c.Method {
	case "CopyTo", "CopyFrom":
		return errdefs.IsNotFound(c.Err) // it looks what there is in the image
	case "InspectImage":
		return errdefs.IsNotFound(c.Err) // it looks whether it has to be made
	case "Info":
		return true // the launch's heartbeat: it asks again
	}
	return false
}

// unwatched records launches without a watchdog: this process lives.
type unwatched struct{ store *session.Store }

func (u *unwatched) Begin(i core.Intent) (core.Recording, error) {
	s, err := u.store.Begin(session.Record{
		Launch: i.Launch, Bottle: i.Bottle, Agent: i.Agent, Engine: i.Engine, Endpoint: i.Endpoint, Label: core.LabelLaunch, Created: time.Now(),
	})
	if err != nil {
		return nil, err
	}
	return recorded{s}, nil
}
