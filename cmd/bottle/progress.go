package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"

	"github.com/bottle-run/bottle/core"
)

// observer shows progress on standard error: as JSON lines, as lines, or on a
// terminal with one line at the bottom that says what is going on now.
func (f *factory) observer() (observe core.Observer, done func()) {
	switch {
	case f.fleetName != "":
		return f.fleetObserver(), func() {}
	case f.globals.JSON:
		enc := json.NewEncoder(f.io.Stderr)
		return func(e core.Event) { _ = enc.Encode(e) }, func() {}
	case f.io.Screen:
		s := &screen{out: f.io.Stderr}
		return s.observe, s.clear
	}
	return plain{f.io.Stderr}.observe, func() {}
}

// plain writes a line for what has ended, and all output.
type plain struct{ out io.Writer }

func (p plain) observe(e core.Event) {
	if line := eventLine(e); line != "" {
		_, _ = fmt.Fprintln(p.out, line)
	}
}

// eventLine words an event, or is empty if it is not worth a line.
func eventLine(e core.Event) string {
	what := e.Step
	if e.Object != "" && e.State != core.StateOutput {
		what += " " + printable(e.Object)
	}
	switch e.State {
	case core.StateEnd:
		if e.Text != "" {
			what += ": " + printable(e.Text)
		}
		if e.Seconds >= 0.1 {
			what += fmt.Sprintf(" (%.1fs)", e.Seconds)
		}
		return what
	case core.StateFailed:
		return what + ": failed"
	case core.StateStopped:
		return what + ": stopped"
	case core.StateOutput:
		return "  " + printable(e.Text)
	case core.StateNote:
		return "note: " + printable(e.Text)
	}
	return ""
}

// screen keeps one line at the bottom of a terminal.
type screen struct {
	out     io.Writer
	running []string
	drawn   bool
	tail    []string
}

// keptOutput is how many last lines of a step's output are shown if it fails.
const keptOutput = 20

func (s *screen) observe(e core.Event) {
	key := e.Step
	switch e.State {
	case core.StateBegin:
		s.running = append(s.running, key)
		if e.Step == "prepare image" {
			s.tail = nil
		}
	case core.StateEnd, core.StateFailed, core.StateStopped:
		s.drop(key)
	case core.StateOutput:
		s.tail = append(s.tail, e.Text)
		if len(s.tail) > keptOutput {
			s.tail = s.tail[1:]
		}
		s.draw(key + ": " + e.Text)
		return
	}
	if line := eventLine(e); line != "" {
		s.clear()
		if e.State == core.StateFailed {
			for _, t := range s.tail {
				_, _ = fmt.Fprintln(s.out, "  "+printable(t))
			}
			s.tail = nil
		}
		mark := "\x1b[32m✓\x1b[0m "
		switch e.State {
		case core.StateFailed:
			mark = "\x1b[31m✗\x1b[0m "
		case core.StateNote, core.StateStopped:
			mark = "  "
		}
		_, _ = fmt.Fprintln(s.out, mark+line)
	}
	s.draw(strings.Join(s.running, ", "))
}

func (s *screen) drop(key string) {
	for i, k := range s.running {
		if k == key {
			s.running = append(s.running[:i:i], s.running[i+1:]...)
			return
		}
	}
}

// screenWidth is where the line at the bottom is cut, so that it never wraps.
const screenWidth = 76

func (s *screen) draw(text string) {
	s.clear()
	if text == "" {
		return
	}
	runes := []rune(printable(text))
	if len(runes) > screenWidth {
		runes = append(runes[:screenWidth-1], '…')
	}
	_, _ = fmt.Fprint(s.out, "\x1b[2m… "+string(runes)+"\x1b[0m")
	s.drawn = true
}

// clear removes the line at the bottom.
func (s *screen) clear() {
	if s.drawn {
		_, _ = fmt.Fprint(s.out, "\r\x1b[K")
		s.drawn = false
	}
}

// printable keeps control characters of other people's output off the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
