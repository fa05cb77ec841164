package builder

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"

	bkclient "github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

const (
	// tailLines and tailBytes bound the output that is kept of a step for its error.
	tailLines = 20
	tailBytes = 8 << 10
	// lineBytes is where a line without end is broken.
	lineBytes = 16 << 10

	internalPrefix = "[internal] "
	metadataPrefix = internalPrefix + "load metadata for "
)

// progress turns the solver's updates into lines, and remembers what an error has
// to tell. What steps write is shown without control characters: it is not to be
// trusted with the operator's terminal.
type progress struct {
	w     io.Writer
	steps map[digest.Digest]*step
	last  *step // whose line was written last
}

// step is a vertex of the build's graph.
type step struct {
	name           string
	started, ended bool
	failure        string
	pending        []byte // of a line that is not complete
	tail           []string
	size           int // of tail
}

func newProgress(w io.Writer) *progress {
	return &progress{w: writer(w), steps: map[digest.Digest]*step{}}
}

func (p *progress) find(d digest.Digest) *step {
	s := p.steps[d]
	if s == nil {
		s = &step{}
		p.steps[d] = s
	}
	return s
}

func (p *progress) update(u *bkclient.SolveStatus) {
	for _, v := range u.Vertexes {
		p.vertex(v)
	}
	for _, l := range u.Logs {
		p.output(p.find(l.Vertex), l.Data)
	}
	for _, w := range u.Warnings {
		p.line(nil, "warning: "+clean(string(w.Short)))
	}
}

func (p *progress) vertex(v *bkclient.Vertex) {
	s := p.find(v.Digest)
	s.name = clean(v.Name)
	if v.Error != "" {
		s.failure = v.Error
	}
	if strings.HasPrefix(s.name, internalPrefix) {
		return
	}
	if v.Started != nil && !s.started {
		s.started = true
		if !v.Cached {
			p.line(s, s.name)
		}
	}
	if v.Completed != nil && !s.ended {
		s.ended = true
		p.flush(s)
		if v.Cached {
			p.line(s, s.name+" (cached)")
		}
	}
}

// output takes a piece of what a step wrote.
func (p *progress) output(s *step, data []byte) {
	s.pending = append(s.pending, data...)
	for {
		end := bytes.IndexByte(s.pending, '\n')
		next := end + 1
		if end < 0 || end > lineBytes {
			if len(s.pending) < lineBytes {
				return
			}
			end, next = lineBytes, lineBytes
		}
		p.said(s, string(s.pending[:end]))
		s.pending = s.pending[next:]
	}
}

func (p *progress) flush(s *step) {
	if len(s.pending) > 0 {
		p.said(s, string(s.pending))
		s.pending = nil
	}
}

// finish writes what is left of lines without an end.
func (p *progress) finish() {
	for _, s := range p.steps {
		p.flush(s)
	}
}

// said takes a line of a step.
func (p *progress) said(s *step, line string) {
	line = clean(line)
	s.tail = append(s.tail, line)
	s.size += len(line)
	for len(s.tail) > tailLines || s.size > tailBytes && len(s.tail) > 1 {
		s.size -= len(s.tail[0])
		s.tail = s.tail[1:]
	}
	if p.last != s && s.name != "" {
		p.line(s, s.name+":")
	}
	p.line(s, line)
}

func (p *progress) line(s *step, text string) {
	p.last = s
	_, _ = fmt.Fprintln(p.w, text) // a writer that fails does not fail the build
}

// step tells the name of a step of the Dockerfile and the end of its output.
func (p *progress) step(id string) (name string, output []string, ok bool) {
	s := p.steps[digest.Digest(id)]
	if s == nil || s.name == "" || strings.HasPrefix(s.name, internalPrefix) {
		return "", nil, false
	}
	tail := s.tail
	for len(tail) > 0 && strings.TrimSpace(tail[len(tail)-1]) == "" {
		tail = tail[:len(tail)-1]
	}
	return s.name, tail, true
}

// missing tells which base image's metadata could not be had, if that is so.
func (p *progress) missing() (image string, ok bool) {
	for _, s := range p.steps {
		image, ok = strings.CutPrefix(s.name, metadataPrefix)
		// Others are cancelled because of the one that failed.
		if ok && s.failure != "" && !strings.Contains(s.failure, context.Canceled.Error()) {
			return image, true
		}
	}
	return "", false
}

// clean makes a line fit to be shown: what a carriage return overwrote is left out,
// and so are escape sequences and control characters.
func clean(line string) string {
	line = strings.TrimRight(line, "\r")
	line = line[strings.LastIndexByte(line, '\r')+1:]
	plain := true
	for i := range len(line) {
		if line[i] < ' ' && line[i] != '\t' || line[i] >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		return line
	}
	var b strings.Builder
	for i := 0; i < len(line); {
		if n := escape(line[i:]); n > 0 {
			i += n
			continue
		}
		r, n := utf8.DecodeRuneInString(line[i:])
		i += n
		switch {
		case r == '\t', !unicode.IsControl(r) && !unicode.Is(unicode.Bidi_Control, r):
			b.WriteRune(r)
		}
	}
	return b.String()
}

// escape is the length of the escape sequence that a string begins with, or 0.
func escape(s string) int {
	if s[0] != 0x1b {
		return 0
	}
	if len(s) == 1 {
		return 1
	}
	switch s[1] {
	case '[': // up to a letter or its like
		for i := 2; i < len(s); i++ {
			if s[i] >= 0x40 && s[i] <= 0x7e {
				return i + 1
			}
		}
		return len(s)
	case ']', 'P', 'X', '^', '_': // a string, up to its terminator
		for i := 2; i < len(s); i++ {
			if s[i] == 0x07 {
				return i + 1
			}
			if s[i] == 0x1b && i+1 < len(s) && s[i+1] == '\\' {
				return i + 2
			}
		}
		return len(s)
	}
	return 2
}
