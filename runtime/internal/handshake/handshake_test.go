package handshake

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// process is a Process whose two streams are pipes.
type process struct {
	Process
	stdin  *io.PipeReader
	stderr *io.PipeWriter
	exit   chan runtime.ExitStatus
}

func newProcess() *process {
	p := &process{exit: make(chan runtime.ExitStatus, 1)}
	errs, stderr := io.Pipe()
	p.stderr = stderr
	p.stdin, p.Input = io.Pipe()
	p.Errors = func(w io.Writer) error {
		_, err := io.Copy(w, errs)
		return err
	}
	p.Ended = func(ctx context.Context) (runtime.ExitStatus, error) {
		select {
		case s := <-p.exit:
			return s, nil
		case <-ctx.Done():
			return runtime.ExitStatus{}, context.Cause(ctx)
		}
	}
	return p
}

// runs does what the process does.
func (p *process) runs(f func() int) {
	go func() {
		code := f()
		_ = p.stderr.Close()
		p.exit <- runtime.ExitStatus{Code: code}
	}()
}

func (p *process) says(text string) { _, _ = io.WriteString(p.stderr, text) }

// until is an answer that keeps the lines, and is content with one.
func until(want string, lines *[]string) func([]byte) (bool, error) {
	return func(line []byte) (bool, error) {
		*lines = append(*lines, string(line))
		return string(line) == want, nil
	}
}

func TestTheInputArrivesAndItsEndIsSeen(t *testing.T) {
	p := newProcess()
	want := strings.Repeat("input ", 100_000)
	p.runs(func() int {
		p.says("starting\nwai")
		got, err := io.ReadAll(p.stdin)
		p.says("ting\n\n")
		if err == nil && string(got) == want {
			p.says("ready\nmore\n")
		}
		return 0
	})
	var lines []string
	err := Do(t.Context(), &runtime.Handshake{Input: strings.NewReader(want), Answer: until("ready", &lines)}, p.Process)
	if err != nil || !slices.Equal(lines, []string{"starting", "waiting", "", "ready"}) {
		t.Errorf("%q, %v", lines, err)
	}
}

func TestAProcessMayAnswerBeforeItsInputIsKnown(t *testing.T) {
	p := newProcess()
	p.runs(func() int { p.says("ready\n"); return 0 })
	never, w := io.Pipe()
	defer func() { _ = w.Close() }()
	var lines []string
	if err := Do(t.Context(), &runtime.Handshake{Input: never, Answer: until("ready", &lines)}, p.Process); err != nil {
		t.Error(err)
	}
}

func TestAProcessThatEndsBeforeItAnswersIsTold(t *testing.T) {
	for name, run := range map[string]func(*process) int{
		"without a word":  func(*process) int { return 3 },
		"in mid sentence": func(p *process) int { p.says("rea"); return 3 },
		"after reading":   func(p *process) int { _, _ = io.ReadAll(p.stdin); p.says("no\n"); return 3 },
	} {
		p := newProcess()
		p.runs(func() int { return run(p) })
		var lines []string
		err := Do(t.Context(), &runtime.Handshake{Input: strings.NewReader("x"), Answer: until("ready", &lines)}, p.Process)
		var ended *runtime.EndedError
		if !errors.As(err, &ended) || ended.Status.Code != 3 || !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "in mid sentence" && !slices.Equal(lines, []string{"rea"}) {
			t.Errorf("%s: the last line is lost: %q", name, lines)
		}
	}
	p := newProcess()
	p.Ended = func(context.Context) (runtime.ExitStatus, error) {
		return runtime.ExitStatus{}, runtime.Errorf(errdefs.ErrNotFound, "gone")
	}
	p.runs(func() int { return 0 })
	if err := Do(t.Context(), &runtime.Handshake{Input: strings.NewReader(""), Answer: until("ready", new([]string))}, p.Process); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("a container that is gone: %v", err)
	}
}

// failing is a reader that fails after some text.
type failing struct{ first io.Reader }

var errReader = errors.New("the reader's own")

func (f failing) Read(p []byte) (int, error) {
	n, err := f.first.Read(p)
	if err != nil {
		err = errReader
	}
	return n, err
}

func TestAnInputThatFailsIsNoEnd(t *testing.T) {
	p := newProcess()
	ended := make(chan error, 1)
	p.runs(func() int {
		_, err := io.ReadAll(p.stdin)
		ended <- err
		return 0
	})
	err := Do(t.Context(), &runtime.Handshake{Input: failing{strings.NewReader("half")}, Answer: until("ready", new([]string))}, p.Process)
	if !errors.Is(err, errReader) {
		t.Errorf("got %v", err)
	}
	select {
	case err := <-ended:
		t.Errorf("the process saw an end: %v", err)
	default:
	}
	_ = p.stdin.Close()
}

func TestAnAnswerThatIsNoIsTheError(t *testing.T) {
	p := newProcess()
	p.runs(func() int { p.says("no\nready\n"); return 0 })
	refused := errors.New("refused")
	var lines []string
	err := Do(t.Context(), &runtime.Handshake{Input: strings.NewReader(""), Answer: func(line []byte) (bool, error) {
		lines = append(lines, string(line))
		return true, refused
	}}, p.Process)
	if !errors.Is(err, refused) || !slices.Equal(lines, []string{"no"}) {
		t.Errorf("%q, %v", lines, err)
	}
}

func TestStreamsThatBreakAreTold(t *testing.T) {
	p := newProcess()
	broken := errors.New("broken")
	p.Errors = func(io.Writer) error { return broken }
	if err := Do(t.Context(), &runtime.Handshake{Input: strings.NewReader(""), Answer: until("ready", new([]string))}, p.Process); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

func TestItEndsWithItsContextWhateverWaits(t *testing.T) {
	never, w := io.Pipe()
	defer func() { _ = w.Close() }()
	for name, input := range map[string]io.Reader{"the input": never, "the process": strings.NewReader(strings.Repeat("x", 1<<20))} {
		p := newProcess()
		ctx, cancel := context.WithCancelCause(t.Context())
		because := errors.New("because")
		calls := 0
		var late io.Writer
		p.Errors = func(w io.Writer) error {
			late = w
			cancel(because)
			<-t.Context().Done() // long after
			return nil
		}
		err := Do(ctx, &runtime.Handshake{Input: input, Answer: func([]byte) (bool, error) { calls++; return true, nil }}, p.Process)
		if !errors.Is(err, because) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := io.WriteString(late, "ready\n"); err == nil || calls != 0 {
			t.Errorf("%s: it answered when it had returned: %v, %d", name, err, calls)
		}
		_ = p.stdin.Close()
	}
}

func TestOfALongLineTheBeginningIsTold(t *testing.T) {
	p := newProcess()
	p.runs(func() int { p.says(strings.Repeat("x", 3*runtime.MaxAnswer) + "\nready\n"); return 0 })
	var lines []string
	if err := Do(t.Context(), &runtime.Handshake{Input: strings.NewReader(""), Answer: until("ready", &lines)}, p.Process); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 2 || len(lines[0]) != runtime.MaxAnswer {
		t.Errorf("%d lines, the first has %d bytes", len(lines), len(lines[0]))
	}
}
