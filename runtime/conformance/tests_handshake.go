package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

var handshakeTests = []Test{
	{
		Name: "handshake/input-and-its-end",
		Doc:  "What a handshake gives reaches the first process byte by byte, and so does its end, also of nothing; the process goes on, with a root that is read-only and as any user.",
		Run:  handshakeInput,
	},
	{
		Name: "handshake/large-input", Timeout: 2 * DefaultTimeout,
		Doc: "64 MiB reach the first process unharmed, in constant memory.",
		Run: handshakeLarge,
	},
	{
		Name: "handshake/late-input",
		Doc:  "What a handshake gives is asked for when the process has been started, and may take its time.",
		Run:  handshakeLate,
	},
	{
		Name: "handshake/not-recorded",
		Doc:  "What a handshake gives is neither in the description of the container nor in its log; what the process says is.",
		Run:  handshakeSecret,
	},
	{
		Name: "handshake/the-process-ends",
		Doc:  "A process that ends before it answers is FailedPrecondition with its status and all that it said, whether it has read or not; nothing of the container is left.",
		Run:  handshakeEnded,
	},
	{
		Name: "handshake/refused",
		Doc:  "When the answer is no, Run fails with that, and nothing of the container is left.",
		Run:  handshakeRefused,
	},
	{
		Name: "handshake/input-that-fails",
		Doc:  "When the input fails, Run fails with that; the process does not take it for the end; nothing of the container is left.",
		Run:  handshakeFails,
	},
	{
		Name: "handshake/cancelled",
		Doc:  "A handshake ends with its context, whether the input waits or the process, and nothing of the container is left.",
		Run:  handshakeCancelled,
	},
	{
		Name: "handshake/invalid",
		Doc:  "A handshake without one of its sides, with a terminal or without an init is InvalidArgument.",
		Run:  handshakeInvalid,
	},
}

// talk is a handshake that is over when a line begins with a text.
type talk struct {
	runtime.Handshake
	mu    sync.Mutex
	lines []string
}

// untilCounted is over when the probe has said what it read.
func untilCounted(input io.Reader) *talk { return newTalk(input, "{") }

func newTalk(input io.Reader, until string) *talk {
	t := &talk{}
	t.Input = input
	t.Answer = func(line []byte) (bool, error) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.lines = append(t.lines, string(line))
		return strings.HasPrefix(string(line), until), nil
	}
	return t
}

func (t *talk) said() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.lines...)
}

// heeds runs a container as sidecars are run, whose process reads its input.
func (e *Env) heeds(ctx context.Context, t *talk) (*Box, error) {
	return e.BoxOf(ctx, runtime.ContainerSpec{
		Command: []string{"heed"}, User: "65532:65532", ReadOnly: true, Tmpfs: []runtime.Tmpfs{{Target: "/run/own"}}, Handshake: &t.Handshake,
	})
}

// counted checks what the process says that it has read.
func (t *talk) counted(want probe.Count) error {
	said := t.said()
	var got probe.Count
	if len(said) == 0 || json.Unmarshal([]byte(said[len(said)-1]), &got) != nil {
		return failed("expected the process to say what it has read, got %q", said)
	}
	return check(got == want, "expected the process to read %+v, got %+v", want, got)
}

func handshakeInput(ctx context.Context, e *Env) error {
	every := make([]byte, 256) // what a terminal or a proxy of streams might take for its own, too
	for i := range every {
		every[i] = byte(i)
	}
	for what, content := range map[string][]byte{"nothing": nil, "a line": []byte("one line\n"), "every byte": bytes.Repeat(every, 3), "keys to detach": []byte("\x10\x11 and more \x10\x11")} {
		t := untilCounted(bytes.NewReader(content))
		b, err := e.heeds(ctx, t)
		if err != nil {
			return failed("%s: %w", what, err)
		}
		if err := t.counted(probe.Count{Bytes: int64(len(content)), SHA256: sha(content)}); err != nil {
			return failed("%s: %w", what, err)
		}
		c, err := e.Runtime.InspectContainer(ctx, b.ID)
		if err != nil {
			return err
		}
		if c.State != runtime.StateRunning || b.State != runtime.StateRunning {
			return failed("%s: expected the process to go on, got %s and %s", what, b.State, c.State)
		}
		if err := e.Runtime.RemoveContainer(ctx, b.ID); err != nil {
			return err
		}
	}
	return nil
}

