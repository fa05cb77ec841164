package intercept

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bottle-run/bottle/sidecar/policy"
)

// Request is a request whose address everything agrees on.
type Request struct {
	*http.Request
	// Scheme is http or https, of the request and not of the connection to the proxy.
	Scheme string
	// Addr is the canonical host, Port its port.
	Addr string
	Port uint16
	// RawTarget is the path and query as they were sent.
	RawTarget string
	// ProxyAuthorization is what the client presented to the proxy, with this request or
	// with the CONNECT that it came through.
	ProxyAuthorization string
	// Start is when it began.
	Start time.Time
}

// Handler decides about requests and answers them.
type Handler interface {
	// Serve answers a request.
	Serve(w http.ResponseWriter, r *Request)
	// Tunnel says whether a tunnel to a host is worth opening up; what goes through it
	// is asked about again, request by request. Nil means yes.
	Tunnel(host string, port uint16) *Denial
	// Refused answers a request that never had one agreed address.
	Refused(w http.ResponseWriter, r *Request, d Denial)
	// Broken is told of a connection that ended without a request, after a CONNECT to a
	// host.
	Broken(host string, port uint16, reason string)
	// Health answers /health: nil if all is well.
	Health() error
}

// Limits bound what clients may use. All are to be set.
type Limits struct {
	Connections   int
	HeaderBytes   int
	HeaderTimeout time.Duration
	IdleTimeout   time.Duration
}

// Server is the proxy.
type Server struct {
	Handler Handler
	// Minter returns the authority to sign with.
	Minter *Minter
	Limits Limits
	// Log gets what should not happen. Nil: nothing does.
	Log *slog.Logger

	once    sync.Once
	http2   *http.Server
	tunnels *handover // to http2
	slots   chan struct{}

	mu        sync.Mutex
	conns     map[*conn]struct{}
	listeners []net.Listener
	closing   atomic.Bool // set under mu
	drained   chan struct{}
	sweeper   *time.Timer
}

func (s *Server) setUp() {
	s.tunnels = &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
	s.slots = make(chan struct{}, s.Limits.Connections)
	s.conns, s.drained = map[*conn]struct{}{}, make(chan struct{})
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	s.http2 = &http.Server{
		Handler:           http.HandlerFunc(s.serveHTTP2),
		ReadHeaderTimeout: s.Limits.HeaderTimeout,
		IdleTimeout:       s.Limits.IdleTimeout,
		MaxHeaderBytes:    s.Limits.HeaderBytes,
		ErrorLog:          log.New(panicLog{s.Log}, "", 0),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          128,
			MaxReceiveBufferPerConnection: 1 << 20,
			MaxReceiveBufferPerStream:     512 << 10,
			SendPingTimeout:               time.Minute,
			PingTimeout:                   30 * time.Second,
			WriteByteTimeout:              s.Limits.IdleTimeout,
		},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c)
		},
	}
	s.sweeper = time.AfterFunc(time.Hour, s.sweep)
	s.sweeper.Stop()
	go func() {
		// Ends with the handover.
		_ = s.http2.Serve(s.tunnels)
	}()
}

// panicLog passes on what net/http says of a panic. The rest are clients' mistakes, which
// are in the audit log.
type panicLog struct{ log *slog.Logger }

func (l panicLog) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(": panic ")) {
		l.log.Error("a request ended in a panic", "text", string(p[:min(len(p), 4<<10)]))
	}
	return len(p), nil
}

type connKey struct{}

// Serve serves a listener until Shutdown.
func (s *Server) Serve(ln net.Listener) error {
	s.once.Do(s.setUp)
	s.mu.Lock()
	s.listeners = append(s.listeners, ln)
	if s.closing.Load() {
		ln.Close()
	}
	s.mu.Unlock()
	for pause := time.Duration(0); ; {
		s.slots <- struct{}{}
		c, err := ln.Accept()
		if err != nil {
			<-s.slots
			switch {
			case s.closing.Load():
				return nil
			case errors.Is(err, net.ErrClosed):
				return err
			}
			// Files have run out, say. It may pass.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.Log.Error("accepting a connection", "error", err.Error())
			time.Sleep(pause)
			continue
		}
		pause = 0
		if tcp, ok := c.(*net.TCPConn); ok {
			// Without it a dead peer would hold a slot until something is written.
			_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 20 * time.Second, Count: 3})
		}
		go s.serveConn(&slotConn{Conn: c, release: sync.OnceFunc(func() { <-s.slots })})
	}
}

// Shutdown stops accepting, lets requests end until the context does, and cuts the rest.
func (s *Server) Shutdown(ctx context.Context) {
	s.once.Do(s.setUp)
	s.mu.Lock()
	if !s.closing.Swap(true) && len(s.conns) == 0 {
		close(s.drained)
	}
	for _, ln := range s.listeners {
		ln.Close()
	}
	for c := range s.conns {
		if !c.busy.Load() {
			_ = c.raw.SetReadDeadline(time.Unix(1, 0))
		}
	}
	s.mu.Unlock()
	// The errors are of requests that did not end in time, which Close cuts.
	_ = s.http2.Shutdown(ctx)
	select {
	case <-s.drained:
	case <-ctx.Done():
	}
	_ = s.http2.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.cancel()
		c.raw.Close()
	}
	s.sweeper.Stop()
}

