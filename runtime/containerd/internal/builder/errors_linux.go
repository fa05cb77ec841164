package builder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"regexp"
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
	reason := detours.ReplaceAllString(e.Err.Error(), "")
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

// detours are what BuildKit's errors begin with and nobody wants to know.
var detours = regexp.MustCompile(`^(failed to (compute|load) cache key: )?(failed to calculate checksum of ref \S+: )?`)

// explain makes the caller's error of the solver's.
func explain(err error, log *progress) error {
	var vertex *bkerrdefs.VertexError
	var exit *gatewaypb.ExitError
	text := err.Error()
	if errors.As(err, &vertex) {
		if name, output, ok := log.step(vertex.Digest); ok {
			step := &StepError{Step: name, Output: output}
			switch {
			case errors.As(err, &exit):
				step.ExitCode = int(exit.ExitCode)
				step.Err = runtime.WithKind(errdefs.ErrFailedPrecondition, err)
			case strings.HasSuffix(text, ": not found"): // of COPY
				step.Err = runtime.WithKind(errdefs.ErrNotFound, err)
			default:
				step.Err = ofKind(err, errdefs.ErrFailedPrecondition)
			}
			return step
		}
	}
	if name, ok := log.missing(); ok {
		if _, after, found := strings.Cut(text, "source metadata for "+name+": "); found {
			text = after
		}
		return runtime.WithKind(ofWhich(err, errdefs.ErrUnavailable),
			fmt.Errorf("the base image %q is not on this engine, and its registry does not give it: %s", name, text))
	}
	if m := entitlement.FindString(text); m != "" {
		return runtime.Errorf(errdefs.ErrPermissionDenied, "the Dockerfile asks for what builds do not get: %s", m)
	}
	if src := bkerrdefs.Sources(err); len(src) > 0 && len(src[0].Ranges) > 0 && src[0].Info != nil && !strings.Contains(text, " line ") {
		err = fmt.Errorf("%s line %d: %w", src[0].Info.Filename, src[0].Ranges[0].Start.Line, err)
	}
	// What no step caused, the Dockerfile or the options did.
	return ofKind(err, errdefs.ErrInvalidArgument)
}

// entitlement is how the solver says no to --network=host and --security=insecure.
var entitlement = regexp.MustCompile(`\b(network\.host|security\.insecure|device)\b.* is not allowed`)

// ofKind gives an error the kind that it has in other words, or else the one that is
// given.
func ofKind(err, otherwise error) error {
	return runtime.WithKind(ofWhich(err, otherwise), err)
}

func ofWhich(err, otherwise error) error {
	if _, ok := status.FromError(err); ok {
		if kind := kindOf(errgrpc.ToNative(err)); kind != nil {
			return kind
		}
	}
	var operation *net.OpError
	var name *net.DNSError
	kind := kindOf(err)
	switch {
	case kind != nil:
		return kind
	case errors.Is(err, os.ErrNotExist):
		return errdefs.ErrNotFound
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return errdefs.ErrResourceExhausted
	case errors.As(err, &operation), errors.As(err, &name):
		return errdefs.ErrUnavailable
	}
	return otherwise
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