func handshakeLarge(ctx context.Context, e *Env) error {
	const size = 64 << 20
	return bounded(streamMemory, func() error {
		t := untilCounted(probe.Pattern(size))
		if _, err := e.heeds(ctx, t); err != nil {
			return err
		}
		return t.counted(probe.Count{Bytes: size, SHA256: patternSum(size)})
	})
}

func handshakeLate(ctx context.Context, e *Env) error {
	name := e.Name("late")
	content := []byte("known late")
	asked := &lateReader{read: func() (io.Reader, error) {
		// It may be on its way to its first instruction.
		err := poll(ctx, patience, func(ctx context.Context) error {
			c, err := e.Runtime.InspectContainer(ctx, name)
			if err != nil {
				return failed("expected the container to be there when the input is asked for: %w", err)
			}
			return check(c.State == runtime.StateRunning, "expected the container to run when the input is asked for, got %s", c.State)
		})
		if err != nil {
			return nil, err
		}
		time.Sleep(500 * time.Millisecond) // the input that takes its time
		return bytes.NewReader(content), nil
	}}
	t := untilCounted(asked)
	if _, err := e.BoxOf(ctx, runtime.ContainerSpec{Name: name, Command: []string{"heed"}, ReadOnly: true, Handshake: &t.Handshake}); err != nil {
		return err
	}
	return t.counted(probe.Count{Bytes: int64(len(content)), SHA256: sha(content)})
}

// lateReader makes what it reads when it is first read.
type lateReader struct {
	read func() (io.Reader, error)
	r    io.Reader
}

func (l *lateReader) Read(p []byte) (int, error) {
	if l.r == nil {
		r, err := l.read()
		if err != nil {
			return 0, err
		}
		l.r = r
	}
	return l.r.Read(p)
}

func handshakeSecret(ctx context.Context, e *Env) error {
	secret := e.Token()
	t := untilCounted(strings.NewReader(secret + "\n"))
	b, err := e.heeds(ctx, t)
	if err != nil {
		return err
	}
	c, err := e.Runtime.InspectContainer(ctx, b.ID)
	if err != nil {
		return err
	}
	list, err := e.Runtime.ListContainers(ctx, runtime.Filter{Labels: e.Labels()})
	if err != nil {
		return err
	}
	// What the process says may be in its log a moment after it has been heard.
	var logs Output
	err = poll(ctx, patience, func(ctx context.Context) error {
		if logs, err = b.Logs(ctx); err != nil {
			return err
		}
		return check(strings.HasPrefix(logs.Stderr, "listening\n{"), "expected what the process said in its log, got %q", logs.Stderr)
	})
	if err != nil {
		return err
	}
	if text := fmt.Sprintf("%+v %+v %+v %+v", b.Container, c, list, logs); strings.Contains(text, secret) {
		return failed("expected the engine to record nothing of the input, got %s", text)
	}
	return nil
}

// noneLeft checks that a container is gone.
func (e *Env) noneLeft(ctx context.Context, name string) error {
	_, err := e.Runtime.InspectContainer(context.WithoutCancel(ctx), name)
	return kind(err, errdefs.IsNotFound, "NotFound", "inspecting what failed to run")
}

// runFails runs what is not to run, and returns why it did not.
func (e *Env) runFails(ctx context.Context, spec runtime.ContainerSpec) error {
	e.Fill(&spec)
	c, err := e.Runtime.Run(ctx, spec)
	if err == nil {
		return errors.Join(failed("expected Run to fail"), e.Runtime.RemoveContainer(ctx, c.ID))
	}
	if left := e.noneLeft(ctx, spec.Name); left != nil {
		return left
	}
	return &expectedError{err}
}

// expectedError is one that a test wants to look at.
type expectedError struct{ error }

func (e *expectedError) Unwrap() error { return e.error }

// isExpected tells the error that runFails has seen from one of its own.
func isExpected(err error) bool {
	var want *expectedError
	return errors.As(err, &want)
}

