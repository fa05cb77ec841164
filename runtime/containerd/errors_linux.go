package containerd

import (
	"context"
	"errors"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"google.golang.org/grpc/status"

	"github.com/bottle-run/bottle/runtime"
)

// wrap makes the error that a caller sees out of one of ours or containerd's.
func wrap(ctx context.Context, op, object string, err error) error {
	if err == nil {
		return nil
	}
	var known *runtime.Error
	if errors.As(err, &known) {
		return err
	}
	err = native(err)
	// A call that its context ended often says so in words of its own.
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = errors.Join(cause, err)
	}
	return &runtime.Error{Engine: engine, Op: op, Object: object, Err: err, Hint: hint(err)}
}

// native turns a gRPC status into an error with a kind.
func native(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return errgrpc.ToNative(err)
	}
	return err
}

// isNotFound and its like see the kind of what a gRPC call returned, too.
func isNotFound(err error) bool { return err != nil && errdefs.IsNotFound(native(err)) }

func isFailedPrecondition(err error) bool {
	return err != nil && errdefs.IsFailedPrecondition(native(err))
}

func hint(err error) string {
	text := err.Error()
	switch {
	case errdefs.IsUnavailable(err) && strings.Contains(text, "connection"):
		return "is containerd running?"
	case strings.Contains(text, "no space left on device"):
		return "free some space on the disk that holds containerd's root and bottle's state"
	}
	return ""
}

func invalid(format string, args ...any) error {
	return runtime.Errorf(errdefs.ErrInvalidArgument, format, args...)
}

func notFound(format string, args ...any) error {
	return runtime.Errorf(errdefs.ErrNotFound, format, args...)
}

func precondition(format string, args ...any) error {
	return runtime.Errorf(errdefs.ErrFailedPrecondition, format, args...)
}
