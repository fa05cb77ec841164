package docker

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

// fail makes the error of an operation, or nil for nil. What the daemon said keeps
// its kind; an error that ctx caused also answers to ctx's own.
func fail(ctx context.Context, op, object string, err error) error {
	if err == nil {
		return nil
	}
	e := &runtime.Error{Engine: Name, Op: op, Object: object, Err: err}
	if strings.HasPrefix(err.Error(), daemonPrefix) {
		e.Err = said{err}
	}
	var inner *runtime.Error
	switch {
	case errors.As(err, &inner) && inner.Op == op:
		return err
	case ctx.Err() != nil:
		if !errors.Is(err, ctx.Err()) && !errors.Is(err, context.Cause(ctx)) {
			e.Err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
	case client.IsErrConnectionFailed(err):
		e.Err = runtime.WithKind(errdefs.ErrUnavailable, err)
		e.Hint = "is the Docker daemon running, and may you use its socket?"
	case errdefs.IsPermissionDenied(err) && strings.Contains(err.Error(), "docker.sock"):
		e.Hint = "add yourself to the group that owns the socket"
	}
	return e
}

// rekind replaces the kind of an error whose text has one of the substrings: the
// daemon reports many failures of the user's as internal ones.
func rekind(err error, kind error, substrings ...string) error {
	if err == nil {
		return nil
	}
	text := strings.ToLower(err.Error())
	for _, s := range substrings {
		if strings.Contains(text, s) {
			return runtime.Errorf(kind, "%s", message(err))
		}
	}
	return err
}

// daemonPrefix is what the client puts before the daemon's text.
const daemonPrefix = "Error response from daemon: "

// message is the daemon's text.
func message(err error) string {
	return strings.TrimSpace(strings.TrimPrefix(err.Error(), daemonPrefix))
}

// said is an error of the client's whose text is the daemon's alone.
type said struct{ error }

func (s said) Error() string { return message(s.error) }
func (s said) Unwrap() error { return s.error }

// asKind replaces err's kind if is holds for it.
func asKind(err error, is func(error) bool, kind error) error {
	if err == nil || !is(err) {
		return err
	}
	return runtime.Errorf(kind, "%s", message(err))
}
