package intercept

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxDrained = 256 << 10              // of a body that nobody read, for the connection to be kept, in bytes
	lingering  = 500 * time.Millisecond // for an answer to arrive although the client still sends
)

// conn is a client's connection over which HTTP/1 is spoken. One goroutine serves it: it
// reads a request, has it answered and reads the next one. Nothing reads from it
// meanwhile; that its client has gone away is seen by [Server.sweep].
type conn struct {
	s      *Server
	raw    net.Conn
	nc     net.Conn // raw, or what was opened up within it
	tunnel *tunnel  // nil: what is said is said to the proxy itself
	in     *strictReader
	bw     *bufio.Writer
	ctx    context.Context // ends with the connection, or when the client goes away
	cancel context.CancelFunc

	fresh  bool        // nothing was asked yet
	until  time.Time   // the deadline for reading, as far as it was set here
	busy   atomic.Bool // with a request
	whole  atomic.Bool // the request was read to its end
	broken atomic.Bool // nothing can be read or written any more, as somebody set a deadline
}

// serveConn serves a connection until it ends, or is somebody else's.
func (s *Server) serveConn(raw net.Conn) {
	c := &conn{s: s, raw: raw}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.bw = bufio.NewWriter(raw)
	c.speak(raw, nil)
	if !s.enter(c) {
		c.cancel()
		raw.Close()
		return
	}
	taken := c.serve()
	s.leave(c)
	c.cancel()
	switch {
	case taken:
	case c.broken.Load():
		raw.Close() // TLS may have lost count of its records, and could only end them wrongly
	default:
		c.nc.Close()
	}
}

// speak has the next requests read from nc.
func (c *conn) speak(nc net.Conn, t *tunnel) {
	c.nc, c.tunnel = nc, t
	c.in = newStrictReader(nc, c.s.Limits.HeaderBytes, &c.whole)
	c.in.partial = func() {
		if !c.fresh { // when the time runs since the connection began
			c.expect(c.s.Limits.HeaderTimeout)
		}
	}
	c.bw.Reset(nc)
	c.fresh = true
	c.expect(c.s.Limits.HeaderTimeout)
}

// expect sets the deadline for what is read next.
func (c *conn) expect(within time.Duration) {
	c.until = time.Now().Add(within)
	_ = c.nc.SetReadDeadline(c.until)
}

// rest sets the deadline for the next request to begin, after one that was answered. As
// setting one costs more than asking the time, it may turn out later by a quarter.
func (c *conn) rest() {
	idle := c.s.Limits.IdleTimeout
	if time.Until(c.until) < idle || c.until.IsZero() {
		c.expect(idle + idle/4)
	}
}

// unlimited takes the deadline away: how long a body may take is not for the connection
// to say.
func (c *conn) unlimited() {
	if !c.until.IsZero() {
		c.until = time.Time{}
		_ = c.nc.SetReadDeadline(c.until)
	}
}

// serve serves requests until there are no more, and reports whether the connection is
// somebody else's now.
func (c *conn) serve() (taken bool) {
	for {
		h, err := c.in.next()
		if err != nil {
			if c.in.violated != nil {
				c.violated()
			}
			return false
		}
		c.fresh = false
		c.busy.Store(true)
		w := c.begin(h)
		whole := c.run(w)
		if w.taken {
			return true
		}
		if whole && w.connects != nil {
			if goesOn := c.open(w.connects); !goesOn {
				return c.nc == nil
			}
			c.busy.Store(false)
			continue
		}
		if !whole || !w.finish() || c.s.closing.Load() {
			return false
		}
		c.busy.Store(false)
		if len(c.in.in) == 0 {
			c.rest()
		}
	}
}

// begin makes the answer to a request that a head begins.
func (c *conn) begin(h *head) *response {
	r := request(h.request(c.ctx))
	w := &response{c: c, r: r, header: make(http.Header, 8), close: r.Close, tunnels: h.state == inTunnel, length: -1}
	if h.length != 0 {
		b := &requestBody{w: w}
		// HTTP/1.0 knows of no interim answers.
		if len(h.header["Expect"]) > 0 && !h.http10 {
			b.asks.Store(true)
		}
		w.body, r.Body = b, b
		c.unlimited()
	}
	return w
}

// run has a request handled. It reports whether it came to an end of its own.
func (c *conn) run(w *response) (whole bool) {
	defer func() {
		if w.body != nil {
			w.body.Close()
		}
		switch v := recover(); {
		case v == nil:
		case v == http.ErrAbortHandler: //nolint:errorlint // as net/http does
			whole = false
			_ = c.bw.Flush() // what there is, so that the client sees where it was cut
		default:
			whole = false
			c.s.Log.Error("a request ended in a panic", "value", fmt.Sprint(v), "stack", string(debug.Stack()))
		}
	}()
	c.s.serve(w, w.r, c.tunnel)
	return true
}

// standIn is the head in whose place one came that violates the rules.
func standIn() *head {
	h, _ := readHead("GET / HTTP/1.1\r\nConnection: close")
	h.host, h.close = "malformed.invalid", true
	return h
}

// violated answers a request that violates the rules.
func (c *conn) violated() {
	w := c.begin(standIn())
	c.s.place(w.r, c.tunnel)
	c.s.refuse(w, w.r, "malformed", c.in.violated.reason)
	w.finish()
	c.linger()
}

// linger lets an answer arrive: a connection that is closed while something is left to
// read is reset, and what was sent may be lost.
func (c *conn) linger() {
	_ = c.raw.SetDeadline(time.Now().Add(lingering))
	if tc, ok := c.nc.(interface{ CloseWrite() error }); ok {
		_ = tc.CloseWrite() // a TLS connection says so
	}
	if tcp, ok := c.raw.(interface{ CloseWrite() error }); ok {
		_ = tcp.CloseWrite()
	}
	_, _ = io.CopyN(io.Discard, c.raw, 4<<20) // it does not last longer than the deadline
}

// requestBody is the body of a request.
type requestBody struct {
	w      *response
	mu     sync.Mutex // held while something is read
	closed atomic.Bool
	asks   atomic.Bool // the client waits to be told to send it
}

func (b *requestBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed.Load() {
		return 0, http.ErrBodyReadAfterClose
	}
	if b.asks.Swap(false) {
		if err := b.w.proceed(); err != nil {
			return 0, err
		}
	}
	return b.w.c.in.Read(p)
}

// Close ends the body. Whoever reads it at this moment is stopped, and the connection is
// then of no further use.
func (b *requestBody) Close() error {
	if b.closed.Swap(true) {
		return nil
	}
	if !b.mu.TryLock() {
		b.w.interrupt()
		b.mu.Lock()
	}
	b.mu.Unlock()
	return nil
}
