// Package logstamp takes the times off the frames of an engine's log stream. Engines that are
// asked for timestamps put one, and a space, at the beginning of every frame.
package logstamp

import (
	"bytes"
	"io"
	"time"
)

// Writer passes on what it is given, without the timestamp that each frame begins with, after it
// has told stamp that time. A frame has to come in one Write. One that begins with no timestamp is
// passed on as it is.
func Writer(w io.Writer, stamp func(time.Time)) io.Writer {
	if w == nil {
		w = io.Discard
	}
	return &writer{w, stamp}
}

type writer struct {
	w     io.Writer
	stamp func(time.Time)
}

// maxStamp is longer than any timestamp, in bytes.
const maxStamp = 64

func (w *writer) Write(p []byte) (int, error) {
	cut := 0
	if i := bytes.IndexByte(p[:min(len(p), maxStamp)], ' '); i > 0 {
		if t, err := time.Parse(time.RFC3339Nano, string(p[:i])); err == nil {
			w.stamp(t)
			cut = i + 1
		}
	}
	n, err := w.w.Write(p[cut:])
	return n + cut, err
}
