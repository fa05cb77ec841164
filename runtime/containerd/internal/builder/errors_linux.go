package builder

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	bkerrdefs "github.com/moby/buildkit/solver/errdefs"
	"google.golang.org/grpc/status"

	"github.com/bottle-run/bottle/runtime"
)

// StepError says that a step of the Dockerfile failed.
type StepError struct {
	// Step is its place and instruction: "[2/3] RUN make".
	Step string
	// ExitCode is the status of a RUN step's command, or 0 if that is not what failed.
	ExitCode int
	// Output is the end of what it wrote: some lines, without control characters.
	Output []string
	// Err is BuildKit's error.
	Err error
}

// Error names the step and the reason, and ends with the output.
func (e *StepError) Error() string {
	reason := fmt.Sprintf("exit code %d", e.ExitCode)
	if e.ExitCode == 0 {
		reason = plain(e.Err)
	}
	text := fmt.Sprintf("step %q failed: %s", e.Step, reason)
	if len(e.Output) > 0 {
		text += "; its last output:\n" + strings.Join(e.Output, "\n")
	}
	return text
}

// Unwrap gives the cause, which has a kind.
func (e *StepError) Unwrap() error { return e.Err }

// explain turns the solver's error into one with a kind, and with the step and its
// output if a step failed.
func explain(err error, log *progress) error {
	var vertex *bkerrdefs.VertexError
	var exit *gatewaypb.ExitError
	text := err.Error()
	_, isExit := errors.AsType[*gatewaypb.ExitError](err)
	switch {
	case isMissingBase(err, text):
		return withKind(err, errdefs.ErrNotFound, errdefs.ErrUnavailable)
	case errors.As(err, &vertex) && log.isStep(vertex.Vertex.Digest):
		step := &StepError{Err: withKind(err, errdefs.ErrFailedPrecondition)}
		step.Step, step.Output = log.step(vertex.Vertex.Digest)
		if errors.As(err, &exit) {
			step.ExitCode = int(exit.ExitCode)
		}
		return step
	case isExit:
		return runtime.WithKind(errdefs.ErrFailedPrecondition, err)
	case len(bkerrdefs.Sources(err)) > 0 || isDockerfileError(text):
		return runtime.Errorf(errdefs.ErrInvalidArgument, "%s: %s", where(err), plain(err))
	}
	return withKind(err, errdefs.ErrUnknown)
}
