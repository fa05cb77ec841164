package runtime

import (
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
)

// Error is what the methods of a [Runtime] return: the operation, what it was
// done to, and the cause, which carries the kind.
type Error struct {
	// Engine is the implementation's name.
	Engine string
	// Op is a verb and the kind of object: "run container", "remove network".
	Op string
	// Object is its name, or empty.
	Object string
	// Err is the cause. It or something it wraps has a kind of errdefs.
	Err error
	// Hint says what the user can do, or is empty.
	Hint string
}

// Error says what was being done, to what, and why it failed.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Engine != "" {
		b.WriteString(e.Engine + ": ")
	}
	b.WriteString(e.Op)
	if e.Object != "" {
		fmt.Fprintf(&b, " %q", e.Object)
	}
	fmt.Fprintf(&b, ": %v", e.Err)
	if e.Hint != "" {
		fmt.Fprintf(&b, " (%s)", e.Hint)
	}
	return b.String()
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// kindError is a message of our own with a kind, and optionally the error that
// it speaks about.
type kindError struct {
	kind error
	msg  string
	err  error
}

func (e *kindError) Error() string {
	switch {
	case e.err == nil:
		return e.msg
	case e.msg == "":
		return e.err.Error()
	}
	return e.msg + ": " + e.err.Error()
}

func (e *kindError) Unwrap() []error {
	if e.err == nil {
		return []error{e.kind}
	}
	return []error{e.kind, e.err}
}

// Errorf makes an error of a kind, one of errdefs.Err…, without repeating the
// kind's own text in the message.
func Errorf(kind error, format string, args ...any) error {
	return &kindError{kind: kind, msg: fmt.Sprintf(format, args...)}
}

// WithKind gives err a kind, keeping its text and chain. It returns nil for nil.
func WithKind(kind, err error) error {
	if err == nil {
		return nil
	}
	return &kindError{kind: kind, err: err}
}

// NotImplemented is the error for a feature that the engine lacks.
func NotImplemented(f Feature, reason string) error {
	return Errorf(errdefs.ErrNotImplemented, "this engine has no %s: %s", f.Doc(), reason)
}
