package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

var logTests = []Test{
	{
		Name: "logs/split",
		Doc:  "What the process wrote to stdout and stderr is kept apart, while it runs and when it has ended.",
		Run:  logsSplit,
	},
	{
		Name: "logs/exact",
		Doc:  "Lines come as they were written: empty ones, long ones, one without an end, 1 MiB in all.",
		Run:  logsExact,
	},
	{
		Name: "logs/follow",
		Doc:  "With Follow lines come as they are written, none is lost or doubled, and Logs returns when the process has ended.",
		Run:  logsFollow,
	},
	{
		Name: "logs/follow-until-removed",
		Doc:  "Following ends when the container is removed.",
		Run:  logsRemoved,
	},
	{
		Name: "logs/follow-until-cancelled",
		Doc:  "Following ends with its context, and says so.",
		Run:  logsCancelled,
	},
	{
		Name: "logs/tail",
		Doc:  "Tail gives the last lines.",
		Run:  logsTail,
	},
	{
		Name: "logs/since",
		Doc:  "Since leaves out what is older.",
		Run:  logsSince,
	},
	{
		Name: "logs/times",
		Doc:  "Stamp tells when each line was written, before it comes, and the lines stay as they are.",
		Run:  logsTimes,
	},
	{
		Name: "logs/with-a-terminal", Kernel: true,
		Doc: "With TTY everything is in Stdout.",
		Run: logsTTY,
	},
}

func logsSplit(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"both", "to stdout", "to stderr"}})
	if err != nil {
		return err
	}
	if _, err := e.Runtime.Wait(ctx, b.ID); err != nil {
		return err
	}
	out, err := b.Logs(ctx)
	if err != nil {
		return err
	}
	if out.Stdout != "to stdout\n" || out.Stderr != "to stderr\n" {
		return failed("expected one line on each stream, got %+v", out)
	}
	var stderr bytes.Buffer
	if err := e.Runtime.Logs(ctx, b.ID, runtime.LogOptions{Stderr: &stderr}); err != nil {
		return err
	}
	if stderr.String() != "to stderr\n" {
		return failed("stderr alone: expected its line, got %q", stderr.String())
	}
	return kind(e.Runtime.Logs(ctx, e.Name("missing"), runtime.LogOptions{}), errdefs.IsNotFound, "NotFound", "logs of a container that is not there")
}

func logsExact(ctx context.Context, e *Env) error {
	text := "first\n\n\n" + strings.Repeat("long ", 20000) + "\n  indented\t\nžluťoučký 🐎\nno end"
	for _, c := range []struct {
		command []string
		want    string
	}{
		{[]string{"print", text}, text},
		{[]string{"gen-text", fmt.Sprint(1 << 20)}, probe.Text(1 << 20)},
	} {
		out, err := e.Exited(ctx, runtime.ContainerSpec{Command: c.command})
		if err != nil {
			return err
		}
		if out.Stdout != c.want {
			return failed("%s: expected %d bytes as they were written, got %d: %s", c.command[0], len(c.want), len(out.Stdout), firstDifference(c.want, out.Stdout))
		}
	}
	return nil
}

func firstDifference(want, got string) string {
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			return fmt.Sprintf("at byte %d expected %.20q, got %.20q", i, want[i:], got[i:])
		}
	}
	return "one is the beginning of the other"
}

func numbered(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "line %d\n", i+1)
	}
	return b.String()
}

func logsFollow(ctx context.Context, e *Env) error {
	// It goes on until it is stopped: what is seen before that is seen as it is written.
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"lines", "100000", "50ms"}})
	if err != nil {
		return err
	}
	done := make(chan error, 2)
	follow := func() *lineWriter {
		w := &lineWriter{seen: make(chan struct{}), want: "line 5"}
		go func() { done <- e.Runtime.Logs(ctx, b.ID, runtime.LogOptions{Follow: true, Stdout: w}) }()
		return w
	}
	var followers [2]*lineWriter // the second begins in the middle
	for i := range followers {
		w := follow()
		select {
		case <-w.seen:
		case err := <-done:
			return failed("following ended early: %v, after %q", err, w.text())
		case <-time.After(patience):
			return failed("expected lines as they are written, got %q", w.text())
		}
		followers[i] = w
	}
	if err := e.Runtime.Stop(ctx, b.ID, 0); err != nil {
		return err
	}
	for range 2 {
		select {
		case err := <-done:
			if err != nil {
				return err
			}
		case <-time.After(patience):
			return failed("following went on after the end of the process")
		}
	}
	early, late := followers[0].text(), followers[1].text()
	return check(early == late && early == numbered(strings.Count(early, "\n")), "expected the same lines of both followers, got %q and %q", early, late)
}

