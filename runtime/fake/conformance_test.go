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
	conformance.RunT(t, func(*testing.T) runtime.Runtime {
		e := fake.New()
		e.Handle(probe.Path, runProbe)
		return e
	})
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