// enter takes note of a connection. It reports whether it may be served.
func (s *Server) enter(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		return false
	}
	if s.conns[c] = struct{}{}; len(s.conns) == 1 {
		s.sweeper.Reset(sweepInterval)
	}
	return true
}

func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if delete(s.conns, c); len(s.conns) == 0 && s.closing.Load() {
		close(s.drained)
	}
}

// sweepInterval is how long it may take until a client that went away is missed.
const sweepInterval = 200 * time.Millisecond

// sweep ends the requests whose clients have gone away. To read from every connection
// while its request is answered would tell sooner, and cost every request two switches
// between goroutines.
func (s *Server) sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		// Of a client that has sent all that it had to send, the rest is still to be read.
		if c.busy.Load() && c.whole.Load() && gone(c.raw) {
			c.cancel()
		}
	}
	if len(s.conns) > 0 && !s.closing.Load() {
		s.sweeper.Reset(sweepInterval)
	}
}

// slotConn gives its slot back when it is closed.
type slotConn struct {
	net.Conn
	release func()
}

func (c *slotConn) Close() error {
	c.release()
	return c.Conn.Close()
}

// CloseWrite ends what is sent.
func (c *slotConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

// handover is a listener for connections that were taken over.
type handover struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (h *handover) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handover) give(c net.Conn) {
	select {
	case h.conns <- c:
	case <-h.closed:
		c.Close()
	}
}

func (h *handover) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handover) Addr() net.Addr { return &net.TCPAddr{} }

// request makes a Request of what came in, before its address is known.
func request(r *http.Request) *Request {
	return &Request{Request: r, RawTarget: r.RequestURI, Start: time.Now()}
}

// serve serves a request of HTTP/1.
func (s *Server) serve(w http.ResponseWriter, r *Request, t *tunnel) {
	if t != nil {
		s.serveInner(w, r, t)
		return
	}
	s.place(r, nil)
	switch {
	case r.Method == http.MethodConnect:
		s.connect(w, r)
	case r.RequestURI == "/health" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		s.health(w)
	default:
		scheme, authority, target, ok := splitURL(r.RequestURI)
		if !ok || scheme != "http" {
			s.refuse(w, r, "not-a-proxy-request", "this is a proxy: send CONNECT, or the whole URL of an http request")
			return
		}
		host, port, err := policy.ParseAuthority(authority, 80)
		if err != nil {
			s.refuse(w, r, "malformed", err.Error())
			return
		}
		r.Scheme, r.Addr, r.Port, r.RawTarget = scheme, host, port, target
		if d := agree(r, nil); d != nil {
			s.Handler.Refused(w, r, *d)
			return
		}
		s.Handler.Serve(w, r)
	}
}

// place tells a request what is known of it before it is read: where its connection
// leads, and as whom.
func (s *Server) place(r *Request, t *tunnel) {
	if t == nil {
		r.ProxyAuthorization = r.Header.Get("Proxy-Authorization")
		return
	}
	r.Scheme, r.Addr, r.Port, r.ProxyAuthorization = t.scheme, t.host, t.port, t.authorization
}

// serveInner serves what goes through a tunnel.
func (s *Server) serveInner(w http.ResponseWriter, r *Request, t *tunnel) {
	s.place(r, t)
	if t.sni != "" && t.sni != t.host {
		s.Handler.Refused(w, r, Denial{Status: http.StatusForbidden, Rule: "sni-mismatch",
			Reason: "the CONNECT was to " + t.host + ", but TLS was begun with " + t.sni})
		return
	}
	if r.Method == http.MethodConnect {
		s.refuse(w, r, "malformed", "a CONNECT inside a tunnel")
		return
	}
	if d := agree(r, t); d != nil {
		s.Handler.Refused(w, r, *d)
		return
	}
	s.Handler.Serve(w, r)
}

// serveHTTP2 serves a request of HTTP/2, which comes through a tunnel.
func (s *Server) serveHTTP2(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connKey{}).(interface{ NetConn() net.Conn })
	s.serveInner(w, request(r), c.NetConn().(*tunnelConn).tunnel)
}

func (s *Server) refuse(w http.ResponseWriter, r *Request, rule, reason string) {
	w.Header().Set("Connection", "close")
	s.Handler.Refused(w, r, Denial{Status: http.StatusBadRequest, Rule: rule, Reason: reason})
}

func (s *Server) health(w http.ResponseWriter) {
	status, text := http.StatusOK, `{"status":"ok"}`+"\n"
	if err := s.Handler.Health(); err != nil {
		status, text = http.StatusServiceUnavailable, `{"status":"not ready"}`+"\n"
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}
