package builder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	gatewaypb "github.com/moby/buildkit/frontend/gateway/pb"
	bkerrdefs "github.com/moby/buildkit/solver/errdefs"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/status"

	"github.com/bottle-run/bottle/runtime"
)

// StepError says that a step of the Dockerfile failed.
type StepError struct {
	// Step is its place and instruction: "[2/3] RUN make".
	Step string
	// ExitCode is the status of a RUN step's command, or 0 if something else failed.
	ExitCode int
	// Output is the end of what it wrote: lines without control characters.
	Output []string
	// Err is the cause.
	Err error
}

// Error names the step and the reason, and ends with the output.
func (e *StepError) Error() string {
	reason := e.Err.Error()
	if e.ExitCode != 0 {
		reason = fmt.Sprintf("exit code %d", e.ExitCode)
	}
	text := fmt.Sprintf("step %q failed: %s", e.Step, reason)
	if len(e.Output) > 0 {
		text += "\n" + strings.Join(e.Output, "\n")
	}
	return text
}

// Unwrap gives the cause, which has a kind.
func (e *StepError) Unwrap() error { return e.Err }

// explain makes the caller's error of the solver's.
func explain(err error, log *progress) error {
	var vertex *bkerrdefs.VertexError
	var exit *gatewaypb.ExitError
	if errors.As(err, &vertex) {
		if name, output, ok := log.step(vertex.Digest); ok {
			step := &StepError{Step: name, Output: output, Err: ofKind(err, errdefs.ErrFailedPrecondition)}
			if errors.As(err, &exit) {
				step.ExitCode = int(exit.ExitCode)
				step.Err = runtime.WithKind(errdefs.ErrFailedPrecondition, err)
			}
			return step
		}
	}
	if name, ok := log.missing(err); ok {
		return ofKind(fmt.Errorf("base image %q is not here, and cannot be had from its registry: %w", name, err), errdefs.ErrUnavailable)
	}
	for _, src := range bkerrdefs.Sources(err) {
		if len(src.Ranges) > 0 && src.Info != nil {
			err = fmt.Errorf("%s line %d: %w", src.Info.Filename, src.Ranges[0].Start.Line, err)
			break
		}
	}
	// What no step caused, the Dockerfile or the options did.
	return ofKind(err, errdefs.ErrInvalidArgument)
}

// ofKind gives an error the kind that it has in other words, or else the one that is
// given.
func ofKind(err, otherwise error) error {
	if _, ok := status.FromError(err); ok {
		if native := errgrpc.ToNative(err); kindOf(native) != nil {
			return runtime.WithKind(kindOf(native), err)
		}
	}
	kind := kindOf(err)
	var operation *net.OpError
	var name *net.DNSError
	switch {
	case kind != nil:
	case errors.Is(err, os.ErrNotExist):
		kind = errdefs.ErrNotFound
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		kind = errdefs.ErrResourceExhausted
	case errors.As(err, &operation), errors.As(err, &name):
		kind = errdefs.ErrUnavailable
	default:
		kind = otherwise
	}
	return runtime.WithKind(kind, err)
}

func kindOf(err error) error {
	for _, k := range []error{
		context.Canceled, context.DeadlineExceeded,
		errdefs.ErrInvalidArgument, errdefs.ErrNotFound, errdefs.ErrAlreadyExists, errdefs.ErrPermissionDenied,
		errdefs.ErrResourceExhausted, errdefs.ErrFailedPrecondition, errdefs.ErrUnauthenticated,
		errdefs.ErrNotImplemented, errdefs.ErrUnavailable,
	} {
		if errors.Is(err, k) {
			return k
		}
	}
	return nil
}
