package core

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/bottle-run/bottle/core/internal/graph"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/fake"
	"github.com/bottle-run/bottle/runtime/faulty"
)

func TestAWatchThatPanicsIsAnError(t *testing.T) {
	rt := faulty.New(runtime.Checked(fake.New()), faulty.MustParse("Info = panic"))
	l := &launch{rt: rt}
	err := graph.Guard(func() error { return l.watch(t.Context(), time.Millisecond) })
	var panicked *graph.PanicError
	if !errors.As(err, &panicked) {
		t.Errorf("%v", err)
	}
}

func TestAnEngineThatRefusesToSayIsWatchedUntilTheEnd(t *testing.T) {
	rt := faulty.New(runtime.Checked(fake.New()), faulty.MustParse("Info = fail unavailable"))
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for len(rt.Calls()) < 3 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if err := (&launch{rt: rt}).watch(ctx, time.Millisecond); err != nil {
		t.Error(err)
	}
}
