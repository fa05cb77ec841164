package main

import (
	"io"
	"sync"
)

// relay hands one input to several readers, one after the other: a reader that is released
// takes nothing more, so that what comes next is read by who follows it.
type relay struct {
	in     io.Reader
	begin  sync.Once
	chunks chan []byte
	ended  chan struct{}
	err    error // valid when ended is closed

	mu   sync.Mutex
	rest []byte
}

func newRelay(in io.Reader) *relay {
	return &relay{in: in, chunks: make(chan []byte), ended: make(chan struct{})}
}

// pump reads until the input's end. Its goroutine ends with the process if there is none.
func (r *relay) pump() {
	defer close(r.ended)
	for {
		p := make([]byte, 4096)
		n, err := r.in.Read(p)
		if n > 0 {
			r.chunks <- p[:n]
		}
		if err != nil {
			r.err = err
			return
		}
	}
}

// reader returns the next reader, and what releases it.
func (r *relay) reader() (in io.Reader, release func()) {
	released := make(chan struct{})
	return &relayed{r, released}, sync.OnceFunc(func() { close(released) })
}

type relayed struct {
	*relay
	released chan struct{}
}

// Read reads what came, or the end when it is released.
func (r *relayed) Read(p []byte) (int, error) {
	r.begin.Do(func() { go r.pump() })
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.released:
		return 0, io.EOF
	default:
	}
	if len(r.rest) == 0 {
		select {
		case <-r.released:
			return 0, io.EOF
		case r.rest = <-r.chunks:
		case <-r.ended:
			return 0, r.err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}
