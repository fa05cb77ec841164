package secrets

import (
	"io"
	"sync"

	"github.com/bottle-run/bottle/sidecar/internal/match"
)

// holdFrom is how many bytes of the beginning of a value have to stand at the end of
// what was read so far for them to be held back until more is read. Below it they go
// through: a stream must not wait because of a letter.
const holdFrom = 4

// Masker hides values. It is immutable; a nil one hides nothing.
type Masker struct {
	automaton *match.Automaton
	lengths   []int
}

// NewMasker makes a masker for values. Those shorter than [MinLength] are not hidden.
func NewMasker(values ...Value) *Masker {
	m := &Masker{}
	var needles [][]byte
	for _, v := range values {
		for _, f := range Forms(v) {
			needles = append(needles, f)
			m.lengths = append(m.lengths, len(f))
		}
	}
	if len(needles) == 0 {
		return nil
	}
	m.automaton = match.New(needles, false)
	return m
}

// String returns a text with the values in it replaced by asterisks.
func (m *Masker) String(s string) string {
	if m == nil {
		return s
	}
	var st match.State
	var b []byte
	text := []byte(s)
	for i := 0; i < len(text); {
		n, next := m.automaton.Next(st, text[i:])
		i, st = i+n, next
		for _, id := range m.automaton.Found(st) {
			if b == nil {
				b = []byte(s) // the search goes on in what it was
			}
			hide(b[i-m.lengths[id] : i])
		}
	}
	if b == nil {
		return s
	}
	return string(b)
}

func hide(b []byte) {
	for i := range b {
		b[i] = '*'
	}
}

// Reader returns a reader of what src yields with the values hidden. At most the
// length of a form is held back, and only while it may be one.
func (m *Masker) Reader(src io.Reader) io.Reader {
	if m == nil {
		return src
	}
	return &maskReader{m: m, src: src}
}

// buffers are used again: what they hold has been read, with the values hidden or not
// values at all.
var buffers = sync.Pool{New: func() any { b := make([]byte, maskBuffer); return &b }}

const maskBuffer = 32 << 10

type maskReader struct {
	m     *Masker
	src   io.Reader
	state match.State
	buf   []byte
	ready int // bytes of buf that may be read
	out   int // bytes of buf that were read
	err   error
	own   *[]byte // of the pool, where buf is unless it has grown
}

func (r *maskReader) Read(p []byte) (int, error) {
	for r.out == r.ready {
		if r.err != nil {
			if r.own != nil {
				buffers.Put(r.own)
				r.own, r.buf, r.out, r.ready = nil, nil, 0, 0
			}
			return 0, r.err
		}
		if r.own == nil {
			r.own = buffers.Get().(*[]byte)
			r.buf = (*r.own)[:0]
		}
		r.fill()
	}
	n := copy(p, r.buf[r.out:r.ready])
	r.out += n
	return n, nil
}

func (r *maskReader) fill() {
	held := copy(r.buf[:cap(r.buf)], r.buf[r.out:])
	if held == cap(r.buf) {
		// Only a form longer than the buffer could be held back that far.
		r.buf = append(r.buf[:held], make([]byte, held)...)
	}
	buf := r.buf[:cap(r.buf)]
	n, err := r.src.Read(buf[held:])
	r.buf, r.out = buf[:held+n], 0
	for i := held; i < len(r.buf); {
		n, state := r.m.automaton.Next(r.state, r.buf[i:])
		i, r.state = i+n, state
		for _, id := range r.m.automaton.Found(r.state) {
			// Less than holdFrom bytes of the beginning may be gone already.
			hide(r.buf[max(0, i-r.m.lengths[id]):i])
		}
	}
	r.ready = len(r.buf)
	if depth := r.m.automaton.Pending(r.state); err == nil && depth >= holdFrom {
		r.ready = max(0, r.ready-depth)
	}
	r.err = err
}
