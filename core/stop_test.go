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
	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/runtime/fake"
)

func TestTheAgentIsToldToEndBeforeItsBottleIsRemoved(t *testing.T) {
	for name, tc := range map[string]struct {
		status int
		ended  bool
		says   string
	}{
		"it ends":              {0, true, ""},
		"it takes longer":      {inside.StillThere, false, "it has not ended within 1.5s: it is killed"},
		"its container is off": {137, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			bottle, err := b.launch(t.Context(), small, core.Wishes{})
			must(t, err)
			var told []string
			b.Handle(inside.Path, func(_ context.Context, p *fake.Process) int {
				told = p.Args[1:]
				return tc.status
			})
			ended, err := bottle.EndAgent(t.Context(), 1500*time.Millisecond)
			if err != nil || ended != tc.ended || !slices.Equal(told, []string{"end", "2"}) {
				t.Errorf("ended: %v, %v; told %q", ended, err, told)
			}
			i := slices.IndexFunc(b.events, func(e core.Event) bool { return e.Step == "end agent" && e.State == core.StateEnd })
			if i < 0 || b.events[i].Text != tc.says || !b.events[i].Teardown {
				t.Errorf("events %+v", b.events)
			}
			must(t, bottle.Close(t.Context()))
			b.empty()
		})
	}
}

func TestAnAgentThatCannotBeToldToEndIsSaid(t *testing.T) {
	b := newBench(t, nil)
	bottle, err := b.launch(t.Context(), small, core.Wishes{})
	must(t, err)
	b.Handle(inside.Path, func(_ context.Context, p *fake.Process) int {
		_, _ = fmt.Fprint(p.Stderr, "bottle: /proc: it cannot be read\x1b[2J")
		return 125
	})
	if _, err := bottle.EndAgent(t.Context(), time.Second); err == nil || !strings.Contains(err.Error(), `status 125: bottle: /proc: it cannot be read\x1b[2J`) {
		t.Errorf("got %v", err)
	}
	must(t, bottle.Close(t.Context()))
	b.empty()
	// There is nothing to tell in one that is gone, or broken.
	if ended, err := bottle.EndAgent(t.Context(), 0); err != nil || !ended {
		t.Errorf("again: %v, %v", ended, err)
	}
}

func TestAStopThatIsInterruptedLeavesTheBottle(t *testing.T) {
	b := newBench(t, nil)
	bottle, err := b.launch(t.Context(), small, core.Wishes{})
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	b.Handle(inside.Path, func(ctx context.Context, _ *fake.Process) int {
		cancel()
		<-ctx.Done()
		return 0
	})
	if _, err := bottle.EndAgent(ctx, time.Minute); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if len(b.holds()) == 0 {
		t.Error("it is gone")
	}
	must(t, bottle.Close(t.Context()))
	b.empty()
}
