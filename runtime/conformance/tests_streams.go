package conformance

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	goruntime "runtime"
	"sync"
	"time"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

// streamBytes is what the streams of the issue carry, and streamMemory what this
// process may need meanwhile.
const (
	streamBytes  = 200 << 20
	streamMemory = 48 << 20
)

var streamTests = []Test{
	{
		Name: "stream/200-mb-through-stdin", Timeout: 2 * DefaultTimeout,
		Doc: "200 MB go through stdin of an exec, unharmed, in constant memory.",
		Run: streamIn,
	},
	{
		Name: "stream/200-mb-through-stdout", Timeout: 2 * DefaultTimeout,
		Doc: "200 MB come through stdout of an exec, unharmed, in constant memory.",
		Run: streamOut,
	},
	{
		Name: "stream/slow-reader",
		Doc:  "A reader that is slow holds the process back; nothing is lost and nothing piles up.",
		Run:  streamSlow,
	},
}

// bounded runs f and fails if the heap grows by more than limit meanwhile.
func bounded(limit uint64, f func() error) error {
	goruntime.GC()
	var m goruntime.MemStats
	goruntime.ReadMemStats(&m)
	base, peak := m.HeapAlloc, uint64(0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				goruntime.ReadMemStats(&m)
				peak = max(peak, m.HeapAlloc)
			}
		}
	})
	err := f()
	close(stop)
	wg.Wait()
	if err == nil && peak > base && peak-base > limit {
		err = failed("expected constant memory, at most %d MiB more, got %d MiB more", limit>>20, (peak-base)>>20)
	}
	return err
}

func patternSum(n int64) string {
	sum := sha256.New()
	_, _ = io.Copy(sum, probe.Pattern(n)) // neither fails
	return hex.EncodeToString(sum.Sum(nil))
}

func streamIn(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	return bounded(streamMemory, func() error {
		out, err := b.ExecOf(ctx, runtime.ExecSpec{Command: []string{probe.Path, "count"}, Stdin: probe.Pattern(streamBytes)})
		if err != nil {
			return err
		}
		var got probe.Count
		if err := json.Unmarshal([]byte(out.Stdout), &got); err != nil {
			return failed("expected a count, got %q %q", out.Stdout, out.Stderr)
		}
		want := probe.Count{Bytes: streamBytes, SHA256: patternSum(streamBytes)}
		return check(got == want, "expected %+v to arrive, got %+v", want, got)
	})
}

// counter counts and sums what is written to it.
type counter struct {
	n   int64
	sum interface {
		io.Writer
		Sum([]byte) []byte
	}
	slow time.Duration
}

func newCounter() *counter { return &counter{sum: sha256.New()} }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	if c.slow > 0 {
		time.Sleep(c.slow) // the slow reader itself
	}
	return c.sum.Write(p)
}

func (c *counter) count() probe.Count {
	return probe.Count{Bytes: c.n, SHA256: hex.EncodeToString(c.sum.Sum(nil))}
}

func streamOut(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	return bounded(streamMemory, func() error { return b.generates(ctx, streamBytes, 0) })
}

// generates has the container write n bytes to stdout and compares.
func (b *Box) generates(ctx context.Context, n int64, slow time.Duration) error {
	c := newCounter()
	c.slow = slow
	out, err := b.ExecOf(ctx, runtime.ExecSpec{Command: []string{probe.Path, "gen", fmt.Sprint(n)}, Stdout: c})
	if err != nil {
		return err
	}
	want := probe.Count{Bytes: n, SHA256: patternSum(n)}
	return check(out.Code == 0 && c.count() == want, "expected %+v and exit status 0, got %+v and %d %s", want, c.count(), out.Code, out.Stderr)
}

func streamSlow(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	return bounded(16<<20, func() error { return b.generates(ctx, 8<<20, time.Millisecond) })
}
