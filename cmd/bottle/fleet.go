package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/bottle-run/bottle/core"
)

const (
	// maxFleet is the most that --count takes.
	maxFleet = 200
	// launchesAtOnce is how many bottles of a fleet are brought up at a time: more only
	// makes each of them wait longer for the engine.
	launchesAtOnce = 4
	// maxPrefixed is where a line is cut that has no end.
	maxPrefixed = 64 << 10
)

// fleet launches one plan several times, by names that end with -1, -2, and so on. Each
// bottle has its own networks, sidecars and certificates; the secrets are those that were read
// once. One that fails does not end the others. The error is that of the first that
// failed or ended with a status other than 0, by number; the others' are told.
func (f *factory) fleet(opts runOptions, plan core.Plan, launch func(g *factory, plan core.Plan) error) error {
	width := len(fmt.Sprint(opts.Count))
	out, errs := &sharedWriter{out: f.io.Stdout}, &sharedWriter{out: f.io.Stderr}
	failed := make([]error, opts.Count)
	gate := make(chan struct{}, launchesAtOnce)
	var running sync.WaitGroup
	for i := range opts.Count {
		p := plan
		p.Name.Base = fmt.Sprintf("%s-%d", plan.Name.Base, i+1)
		prefix := fmt.Sprintf("%s-%-*d | ", plan.Name.Base, width, i+1)
		stdout, stderr := &prefixed{shared: out, prefix: prefix}, &prefixed{shared: errs, prefix: prefix}
		if opts.Detach {
			stdout.prefix = "" // it prints its name, for a script
		}
		if f.globals.JSON {
			stderr.prefix = "" // what bottle says are JSON lines
		}
		g := *f
		g.io = &streams{Stdin: strings.NewReader(""), Stdout: stdout, Stderr: stderr}
		g.fleetName, g.launching = p.Name.Base, gate
		running.Go(func() {
			failed[i] = launch(&g, p)
			stdout.flush()
			stderr.flush()
		})
	}
	running.Wait()
	var first error
	for i, err := range failed {
		switch code, kind := 0, ""; {
		case err == nil:
		case first == nil:
			first = err
		default:
			if _, status := err.(statusError); !status { //nolint:errorlint // it is never wrapped
				code, kind = exitCode(err)
				f.io.fail(fmt.Errorf("bottle %s-%d: %w", plan.Name.Base, i+1, err), kind, code, f.globals.JSON)
			}
		}
	}
	return first
}

// checkFleet refuses a number of bottles and names that cannot be.
func checkFleet(count int, name core.Name) error {
	if count < 1 || count > maxFleet {
		return usageErrorf("--count %d: it is a number from 1 to %d", count, maxFleet)
	}
	return core.CheckName(fmt.Sprintf("%s-%d", name.Base, count))
}

// fleetEvent is an event of one bottle of several.
type fleetEvent struct {
	Bottle string `json:"bottle"`
	core.Event
}

// fleetObserver shows the progress of one bottle of several.
func (f *factory) fleetObserver() core.Observer {
	if f.globals.JSON {
		shared := f.io.Stderr.(*prefixed).shared
		return func(e core.Event) {
			if line, err := json.Marshal(fleetEvent{f.fleetName, e}); err == nil {
				shared.write(append(line, '\n'))
			}
		}
	}
	return plain{f.io.Stderr}.observe
}

// sharedWriter is written to by several, a whole line at a time.
type sharedWriter struct {
	mu  sync.Mutex
	out io.Writer
}

func (s *sharedWriter) write(line []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _ = s.out.Write(line) // there is nobody to tell
}

// prefixed begins each line with who says it.
type prefixed struct {
	shared *sharedWriter
	prefix string

	mu   sync.Mutex
	rest []byte
}

func (p *prefixed) Write(data []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(data)
	for len(data) > 0 {
		line, rest, ended := bytes.Cut(data, []byte("\n"))
		room := maxPrefixed - len(p.rest)
		if len(line) > room {
			line, rest, ended = data[:room], data[room:], true
		}
		p.rest, data = append(p.rest, line...), rest
		if ended {
			p.line()
		}
	}
	return n, nil
}

// line writes what is there as a line.
func (p *prefixed) line() {
	p.shared.write(append(append([]byte(p.prefix), p.rest...), '\n'))
	p.rest = p.rest[:0]
}

// flush writes a last line that has no end.
func (p *prefixed) flush() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rest) > 0 {
		p.line()
	}
}

// enter waits for a turn to launch, if there is more than one bottle.
func (f *factory) enter(sig *signals) (leave func(), err error) {
	if f.launching == nil {
		return func() {}, nil
	}
	select {
	case f.launching <- struct{}{}:
		return sync.OnceFunc(func() { <-f.launching }), nil
	case <-sig.work.Done():
		return nil, interruptedOr(sig.work, nil)
	}
}
