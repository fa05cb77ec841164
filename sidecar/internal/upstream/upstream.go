// Package upstream sends requests without a body over HTTP/1.1 and TLS, on connections
// that are kept: what most requests are, with none of the goroutines between which
// net/http's transport hands each request on. Whatever else comes it leaves to another
// transport.
//
// # Promises
//
//   - A connection is used again only if the answer before was read to its end, nothing
//     follows it and the other side has not closed.
//   - A request is sent a second time only if it is safe (RFC 9110, 9.2.1), and nothing
//     came of the first time on a connection that had been idle.
//   - When its context ends, so does the request, and its connection with it.
package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"golang.org/x/net/http/httpguts"
)

const (
	maxIdle        = 256              // connections kept
	maxIdlePerHost = 64               // of them to one host
	idleTimeout    = 90 * time.Second // after which one is closed
	setupTimeout   = 30 * time.Second // of CONNECT and TLS together
	maxHead        = 256 << 10        // bytes of an answer's head
	maxInterim     = 8                // answers 1xx before the answer
)

// Transport is a transport. Its fields may not be changed once it is used.
type Transport struct {
	// Dial opens connections.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// TLS is the configuration for hosts. Its ServerName is set for each.
	TLS *tls.Config
	// Proxy is the URL of a proxy in between, with credentials. Nil: there is none.
	Proxy *url.URL
	// OnConnect judges the answer of the proxy to a CONNECT.
	OnConnect func(ctx context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error
	// Other takes what this transport does not.
	Other http.RoundTripper

	mu     sync.Mutex
	idle   map[string][]*conn // the last one used last
	count  int
	closed bool
}

// conn is a connection to a host. It belongs to one request, or is idle.
type conn struct {
	t       *Transport
	key     string
	raw     net.Conn
	records *records // on raw, below tls
	tls     *tls.Conn
	head    io.LimitedReader // of tls: bounds what a head may take
	br      *bufio.Reader
	bw      *bufio.Writer
	expires *time.Timer
}

// fits reports whether a request is of the kind that is sent here.
func (t *Transport) fits(req *http.Request) bool {
	return req.URL.Scheme == "https" && (req.Body == nil || req.Body == http.NoBody) && req.ContentLength == 0 && len(req.Trailer) == 0 &&
		(t.Proxy == nil || t.Proxy.Scheme == "http") && req.Method != http.MethodConnect &&
		len(req.Header["Upgrade"]) == 0 && len(req.Header["Expect"]) == 0 && !httpguts.HeaderValuesContainsToken(req.Header["Connection"], "close")
}

// RoundTrip sends a request.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	if !t.fits(req) {
		return t.Other.RoundTrip(req)
	}
	port := req.URL.Port()
	if port == "" {
		port = "443"
	}
	key := net.JoinHostPort(req.URL.Hostname(), port)
	for {
		c := t.take(key)
		reused := c != nil
		if c == nil {
			var err error
			if c, err = t.open(req.Context(), key, req.URL.Hostname()); err != nil {
				return nil, cause(req.Context(), err)
			}
		}
		resp, nothing, err := c.exchange(req)
		if err == nil {
			return resp, nil
		}
		c.raw.Close()
		if reused && nothing && safe(req.Method) && req.Context().Err() == nil {
			continue
		}
		return nil, cause(req.Context(), err)
	}
}

func safe(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodOptions || method == http.MethodTrace
}

// cause puts the reason for which a context ended before what came of it.
func cause(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	return err
}

// take returns an idle connection to a host, nil if there is none.
func (t *Transport) take(key string) *conn {
	for {
		t.mu.Lock()
		list := t.idle[key]
		if len(list) == 0 {
			t.mu.Unlock()
			return nil
		}
		c := list[len(list)-1]
		t.forget(c)
		t.mu.Unlock()
		if c.expires.Stop() && quiet(c.raw) {
			return c
		}
		c.raw.Close()
	}
}

// forget takes a connection out of those that are idle. It reports whether it was there.
func (t *Transport) forget(c *conn) bool {
	list := t.idle[c.key]
	for i := len(list) - 1; i >= 0; i-- {
		if list[i] != c {
			continue
		}
		list = append(list[:i], list[i+1:]...)
		t.count--
		if t.idle[c.key] = list; len(list) == 0 {
			delete(t.idle, c.key)
		}
		return true
	}
	return false
}

// keep makes a connection idle, or closes it if enough are.
func (t *Transport) keep(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.count == maxIdle || len(t.idle[c.key]) == maxIdlePerHost {
		c.raw.Close()
		return
	}
	if t.idle == nil {
		t.idle = map[string][]*conn{}
	}
	t.idle[c.key] = append(t.idle[c.key], c)
	t.count++
	if c.expires != nil {
		c.expires.Reset(idleTimeout)
		return
	}
	c.expires = time.AfterFunc(idleTimeout, func() {
		t.mu.Lock()
		idle := t.forget(c)
		t.mu.Unlock()
		if idle {
			c.raw.Close()
		}
	})
}

// Close closes the connections that are idle, and those in use when they would be.
func (t *Transport) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, list := range t.idle {
		for _, c := range list {
			c.expires.Stop()
			c.raw.Close()
		}
	}
	t.idle, t.count = nil, 0
}

