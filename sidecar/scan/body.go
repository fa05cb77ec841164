package scan

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/bottle-run/bottle/sidecar/internal/deflate"
)

const (
	// maxRatio and bombFrom bound what a compressed body may grow to: beyond bombFrom
	// bytes no more than maxRatio for each byte that was sent.
	maxRatio = 300
	bombFrom = 8 << 20
)

// Body scans a request's body as it is read. When something is found, reading fails with
// the *[Finding], and what it was found in is not returned.
type Body struct {
	src    io.ReadCloser
	plain  *Stream
	unpack *unpacker
	// AtEnd, if set, is called when the body ends and before the end is told: trailers
	// are known then, and not yet sent.
	AtEnd func() *Finding

	mu      sync.Mutex
	finding *Finding
	buf     []byte
	ready   int
	out     int
	err     error
	count   int64
}

// Body returns a reader of src, on its way to a host. The encoding is the value of
// Content-Encoding; a body in an encoding that cannot be read is refused, unless no rule
// and no known value is looked for.
func (s *Scanner) Body(host, encoding string, src io.ReadCloser) (*Body, error) {
	b := &Body{src: src, plain: s.Stream(host)}
	if s.rules == nil && len(s.known) == 0 {
		b.plain = nil
		return b, nil
	}
	var kinds []string
	for kind := range strings.SplitSeq(encoding, ",") {
		switch kind = strings.ToLower(strings.TrimSpace(kind)); kind {
		case "", "identity":
		case "gzip", "x-gzip", "deflate":
			kinds = append(kinds, kind)
		default:
			return nil, &Finding{Rule: "encoding", Reason: fmt.Sprintf("the body is encoded as %q, which cannot be scanned: send it as gzip, deflate or plain", kind)}
		}
	}
	if len(kinds) > 1 {
		return nil, &Finding{Rule: "encoding", Reason: "the body is compressed more than once, which cannot be scanned"}
	}
	if len(kinds) == 1 {
		b.unpack = newUnpacker(kinds[0], s.Stream(host))
	}
	return b, nil
}

// Finding returns what was found, if anything.
func (b *Body) Finding() *Finding {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.finding
}

// Count returns how many bytes were read from the body so far.
func (b *Body) Count() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.count
}

func (b *Body) Read(p []byte) (int, error) {
	if b.plain == nil {
		n, err := b.src.Read(p)
		b.mu.Lock()
		b.count += int64(n)
		b.mu.Unlock()
		return n, err
	}
	for b.out == b.ready {
		if b.err != nil {
			return 0, b.err
		}
		b.fill()
	}
	n := copy(p, b.buf[b.out:b.ready])
	b.out += n
	return n, nil
}

func (b *Body) fill() {
	if b.buf == nil {
		b.buf = make([]byte, 0, maxFeed)
	}
	held := copy(b.buf[:cap(b.buf)], b.buf[b.out:])
	if held == cap(b.buf) {
		b.buf = append(b.buf[:held], make([]byte, held)...)
	}
	buf := b.buf[:cap(b.buf)]
	n, err := b.src.Read(buf[held:])
	b.buf, b.out = buf[:held+n], 0
	hold, f := b.plain.Feed(b.buf[held:])
	if f == nil && b.unpack != nil {
		f = b.unpack.feed(b.buf[held:], errors.Is(err, io.EOF))
	}
	if f == nil && b.AtEnd != nil && errors.Is(err, io.EOF) {
		f = b.AtEnd()
	}
	b.mu.Lock()
	b.count += int64(n)
	b.finding = f
	b.mu.Unlock()
	b.err = err
	if f != nil {
		b.ready, b.err = 0, f
		return
	}
	b.ready = len(b.buf)
	if err == nil {
		b.ready = max(0, b.ready-hold)
	}
}

// Close closes the body.
func (b *Body) Close() error {
	if b.unpack != nil {
		b.unpack.close()
	}
	return b.src.Close()
}

// unpacker decompresses what it is fed in a goroutine and scans the result. feed returns
// when all that was fed has been scanned.
type unpacker struct {
	stream *Stream
	in     chan feed
	idle   chan struct{} // all that was fed has been used up
	done   chan struct{}

	mu    sync.Mutex // between feed and close
	ended bool

	// The goroutine's own; f is anybody's once done is closed.
	cur     feed
	fed     int64
	started bool
	f       *Finding
}

type feed struct {
	p    []byte
	last bool
}

func newUnpacker(kind string, stream *Stream) *unpacker {
	u := &unpacker{stream: stream, in: make(chan feed), idle: make(chan struct{}), done: make(chan struct{})}
	go u.run(kind)
	return u
}

// Read is the decompressor's side.
func (u *unpacker) Read(p []byte) (int, error) {
	for len(u.cur.p) == 0 {
		if u.cur.last {
			return 0, io.EOF
		}
		if u.started {
			u.idle <- struct{}{}
		}
		u.started = true
		next, ok := <-u.in
		if !ok {
			return 0, io.EOF
		}
		u.cur = next
		u.fed += int64(len(next.p))
	}
	n := copy(p, u.cur.p)
	u.cur.p = u.cur.p[n:]
	return n, nil
}

func (u *unpacker) feed(p []byte, last bool) *Finding {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return u.f
	}
	select {
	case u.in <- feed{p, last}:
	case <-u.done:
		u.ended = true
		return u.f
	}
	select {
	case <-u.idle:
		return nil
	case <-u.done:
		u.ended = true
		return u.f
	}
}

func (u *unpacker) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.ended {
		u.ended = true
		close(u.in)
	}
}

func (u *unpacker) run(kind string) {
	defer close(u.done)
	src := bufio.NewReader(u)
	r, err := open(kind, src)
	if err == nil {
		err = u.scan(r)
	}
	if err != nil && u.f == nil && !errors.Is(err, io.EOF) {
		u.f = &Finding{Rule: "encoding", Reason: "the body is not compressed as it says, so it cannot be scanned"}
	}
	if u.f == nil && err == nil {
		// Whatever follows would not be scanned.
		if _, err := src.ReadByte(); err == nil {
			u.f = &Finding{Rule: "encoding", Reason: "something follows the compressed body"}
		}
	}
}

func open(kind string, src *bufio.Reader) (io.Reader, error) {
	if kind != "deflate" {
		return gzip.NewReader(src)
	}
	return deflate.NewReader(src)
}

func (u *unpacker) scan(r io.Reader) error {
	buf := make([]byte, 16<<10)
	var total int64
	for {
		n, err := r.Read(buf)
		total += int64(n)
		if _, f := u.stream.Feed(buf[:n]); f != nil {
			u.f = f
			return f
		}
		if total > bombFrom && total > maxRatio*u.fed {
			u.f = &Finding{Rule: "encoding", Reason: "the body is a compression bomb"}
			return u.f
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
