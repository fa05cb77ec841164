package fake

import (
	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

var errClosed = runtime.Errorf(errdefs.ErrUnavailable, "the connection is closed")

func notFound(what, name string) error {
	return runtime.Errorf(errdefs.ErrNotFound, "there is no %s %q", what, name)
}

func taken(what, name string) error {
	return runtime.Errorf(errdefs.ErrAlreadyExists, "the name of %s %q is taken", what, name)
}

func invalid(format string, args ...any) error {
	return runtime.Errorf(errdefs.ErrInvalidArgument, format, args...)
}

func precondition(format string, args ...any) error {
	return runtime.Errorf(errdefs.ErrFailedPrecondition, format, args...)
}

func foreign(what, name string) error {
	return runtime.Errorf(errdefs.ErrPermissionDenied, "%s %q was not made by bottle", what, name)
}
