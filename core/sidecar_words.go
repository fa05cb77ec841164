package core

import (
	"bytes"
	"context"
	"strings"
	"sync"

	"github.com/bottle-run/bottle/runtime"
)

// How much of what a sidecar said last is shown.
const (
	maxLastLines = 20
	maxLastWords = 16 << 10 // bytes
	maxLastLine  = 500      // characters
)

// lastWords are the last lines of a container's log about itself, escaped; if there are
// none, the last that it wrote at all. What cannot be read is none.
func lastWords(ctx context.Context, rt runtime.Runtime, container string) []string {
	out, own := &tailBuffer{max: maxLastWords}, &tailBuffer{max: maxLastWords}
	_ = rt.Logs(ctx, container, runtime.LogOptions{Tail: 1000, Stdout: out, Stderr: own})
	if lines := own.lines(); len(lines) > 0 {
		return lines
	}
	return out.lines()
}

// saidText words the last lines as the end of a message.
func saidText(lines []string) string {
	if len(lines) == 0 {
		return "; it has said nothing"
	}
	return "; the last that it said:\n  " + strings.Join(lines, "\n  ")
}

// tailBuffer keeps the end of what is written. It is safe for concurrent use.
type tailBuffer struct {
	max int

	mu   sync.Mutex
	data []byte
	cut  bool
}

func (b *tailBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	if extra := len(b.data) - b.max; extra > 0 {
		b.data, b.cut = append(b.data[:0], b.data[extra:]...), true
	}
	return len(p), nil
}

// lines are the last ones, whole as far as they are not too long, and escaped.
func (b *tailBuffer) lines() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	data := b.data
	if b.cut {
		// The first line that is left has lost its beginning.
		if i := bytes.IndexByte(data, '\n'); i >= 0 {
			data = data[i+1:]
		}
	}
	var lines []string
	for line := range strings.SplitSeq(strings.TrimSpace(string(data)), "\n") {
		if line = escaped(strings.TrimRight(line, "\r")); line != "" {
			lines = append(lines, line)
		}
	}
	return lines[max(0, len(lines)-maxLastLines):]
}
