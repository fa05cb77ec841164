package core

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core/manifest"
)

// Kind says what sort of thing went wrong, which decides what the user can do.
type Kind string

// The kinds of error.
const (
	// KindInput is something that the user wrote or named: the manifest, an env
	// file, a missing file or variable.
	KindInput Kind = "input"
	// KindEngine is an engine that cannot be reached.
	KindEngine Kind = "engine"
	// KindImage is an image that cannot be built or had.
	KindImage Kind = "image"
	// KindName is a name that is taken.
	KindName Kind = "name"
	// KindUnsupported is something that this engine cannot do.
	KindUnsupported Kind = "unsupported"
	// KindNotFound is a bottle, or a file in one, that does not exist.
	KindNotFound Kind = "not-found"
	// KindLaunch is any other failure of a launch.
	KindLaunch Kind = "launch"
	// KindLeftover is something that could not be removed.
	KindLeftover Kind = "leftover"
	// KindRecord is a launch's record that cannot be written.
	KindRecord Kind = "record"
	// KindInterrupted is a context that ended.
	KindInterrupted Kind = "interrupted"
	// KindOther is everything else.
	KindOther Kind = "other"
)

// Error is an error with a kind.
type Error struct {
	Kind Kind
	Err  error
}

// Error is the cause's text.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// Errorf makes an error of a kind.
func Errorf(kind Kind, format string, args ...any) error {
	return &Error{Kind: kind, Err: fmt.Errorf(format, args...)}
}

// withKind gives err a kind unless it has one already; nil stays nil.
func withKind(kind Kind, err error) error {
	var known *Error
	if err == nil || errors.As(err, &known) {
		return err
	}
	return &Error{Kind: kind, Err: err}
}

// KindOf returns the kind of an error: the one it was given, or the one that
// follows from the kind of the engine's error.
func KindOf(err error) Kind {
	var known *Error
	var input *manifest.Error
	switch {
	case errors.As(err, &known):
		return known.Kind
	case errors.As(err, &input) || errors.Is(err, manifest.ErrNotFound):
		return KindInput
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return KindInterrupted
	case errdefs.IsUnavailable(err):
		return KindEngine
	case errdefs.IsNotImplemented(err):
		return KindUnsupported
	case errdefs.IsNotFound(err):
		return KindNotFound
	}
	return KindOther
}

// LaunchError is a launch that failed and what came of clearing up after it.
type LaunchError struct {
	// Err is why the launch failed.
	Err error
	// Teardown is what could not be removed, or nil.
	Teardown error
}

// Error gives the launch's own error first.
func (e *LaunchError) Error() string {
	if e.Teardown == nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("%v\nand this was left behind:\n%v", e.Err, e.Teardown)
}

// Unwrap gives both.
func (e *LaunchError) Unwrap() []error {
	if e.Teardown == nil {
		return []error{e.Err}
	}
	return []error{e.Err, e.Teardown}
}
