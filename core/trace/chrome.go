package trace

import (
	"encoding/json"
	"io"
	"strings"
	"time"
)

// event is one of the Chrome trace event format, as Perfetto and chrome://tracing read it.
type event struct {
	Name     string         `json:"name"`
	Category string         `json:"cat,omitempty"`
	Phase    string         `json:"ph"`
	Time     float64        `json:"ts"` // µs
	Duration *float64       `json:"dur,omitempty"`
	Process  int            `json:"pid"`
	Thread   int            `json:"tid"`
	Args     map[string]any `json:"args,omitempty"`
}

// lanes puts what lasts onto as few lines as it needs, so that on each line things follow
// each other.
type lanes struct {
	ends  []time.Time
	first int
}

func (l *lanes) take(start, end time.Time) int {
	for i, free := range l.ends {
		if !start.Before(free) {
			l.ends[i] = end
			return l.first + i
		}
	}
	l.ends = append(l.ends, end)
	return l.first + len(l.ends) - 1
}

// Lines of the viewer: the steps, each with its calls below it.
const (
	firstStep = 1
	firstCall = 1001
)

// WriteChrome writes the record in the Chrome trace event format.
func (r *Recorder) WriteChrome(w io.Writer) error {
	rec := r.record()
	at := func(t time.Time) float64 { return float64(t.Sub(rec.begun).Nanoseconds()) / 1e3 }
	lasting := func(start, end time.Time) *float64 {
		d := float64(end.Sub(start).Nanoseconds()) / 1e3
		return &d
	}
	events := []event{{Name: "process_name", Phase: "M", Process: 1, Args: map[string]any{"name": "bottle"}}}
	steps := lanes{first: firstStep}
	place := map[*span]int{}
	for _, s := range rec.spans {
		lane := steps.take(s.start, s.end)
		place[s] = lane
		e := event{Name: strings.TrimSpace(s.name + " " + s.object), Category: "step", Phase: "X", Time: at(s.start), Duration: lasting(s.start, s.end), Process: 1, Thread: lane, Args: map[string]any{}}
		if !s.step {
			e.Category = "run"
		}
		if s.teardown {
			e.Category = "teardown"
		}
		if s.critical {
			e.Category += ",critical path"
			e.Args["critical path"] = true
		}
		if len(s.needs) > 0 {
			e.Args["needs"] = s.needs
		}
		if s.outcome != "" {
			e.Args["outcome"] = s.outcome
		}
		events = append(events, e)
	}
	// Calls of a step that follow each other are shown below it; others on lines of their own.
	below := map[*span]time.Time{}
	calls := lanes{first: firstCall}
	for _, c := range rec.calls {
		lane := place[c.in]
		if c.in == nil || c.start.Before(below[c.in]) || c.end.After(c.in.end) {
			lane = calls.take(c.start, c.end)
		} else {
			below[c.in] = c.end
		}
		e := event{Name: strings.TrimSpace(c.Method + " " + c.Object), Category: "engine", Phase: "X", Time: at(c.start), Duration: lasting(c.start, c.end), Process: 1, Thread: lane, Args: map[string]any{}}
		if c.in != nil {
			e.Args["step"] = c.in.name
		}
		if c.Detail != "" {
			e.Args["detail"] = c.Detail
		}
		if c.Bytes > 0 {
			e.Args["bytes"] = c.Bytes
		}
		if c.Failed != "" {
			e.Args["failed"] = c.Failed
		}
		events = append(events, e)
	}
	for i := range steps.ends {
		events = append(events, event{Name: "thread_name", Phase: "M", Process: 1, Thread: firstStep + i, Args: map[string]any{"name": "steps"}})
	}
	for i := range calls.ends {
		events = append(events, event{Name: "thread_name", Phase: "M", Process: 1, Thread: firstCall + i, Args: map[string]any{"name": "engine calls"}})
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", " ")
	return enc.Encode(map[string]any{"displayTimeUnit": "ms", "traceEvents": events})
}
