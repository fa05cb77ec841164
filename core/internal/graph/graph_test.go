package graph

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-multierror"
)

type recorder struct {
	mu     sync.Mutex
	events []string
}

func (r *recorder) add(event string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event)
}
func (r *recorder) Begin(s Step)                         { r.add("begin " + s.Name) }
func (r *recorder) End(s Step, _ time.Duration, _ error) { r.add("end " + s.Name) }
func (r *recorder) before(t *testing.T, first, second string) {
	t.Helper()
	i, j := slices.Index(r.events, first), slices.Index(r.events, second)
	if i < 0 || j < 0 || i > j {
		t.Errorf("%q does not come before %q in %q", first, second, r.events)
	}
}

func TestStepsWaitForWhatTheyNeedAndRunSideBySide(t *testing.T) {
	var r recorder
	meet := make(chan struct{})
	// Each of the two needs the other to run at the same time.
	err := Run(t.Context(), []Step{
		{Name: "last", Needs: []string{"a", "b"}, Run: func(context.Context) error { return nil }},
		{Name: "a", Run: func(context.Context) error { meet <- struct{}{}; return nil }},
		{Name: "b", Run: func(context.Context) error { <-meet; return nil }},
	}, &r)
	if err != nil {
		t.Fatal(err)
	}
	r.before(t, "end a", "begin last")
	r.before(t, "end b", "begin last")
}

func TestAFailureEndsTheOthersAndIsTheError(t *testing.T) {
	var r recorder
	boom := errors.New("boom")
	err := Run(t.Context(), []Step{
		{Name: "slow", Run: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }},
		{Name: "bad", Object: "x", Run: func(context.Context) error { return boom }},
		{Name: "after", Needs: []string{"bad"}, Run: func(context.Context) error { t.Error("it was begun"); return nil }},
	}, &r)
	var step *StepError
	if !errors.As(err, &step) || step.Step != "bad" || !errors.Is(err, boom) || err.Error() != `bad "x": boom` {
		t.Errorf("got %v", err)
	}
	r.before(t, "begin slow", "end slow")
}

func TestFailuresAtOnceAreAllReported(t *testing.T) {
	both := make(chan struct{})
	err := Run(t.Context(), []Step{
		{Name: "a", Run: func(context.Context) error { both <- struct{}{}; return errors.New("first") }},
		{Name: "b", Run: func(context.Context) error { <-both; return errors.New("second") }},
	}, &recorder{})
	var all *multierror.Error
	if !errors.As(err, &all) || len(all.Errors) != 2 {
		t.Errorf("got %v", err)
	}
}

func TestAnEndedContextIsTheCause(t *testing.T) {
	signal := errors.New("interrupted")
	ctx, cancel := context.WithCancelCause(t.Context())
	err := Run(ctx, []Step{
		{Name: "a", Run: func(ctx context.Context) error { cancel(signal); <-ctx.Done(); return ctx.Err() }},
		{Name: "b", Needs: []string{"a"}, Run: func(context.Context) error { t.Error("it was begun"); return nil }},
	}, &recorder{})
	if !errors.Is(err, signal) {
		t.Errorf("got %v", err)
	}
}

func TestImpossibleGraphsAreRefused(t *testing.T) {
	for name, steps := range map[string][]Step{
		"a missing need": {{Name: "a", Needs: []string{"b"}}},
		"a circle":       {{Name: "a", Needs: []string{"b"}}, {Name: "b", Needs: []string{"a"}}},
		"one name twice": {{Name: "a"}, {Name: "a"}},
	} {
		if err := Run(t.Context(), steps, &recorder{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestUndosRunSideBySideAndAllOfThem(t *testing.T) {
	retries = []time.Duration{time.Microsecond, time.Microsecond}
	var u Undo
	var mu sync.Mutex
	count := map[string]int{}
	note := func(name string) {
		mu.Lock()
		defer mu.Unlock()
		count[name]++
	}
	fail := true
	u.PushLast("network", "", func(context.Context) error {
		mu.Lock()
		defer mu.Unlock()
		if count["network"]++; count["first"] != 1 || fail && count["second"] != 3 || count["third"] != 2 {
			t.Errorf("the last ones do not wait for the others: %v", count)
		}
		return nil
	})
	meet := make(chan struct{})
	// Each of the two needs the other to run at the same time.
	u.Push("first", "", func(context.Context) error { note("first"); <-meet; return nil })
	u.Push("second", "x", func(context.Context) error {
		note("second")
		if fail {
			return errors.New("stuck")
		}
		return nil
	})
	once := errors.New("once")
	u.Push("third", "", func(context.Context) error {
		if note("third"); once == nil {
			meet <- struct{}{}
			return nil
		}
		err := once
		once = nil
		return err
	})
	var r recorder
	err := u.Run(t.Context(), &r)
	if err == nil || !strings.Contains(err.Error(), `second "x": stuck`) || strings.Contains(err.Error(), "once") {
		t.Errorf("got %v", err)
	}
	if count["network"] != 1 {
		t.Errorf("%v", count)
	}
	r.before(t, "end first", "begin network")
	r.before(t, "end second", "begin network")
	fail = false
	clear(count)
	if err := u.Run(t.Context(), &recorder{}); err != nil || count["second"] != 1 || len(count) != 1 {
		t.Errorf("the second time: %v, %v", err, count)
	}
	if err := u.Run(t.Context(), &recorder{}); err != nil || len(count) != 1 {
		t.Errorf("the third time: %v, %v", err, count)
	}
}

func TestInAHurryNothingIsTriedAgain(t *testing.T) {
	var u Undo
	hurry := make(chan struct{})
	n := 0
	u.Push("second", "", func(context.Context) error { n++; close(hurry); return errors.New("stuck") })
	u.PushLast("first", "", func(context.Context) error { return nil })
	retries = []time.Duration{time.Hour}
	err := u.Run(WithHurry(t.Context(), hurry), &recorder{})
	if err == nil || !strings.Contains(err.Error(), "second: stuck") || n != 1 || len(u.items) != 1 || len(u.last) != 0 {
		t.Errorf("%v after %d attempts, and %d and %d are left", err, n, len(u.items), len(u.last))
	}
}

func TestNoRetryOnceTheContextHasEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	n := 0
	if err := Persist(ctx, func(context.Context) error { n++; return errors.New("no") }); err == nil || n != 1 {
		t.Errorf("%v after %d attempts", err, n)
	}
}

func TestAPanicIsTheErrorOfItsStep(t *testing.T) {
	retries = []time.Duration{time.Microsecond}
	cause := errors.New("cause")
	undone := false
	var u Undo
	err := Run(t.Context(), []Step{
		{Name: "a", Run: func(context.Context) error {
			u.Push("undo a", "", func(context.Context) error { undone = true; return nil })
			u.Push("undo b", "", func(context.Context) error { panic("undo") })
			return nil
		}},
		{Name: "b", Object: "x", Needs: []string{"a"}, Run: func(context.Context) error { panic(cause) }},
	}, &recorder{})
	var p *PanicError
	if !errors.As(err, &p) || !errors.Is(err, cause) || len(p.Stack) == 0 || !strings.HasPrefix(err.Error(), `b "x": `) {
		t.Errorf("got %v", err)
	}
	if err := u.Run(t.Context(), &recorder{}); !errors.As(err, &p) || p.Value != "undo" || !undone {
		t.Errorf("%v, undone: %v", err, undone)
	}
}