func logsRemoved(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"lines", "1000", "50ms"}})
	if err != nil {
		return err
	}
	w := &lineWriter{seen: make(chan struct{}), want: "line 2"}
	done := make(chan error, 1)
	go func() { done <- e.Runtime.Logs(ctx, b.ID, runtime.LogOptions{Follow: true, Stdout: w}) }()
	select {
	case <-w.seen:
	case err := <-done:
		return failed("following ended early: %v", err)
	}
	if err := e.Runtime.RemoveContainer(ctx, b.ID); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return failed("following went on after the container had gone")
	}
}

func logsCancelled(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"lines", "1000", "50ms"}})
	if err != nil {
		return err
	}
	w := &lineWriter{seen: make(chan struct{}), want: "line 2"}
	logCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- e.Runtime.Logs(logCtx, b.ID, runtime.LogOptions{Follow: true, Stdout: w}) }()
	select {
	case <-w.seen:
	case err := <-done:
		return failed("following ended early: %v", err)
	}
	cancel()
	select {
	case err := <-done:
		return kind(err, func(err error) bool { return errors.Is(err, context.Canceled) }, "the context's error", "cancel following")
	case <-time.After(patience):
		return failed("following went on after its context had ended")
	}
}

func logsTail(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"lines", "20"}})
	if err != nil {
		return err
	}
	if _, err := e.Runtime.Wait(ctx, b.ID); err != nil {
		return err
	}
	for tail, want := range map[int]string{1: "line 20\n", 3: "line 18\nline 19\nline 20\n", 100: numbered(20), 0: numbered(20)} {
		var out bytes.Buffer
		if err := e.Runtime.Logs(ctx, b.ID, runtime.LogOptions{Tail: tail, Stdout: &out}); err != nil {
			return err
		}
		if out.String() != want {
			return failed("tail %d: expected %q, got %q", tail, want, out.String())
		}
	}
	return nil
}

func logsSince(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"lines", "3", "3s"}})
	if err != nil {
		return err
	}
	if _, err := e.Runtime.Wait(ctx, b.ID); err != nil {
		return err
	}
	var since time.Time
	read := runtime.LogOptions{Stdout: io.Discard, Stamp: func(t time.Time) {
		if since.IsZero() {
			// Between the first line and the second, also where an engine tells whole seconds.
			since = t.Add(1500 * time.Millisecond)
		}
	}}
	if err := e.Runtime.Logs(ctx, b.ID, read); err != nil {
		return err
	}
	var out bytes.Buffer
	if err := e.Runtime.Logs(ctx, b.ID, runtime.LogOptions{Since: since, Stdout: &out}); err != nil {
		return err
	}
	return check(out.String() == "line 2\nline 3\n", "expected the second and third line, got %q", out.String())
}

func logsTimes(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"lines", "3", "1500ms"}})
	if err != nil {
		return err
	}
	for _, follow := range []bool{true, false} {
		var times []time.Time
		var stamp time.Time
		out := writerFunc(func(p []byte) {
			if bytes.ContainsRune(p, '\n') {
				times = append(times, stamp)
			}
		})
		var text bytes.Buffer
		err := e.Runtime.Logs(ctx, b.ID, runtime.LogOptions{
			Follow: follow, Stdout: io.MultiWriter(out, &text), Stamp: func(t time.Time) { stamp = t },
		})
		if err != nil {
			return err
		}
		if text.String() != numbered(3) {
			return failed("expected the lines as they were written, got %q", text.String())
		}
		if len(times) != 3 {
			return failed("expected three writes, got %d", len(times))
		}
		// The process rests that long between its lines; an engine may tell whole seconds.
		if d := times[2].Sub(times[0]); times[0].IsZero() || times[1].Before(times[0]) || d < time.Second {
			return failed("expected times of which the last is a second after the first or more, got %v", times)
		}
	}
	return nil
}

// writerFunc is a writer that never fails.
type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

func logsTTY(ctx context.Context, e *Env) error {
	out, err := e.Exited(ctx, runtime.ContainerSpec{TTY: true, Command: []string{"both", "one", "two"}})
	if err != nil {
		return err
	}
	return check(out.Stdout == "one\r\ntwo\r\n" && out.Stderr == "", "expected everything in stdout, got %+v", out)
}
