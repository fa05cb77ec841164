package fake_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
	"github.com/bottle-run/bottle/runtime/fake"
)

// TestConformance runs the suite: what needs a kernel is exempt, and nothing
// else.
func TestConformance(t *testing.T) {
	e := fake.New()
	e.Handle(probe.Path, runProbe)
	foreign := func(_ context.Context, names conformance.Names, _ []byte) (func(context.Context) error, error) {
		e.AddForeign("networks", names.Network)
		e.AddForeign("containers", names.Container)
		e.AddImage(names.Image, runtime.ImageConfig{}, nil, nil)
		return func(context.Context) error {
			e.RemoveForeign("networks", names.Network)
			e.RemoveForeign("containers", names.Container)
			e.RemoveForeign("images", names.Image)
			return nil
		}, nil
	}
	conformance.RunT(t, func(*testing.T) runtime.Runtime { return e }, conformance.Options{Foreign: foreign})
}

// runProbe runs the probe's commands that need no machine. A test that uses
// another is one that needs a kernel.
func runProbe(ctx context.Context, p *fake.Process) int {
	if len(p.Args) < 2 || !probe.Pure(p.Args[1]) {
		_, _ = fmt.Fprintf(p.Stderr, "probe %q needs a kernel\n", p.Args)
		return 125
	}
	return probe.Main(ctx, &probe.Call{Args: p.Args[1:], Env: p.Env, Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr})
}
