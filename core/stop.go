package core

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core/internal/graph"
	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/runtime"
)

const stepEndAgent = "end agent"

// EndAgent tells all processes of the agent's user in the bottle to end (SIGTERM), and waits for
// them as long as grace; ended reports whether they have. Processes of other users are not told. A
// bottle in which nothing runs is no error. [Bottle.Close] removes it then.
func (b *Bottle) EndAgent(ctx context.Context, grace time.Duration) (ended bool, err error) {
	r := b.report.forTeardown()
	step := graph.Step{Name: stepEndAgent, Object: b.Name}
	r.Begin(step)
	begun := time.Now()
	ended, err = b.endAgent(ctx, grace)
	if !ended && err == nil {
		r.result(stepEndAgent, fmt.Sprintf("it has not ended within %v: it is killed", grace))
	}
	r.End(step, time.Since(begun), err)
	return ended, err
}

func (b *Bottle) endAgent(ctx context.Context, grace time.Duration) (ended bool, err error) {
	seconds := int(min(math.Ceil(grace.Seconds()), math.MaxInt32))
	var said bytes.Buffer
	status, err := b.rt.Exec(ctx, b.agent(), runtime.ExecSpec{Command: inside.End(max(seconds, 0)), WorkDir: "/", Stderr: &said})
	switch {
	case errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err):
		return true, nil
	case err != nil:
		return false, err
	case status.Code == 0:
		return true, nil
	case status.Code == inside.StillThere:
		return false, nil
	case status.Code > 128:
		return true, nil // the container ended under it
	}
	return false, fmt.Errorf("the agent's processes could not be told to end: status %d: %s", status.Code, escaped(said.String()))
}
