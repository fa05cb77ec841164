package trace

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteSummary writes a table of the launch's steps and one of the teardown's: when each
// began, how long it took, and its calls of the engine. "*" marks the critical path: the
// chain of steps that the last one waited for.
func (r *Recorder) WriteSummary(w io.Writer) error {
	rec := r.record()
	var b strings.Builder
	for _, s := range rec.spans {
		if !s.step {
			fmt.Fprintf(&b, "%-40s %8s  at %s\n", s.name, millis(s.end.Sub(s.start)), millis(s.start.Sub(rec.begun)))
		}
	}
	rec.table(&b, "up", false)
	rec.table(&b, "down", true)
	_, err := io.WriteString(w, b.String())
	return err
}

func (rec record) table(b *strings.Builder, title string, teardown bool) {
	var steps []*span
	var first, last time.Time
	for _, s := range rec.spans {
		if !s.step || s.teardown != teardown {
			continue
		}
		if steps = append(steps, s); first.IsZero() || s.start.Before(first) {
			first = s.start
		}
		if s.end.After(last) {
			last = s.end
		}
	}
	if len(steps) == 0 {
		return
	}
	var n int
	var inside time.Duration
	calls := map[*span][]string{}
	for _, c := range rec.calls {
		if c.in == nil || c.in.teardown != teardown {
			continue
		}
		n++
		inside += c.end.Sub(c.start)
		text := c.Method + " " + millis(c.end.Sub(c.start))
		if c.Failed != "" {
			text += " (" + c.Failed + ")"
		}
		calls[c.in] = append(calls[c.in], text)
	}
	fmt.Fprintf(b, "%s: %s; %d engine calls, %s in them\n", title, millis(last.Sub(first)), n, millis(inside))
	fmt.Fprintf(b, "%8s %8s   %s\n", "began", "took", "step: engine calls")
	for _, s := range steps {
		mark := " "
		if s.critical {
			mark = "*"
		}
		line := strings.TrimSpace(s.name + " " + s.object)
		if len(calls[s]) > 0 {
			line += ": " + strings.Join(calls[s], ", ")
		}
		fmt.Fprintf(b, "%8s %8s %s %s\n", millis(s.start.Sub(first)), millis(s.end.Sub(s.start)), mark, line)
	}
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }
