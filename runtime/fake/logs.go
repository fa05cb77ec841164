package fake

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	"github.com/bottle-run/bottle/runtime"
)

// logs keeps what a container's process wrote.
type logs struct {
	mu      sync.Mutex
	records []record
	changed chan struct{} // closed and replaced at each change
	ended   bool
}

type record struct {
	at     time.Time
	stderr bool
	text   []byte
}

func newLogs() *logs { return &logs{changed: make(chan struct{})} }

// stream is a writer to one of the two streams.
type stream struct {
	logs   *logs
	stderr bool
}

func (s stream) Write(p []byte) (int, error) {
	s.logs.mu.Lock()
	defer s.logs.mu.Unlock()
	s.logs.records = append(s.logs.records, record{time.Now(), s.stderr, bytes.Clone(p)})
	s.logs.notify()
	return len(p), nil
}

func (l *logs) notify() {
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *logs) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.ended {
		l.ended = true
		l.notify()
	}
}

// Logs implements [runtime.Containers].
func (e *Engine) Logs(ctx context.Context, name string, opts runtime.LogOptions) error {
	const op = "read logs of container"
	if err := e.enter(ctx, "Logs", op, name); err != nil {
		return err
	}
	e.mu.Lock()
	c := e.container(name)
	e.mu.Unlock()
	if c == nil {
		return fail(op, name, notFound("container", name))
	}
	return fail(op, name, c.logs.write(ctx, opts))
}

func (l *logs) write(ctx context.Context, opts runtime.LogOptions) error {
	out := [2]io.Writer{opts.Stdout, opts.Stderr}
	for i := range out {
		if out[i] == nil {
			out[i] = io.Discard
		}
	}
	next, first := 0, true
	for {
		l.mu.Lock()
		records, changed, ended := l.records[next:], l.changed, l.ended
		next = len(l.records)
		l.mu.Unlock()
		records = since(records, opts.Since)
		if first && opts.Tail > 0 {
			records = tail(records, opts.Tail)
		}
		first = false
		for _, r := range records {
			w := out[0]
			if r.stderr {
				w = out[1]
			}
			if opts.Stamp != nil {
				opts.Stamp(r.at)
			}
			if _, err := w.Write(r.text); err != nil {
				return err
			}
		}
		if !opts.Follow || ended {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func since(records []record, t time.Time) []record {
	for len(records) > 0 && records[0].at.Before(t) {
		records = records[1:]
	}
	return records
}

// tail returns the last n lines, as records of their own.
func tail(records []record, n int) []record {
	var lines []record
	for _, r := range records {
		for line := range bytes.Lines(r.text) {
			if last := len(lines) - 1; last >= 0 && lines[last].stderr == r.stderr && !bytes.HasSuffix(lines[last].text, []byte("\n")) {
				lines[last].text = append(bytes.Clone(lines[last].text), line...)
				continue
			}
			lines = append(lines, record{r.at, r.stderr, line})
		}
	}
	return lines[max(0, len(lines)-n):]
}
