package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/trace"
	"github.com/bottle-run/bottle/runtime"
)

// tracing is what --trace and --timings ask for. Nil, which is what they are without, it
// costs nothing.
type tracing struct {
	rec     *trace.Recorder
	file    *os.File  // nil without --trace
	timings io.Writer // nil without --timings
}

// programBegan is about when this process did.
var programBegan = time.Now()

// tracing begins a record, if one is asked for. That the file cannot be written is known
// before anything is done.
func (f *factory) tracing(file string, timings bool) (*tracing, error) {
	if file == "" && !timings {
		return nil, nil
	}
	t := &tracing{rec: trace.New(programBegan)}
	if timings {
		t.timings = f.io.Stderr
	}
	if file != "" {
		var err error
		if t.file, err = os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600); err != nil {
			return nil, core.Errorf(core.KindInput, "--trace: %w", err)
		}
	}
	return t, nil
}

// span records a part of the run, until end is called.
func (t *tracing) span(name string) (end func()) {
	if t == nil {
		return func() {}
	}
	return t.rec.Span(name)
}

// runtime is rt with its calls recorded.
func (t *tracing) runtime(rt runtime.Runtime) runtime.Runtime {
	if t == nil {
		return rt
	}
	return t.rec.Runtime(rt)
}

// observer is next with the steps recorded.
func (t *tracing) observer(next core.Observer) core.Observer {
	if t == nil {
		return next
	}
	return t.rec.Observer(next)
}

// write writes what was asked for.
func (t *tracing) write() error {
	if t == nil {
		return nil
	}
	var errs []error
	if t.timings != nil {
		errs = append(errs, t.rec.WriteSummary(t.timings))
	}
	if t.file != nil {
		buffered := bufio.NewWriter(t.file)
		errs = append(errs, t.rec.WriteChrome(buffered), buffered.Flush(), t.file.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return core.Errorf(core.KindInput, "writing the trace: %w", err)
	}
	return nil
}
