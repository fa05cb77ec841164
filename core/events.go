package core

import (
	"errors"
	"sync"
	"time"

	"github.com/bottle-run/bottle/core/internal/graph"
)

// State is where a step is.
type State string

// The states that an [Event] tells of.
const (
	StateBegin  State = "begin"
	StateEnd    State = "end"
	StateFailed State = "failed"
	// StateStopped is the end of a step that was stopped because of another.
	StateStopped State = "stopped"
	// StateOutput is a line of output of a step that is running.
	StateOutput State = "output"
	// StateNote is something the user should know.
	StateNote State = "note"
)

// Event tells about the progress of a launch or a teardown.
type Event struct {
	Time  time.Time `json:"time"`
	State State     `json:"state"`
	// Step says what is done, in words ("build image").
	Step string `json:"step"`
	// Object is what it is done to, or empty.
	Object string `json:"object,omitempty"`
	// Teardown marks what belongs to clearing up.
	Teardown bool `json:"teardown,omitempty"`
	// Text is the line of output, the note, or what came of the step.
	Text string `json:"text,omitempty"`
	// Seconds is how long the step took.
	Seconds float64 `json:"seconds,omitempty"`
	Error   string  `json:"error,omitempty"`
	// Needs are the steps that had to be done before, at a step's begin.
	Needs []string `json:"-"`
}

// Observer is told about progress. Its calls do not overlap.
type Observer func(Event)

// reporter passes events on, one at a time.
type reporter struct {
	mu       *sync.Mutex
	observer Observer
	teardown bool
	// results are the texts of steps that have ended, by name.
	results map[string]string
}

func newReporter(o Observer) reporter {
	return reporter{mu: new(sync.Mutex), observer: o, results: map[string]string{}}
}

// forTeardown marks every event as one of the teardown.
func (r reporter) forTeardown() reporter {
	r.teardown = true
	return r
}

func (r reporter) send(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.observer == nil {
		return
	}
	e.Time, e.Teardown = time.Now(), r.teardown
	if e.State == StateEnd {
		e.Text = r.results[e.Step]
	}
	r.observer(e)
}

// Begin implements graph.Observer.
func (r reporter) Begin(s graph.Step) {
	r.send(Event{State: StateBegin, Step: s.Name, Object: s.Object, Needs: s.Needs})
}

// End implements graph.Observer.
func (r reporter) End(s graph.Step, elapsed time.Duration, err error) {
	e := Event{State: StateEnd, Step: s.Name, Object: s.Object, Seconds: elapsed.Seconds()}
	switch {
	case errors.Is(err, graph.ErrStopped):
		e.State = StateStopped
	case err != nil:
		e.State, e.Error = StateFailed, err.Error()
	}
	r.send(e)
}

func (r reporter) note(step, text string) {
	r.send(Event{State: StateNote, Step: step, Text: text})
}

// result says what came of a step; it is part of the event of its end.
func (r reporter) result(step, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.results[step] = text
}

// lines is a writer whose lines become events.
func (r reporter) lines(step string) *lineWriter {
	return &lineWriter{emit: func(line string) { r.send(Event{State: StateOutput, Step: step, Text: line}) }}
}

// lineWriter cuts what is written into lines. It is safe for concurrent use.
type lineWriter struct {
	mu   sync.Mutex
	rest []byte
	emit func(string)
}

// maxLine is where a line is cut that does not end.
const maxLine = 4096

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range p {
		if c == '\n' || c == '\r' || len(w.rest) >= maxLine {
			w.flush()
		}
		if c != '\n' && c != '\r' {
			w.rest = append(w.rest, c)
		}
	}
	return len(p), nil
}

func (w *lineWriter) flush() {
	if len(w.rest) > 0 {
		w.emit(string(w.rest))
		w.rest = w.rest[:0]
	}
}

// Close emits what came after the last newline.
func (w *lineWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flush()
	return nil
}