func handshakeEnded(ctx context.Context, e *Env) error {
	for what, c := range map[string]struct {
		command []string
		input   io.Reader
		status  int
		last    string
	}{
		"it reads nothing of little": {[]string{"both", "x", "last words"}, strings.NewReader("little"), 0, "last words"},
		"it reads nothing of much":   {[]string{"both", "x", "last words"}, probe.Pattern(8 << 20), 0, "last words"},
		"its status":                 {[]string{"exit", "3"}, strings.NewReader(""), 3, ""},
		"it reads all":               {[]string{"cat"}, strings.NewReader("all"), 0, ""},
	} {
		t := newTalk(c.input, "never")
		err := e.runFails(ctx, runtime.ContainerSpec{Command: c.command, Handshake: &t.Handshake})
		if !isExpected(err) {
			return failed("%s: %w", what, err)
		}
		var ended *runtime.EndedError
		if !errors.As(err, &ended) || ended.Status.Code != c.status || !errdefs.IsFailedPrecondition(err) {
			return failed("%s: expected FailedPrecondition with status %d, got: %w", what, c.status, err)
		}
		if said := strings.Join(t.said(), "\n"); said != c.last {
			return failed("%s: expected its last words, %q, got %q", what, c.last, said)
		}
	}
	return nil
}

var errNo = errors.New("the answer is no")

func handshakeRefused(ctx context.Context, e *Env) error {
	h := &runtime.Handshake{Input: strings.NewReader("please"), Answer: func(line []byte) (bool, error) {
		if strings.HasPrefix(string(line), "{") {
			return false, errNo
		}
		return false, nil
	}}
	err := e.runFails(ctx, runtime.ContainerSpec{Command: []string{"heed"}, Handshake: h})
	return check(isExpected(err) && errors.Is(err, errNo), "expected the answer to be the error, got: %v", err)
}

var errInput = errors.New("the input fails")

func handshakeFails(ctx context.Context, e *Env) error {
	var failing io.Reader = &lateReader{read: func() (io.Reader, error) { return nil, errInput }}
	t := untilCounted(io.MultiReader(strings.NewReader("the first half"), failing))
	err := e.runFails(ctx, runtime.ContainerSpec{Command: []string{"heed"}, Handshake: &t.Handshake})
	if !isExpected(err) || !errors.Is(err, errInput) {
		return failed("expected the error of the input, got: %w", err)
	}
	for _, line := range t.said() {
		if strings.HasPrefix(line, "{") {
			return failed("expected the process to see no end, got %q", line)
		}
	}
	return nil
}

var errEnough = errors.New("that is enough")

func handshakeCancelled(ctx context.Context, e *Env) error {
	never, w := io.Pipe()
	defer func() { _ = w.Close() }()
	for what, c := range map[string]struct {
		command []string
		input   io.Reader
	}{
		"the input waits":               {[]string{"heed"}, never},
		"the process waits":             {[]string{"sleep"}, strings.NewReader("")},
		"the process reads nothing":     {[]string{"sleep"}, probe.Pattern(8 << 20)},
		"the process never says enough": {[]string{"heed"}, strings.NewReader("x")},
	} {
		t := newTalk(c.input, "never")
		bounded, cancel := context.WithCancelCause(ctx)
		started := &lateReader{read: func() (io.Reader, error) {
			time.AfterFunc(300*time.Millisecond, func() { cancel(errEnough) })
			return c.input, nil
		}}
		t.Input = started
		err := e.runFails(bounded, runtime.ContainerSpec{Command: c.command, Handshake: &t.Handshake})
		cancel(nil)
		if !isExpected(err) || !errors.Is(err, errEnough) {
			return failed("%s: expected the end of the context, got: %w", what, err)
		}
	}
	return nil
}

func handshakeInvalid(ctx context.Context, e *Env) error {
	whole := untilCounted(strings.NewReader("")).Handshake
	for what, spec := range map[string]runtime.ContainerSpec{
		"without an input":  {Handshake: &runtime.Handshake{Answer: whole.Answer}},
		"without an answer": {Handshake: &runtime.Handshake{Input: whole.Input}},
		"with a terminal":   {Handshake: &whole, TTY: true},
		"without an init":   {Handshake: &whole, NoInit: true},
	} {
		err := e.runFails(ctx, spec)
		if !isExpected(err) {
			return err
		}
		if err := kind(err, errdefs.IsInvalidArgument, "InvalidArgument", what); err != nil {
			return err
		}
	}
	return nil
}
