package runtime

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// stubDriver is an engine that only exists as far as choosing one goes.
type stubDriver struct {
	status  Status
	openErr error
	opened  *int
}

func (d stubDriver) Name() string                          { return d.status.Engine }
func (d stubDriver) Probe(context.Context, Options) Status { return d.status }
func (d stubDriver) Open(context.Context, Options) (Runtime, error) {
	if d.opened != nil {
		*d.opened++
	}
	return nil, d.openErr
}

func healthy(name string, rootless bool) stubDriver {
	return stubDriver{status: Status{Engine: name, Healthy: true, Rootless: rootless, Version: "1", Endpoint: "unix:///" + name}}
}

func down(name, reason, fix string) stubDriver {
	return stubDriver{status: Status{Engine: name, Reason: reason, Fix: fix}}
}

func TestDetectPrefersARootlessEngine(t *testing.T) {
	_, why, err := NewRegistry(healthy("one", false), healthy("two", true)).Detect(t.Context(), Options{})
	if err != nil || !strings.HasPrefix(why, "two 1 at unix:///two") || !strings.Contains(why, "rootless") {
		t.Fatalf("took %q, %v", why, err)
	}
}

func TestDetectTakesTheFirstOfThoseAlike(t *testing.T) {
	_, why, err := NewRegistry(down("zero", "r", "f"), healthy("one", false), healthy("two", false)).Detect(t.Context(), Options{})
	if err != nil || !strings.HasPrefix(why, "one ") {
		t.Fatalf("took %q, %v", why, err)
	}
}

func TestDetectGoesOnWhenAnEngineThatLookedHealthyFails(t *testing.T) {
	broken := healthy("one", true)
	broken.openErr = errors.New("gone in between")
	_, why, err := NewRegistry(broken, healthy("two", false)).Detect(t.Context(), Options{})
	if err != nil || !strings.HasPrefix(why, "two ") {
		t.Fatalf("took %q, %v", why, err)
	}
}

func TestDetectNamesEveryReasonAndEveryFix(t *testing.T) {
	_, _, err := NewRegistry(down("one", "no socket at /a", "start one"), down("two", "refused", "join its group")).Detect(t.Context(), Options{})
	if !errdefs.IsUnavailable(err) {
		t.Fatalf("got %v, want Unavailable", err)
	}
	for _, want := range []string{"one: no socket at /a; start one", "two: refused; join its group"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in:\n%v", want, err)
		}
	}
}

func TestOpenNeverFallsBack(t *testing.T) {
	other := 0
	second := healthy("two", true)
	second.opened = &other
	first := down("one", "", "")
	first.openErr = Errorf(errdefs.ErrUnavailable, "not here")
	_, err := NewRegistry(first, second).Open(t.Context(), "one", Options{})
	if !errdefs.IsUnavailable(err) || other != 0 {
		t.Fatalf("got %v, and the other engine was opened %d times", err, other)
	}
}

func TestOpenRefusesAnUnknownName(t *testing.T) {
	_, err := NewRegistry(healthy("one", true)).Open(t.Context(), "lxc", Options{})
	if !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "one, auto") {
		t.Fatalf("got %v", err)
	}
}