// open opens a connection to a host, through the proxy if there is one.
func (t *Transport) open(ctx context.Context, key, host string) (*conn, error) {
	first := key
	if t.Proxy != nil {
		if first = t.Proxy.Host; t.Proxy.Port() == "" {
			first = net.JoinHostPort(t.Proxy.Hostname(), "80")
		}
	}
	raw, err := t.Dial(ctx, "tcp", first)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	if t.Proxy != nil {
		if err := t.connect(ctx, raw, key); err != nil {
			raw.Close()
			return nil, err
		}
	}
	config := t.TLS.Clone()
	config.ServerName, config.NextProtos = host, []string{"http/1.1"}
	c := &conn{t: t, key: key, raw: raw, records: &records{Conn: raw}}
	c.tls = tls.Client(c.records, config)
	if err := c.tls.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	c.head.R = c.tls
	c.br, c.bw = bufio.NewReader(&c.head), bufio.NewWriter(c.tls)
	return c, nil
}

// connect asks the proxy for a tunnel.
func (t *Transport) connect(ctx context.Context, raw net.Conn, key string) error {
	stop := context.AfterFunc(ctx, func() { expire(raw) })
	defer stop()
	req := (&http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: key}, Host: key, Header: http.Header{"User-Agent": {""}}}).WithContext(ctx)
	if u := t.Proxy.User; u != nil {
		password, _ := u.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(u.Username()+":"+password)))
	}
	if err := req.Write(raw); err != nil {
		return fmt.Errorf("asking the proxy for a tunnel: %w", err)
	}
	br := bufio.NewReader(io.LimitReader(raw, maxHead))
	resp, err := http.ReadResponse(br, req)
	if err != nil {
		return fmt.Errorf("reading the answer of the proxy: %w", err)
	}
	if t.OnConnect != nil {
		if err := t.OnConnect(ctx, t.Proxy, req, resp); err != nil {
			return err
		}
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("the proxy refused the tunnel: %s", resp.Status)
	case br.Buffered() > 0:
		return errors.New("the proxy sent something before the tunnel was used")
	case !stop():
		return context.Cause(ctx)
	}
	return nil
}

// expire makes whoever uses a connection stop.
func expire(c net.Conn) { _ = c.SetDeadline(time.Unix(1, 0)) }

// exchange sends a request and reads the head of its answer. The body gives the
// connection back. Nothing says that not one byte of an answer came.
func (c *conn) exchange(req *http.Request) (resp *http.Response, nothing bool, err error) {
	ctx := req.Context()
	stop := context.AfterFunc(ctx, func() { expire(c.raw) })
	defer func() {
		if err != nil {
			stop()
		}
	}()
	err = writeRequest(c.bw, req)
	if err == nil {
		err = c.bw.Flush()
	}
	if err != nil {
		return nil, true, fmt.Errorf("sending the request: %w", err)
	}
	for range maxInterim {
		c.head.N = maxHead
		if _, err := c.br.Peek(1); err != nil {
			return nil, true, fmt.Errorf("waiting for the answer: %w", c.why(err))
		}
		resp, err := http.ReadResponse(c.br, req)
		if err != nil {
			return nil, false, fmt.Errorf("reading the head of the answer: %w", c.why(err))
		}
		if resp.StatusCode == http.StatusSwitchingProtocols {
			return nil, false, errors.New("the upstream switched to a protocol that was not asked for")
		}
		if resp.StatusCode < 200 {
			continue
		}
		c.head.N = math.MaxInt64
		b := &body{ReadCloser: resp.Body, ctx: ctx, c: c, stop: stop, reuse: !resp.Close, long: resp.ContentLength >= readAhead}
		if resp.Body == http.NoBody || resp.ContentLength == 0 || req.Method == http.MethodHead {
			b.end(true)
			b.err = io.EOF
		}
		resp.Body = b
		return resp, false, nil
	}
	return nil, false, fmt.Errorf("there were more than %d interim answers", maxInterim)
}

// why tells a head that is too long from a connection that ended.
func (c *conn) why(err error) error {
	if c.head.N <= 0 {
		return fmt.Errorf("the head of the answer is longer than %d bytes", maxHead)
	}
	return err
}

// body is the body of an answer. At its end the connection is kept, if it may be.
type body struct {
	io.ReadCloser
	ctx   context.Context
	c     *conn
	stop  func() bool
	reuse bool
	long  bool // it is known to be
	ended bool
	err   error // of each read after the end
}

func (b *body) Read(p []byte) (int, error) {
	if b.ended {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	// A record is read at a time. Of a long body those that are there come together.
	for b.long && err == nil && n < len(p) && b.c.records.ready() {
		var more int
		more, err = b.ReadCloser.Read(p[n:])
		n += more
	}
	if err == nil {
		return n, nil
	}
	whole := errors.Is(err, io.EOF)
	b.end(whole)
	if !whole {
		err = cause(b.ctx, err)
	}
	b.err = err
	return n, err
}

// Close ends the body. A connection of which something is left to read is closed.
func (b *body) Close() error {
	b.end(false)
	b.err = http.ErrBodyReadAfterClose
	return nil
}

// end gives the connection back; whole says that all was read.
func (b *body) end(whole bool) {
	if b.ended {
		return
	}
	b.ended = true
	// If stop fails the context's end has made the connection useless, or is about to.
	if b.stop() && whole && b.reuse && b.c.br.Buffered() == 0 {
		b.c.t.keep(b.c)
		return
	}
	b.c.raw.Close()
}
