package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/sidecar/delivery"
)

// answerTime bounds what a container's first process may take to say whether it is ready, once
// it has been given all that it needs.
const answerTime = time.Minute

// handshake has a container's first process be given something when it starts; answer is told
// what it says. Run is to be called with the context, which ends with errSilent if that takes
// too long.
func handshake(ctx context.Context, input []byte, answer func(line []byte) (bool, error)) (*runtime.Handshake, context.Context, context.CancelCauseFunc) {
	bounded, cancel := context.WithCancelCause(ctx)
	return &runtime.Handshake{
		Input: &given{r: bytes.NewReader(input), all: func() {
			late := time.AfterFunc(answerTime, func() { cancel(errSilent) })
			context.AfterFunc(bounded, func() { late.Stop() })
		}},
		Answer: answer,
	}, bounded, cancel
}

// runReady starts a sidecar that speaks our protocol, gives it a document and returns when it
// is ready. If it is not, nothing of it is left.
func (l *launch) runReady(ctx context.Context, step string, spec runtime.ContainerSpec, doc delivery.Document) (runtime.Container, error) {
	encoded, err := doc.Encode()
	if err != nil {
		return runtime.Container{}, err
	}
	said := &tailBuffer{max: maxLastWords}
	shake, bounded, cancel := handshake(ctx, encoded, func(line []byte) (bool, error) {
		_, _ = said.Write(append(line[:len(line):len(line)], '\n')) // it never fails
		ready, reason := delivery.Answer(line)
		if reason != nil {
			return false, &notReadyError{escaped(reason.Error())}
		}
		return ready, nil
	})
	defer cancel(nil)
	spec.Handshake = shake
	c, err := l.runSidecar(bounded, step, spec)
	if err == nil || ctx.Err() != nil {
		return c, err
	}
	return c, notTaken(spec.Labels[LabelRole], err, said.lines())
}

// errSilent is a process that does not answer.
var errSilent = fmt.Errorf("it has not said within %v whether it is ready", answerTime)

// notReadyError is what a sidecar says that is not ready, escaped.
type notReadyError struct{ reason string }

func (e *notReadyError) Error() string { return e.reason }

// notTaken words the error of a sidecar that did not become ready, from its last words. Other
// errors stay as they are.
func notTaken(role string, err error, said []string) error {
	var refused *notReadyError
	var ended *runtime.EndedError
	var reason error
	switch {
	case errors.As(err, &refused):
		reason = refused
	case errors.As(err, &ended):
		reason = errors.New("it has ended with status " + statusText(ended.Status))
	case errors.Is(err, errSilent):
		reason = errSilent
	default:
		return err
	}
	return withKind(KindLaunch, fmt.Errorf("the %s is not ready: %w%s", roleText(role), reason, saidText(said)))
}

// given is a reader that tells when all of it has been read.
type given struct {
	r   io.Reader
	all func()
}

func (g *given) Read(p []byte) (int, error) {
	n, err := g.r.Read(p)
	if errors.Is(err, io.EOF) && g.all != nil {
		g.all()
		g.all = nil
	}
	return n, err
}
