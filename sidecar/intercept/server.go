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
	"sync"
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
	outer   *http.Server
	inner   *http.Server
	tunnels *handover
	slots   chan struct{}
}

func (s *Server) setUp() {
	s.tunnels = &handover{conns: make(chan net.Conn), closed: make(chan struct{})}
	s.slots = make(chan struct{}, s.Limits.Connections)
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	errorLog := log.New(panicLog{s.Log}, "", 0)
	common := func(h http.HandlerFunc) *http.Server {
		return &http.Server{
			Handler:           h,
			ReadHeaderTimeout: s.Limits.HeaderTimeout,
			IdleTimeout:       s.Limits.IdleTimeout,
			MaxHeaderBytes:    s.Limits.HeaderBytes + 4<<10, // the strict reader is first
			ErrorLog:          errorLog,
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
	}
	s.outer, s.inner = common(s.serveOuter), common(s.serveInner)
	go func() {
		// Ends with the handover.
		_ = s.inner.Serve(s.tunnels)
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
	err := s.outer.Serve(&strictListener{Listener: ln, s: s})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting, lets requests end until the context does, and cuts the rest.
func (s *Server) Shutdown(ctx context.Context) {
	s.once.Do(s.setUp)
	// The errors are of requests that did not end in time, which Close cuts.
	_ = s.outer.Shutdown(ctx)
	_ = s.inner.Shutdown(ctx)
	_ = s.outer.Close()
	_ = s.inner.Close()
}

// strictListener accepts as many connections as there are slots.
type strictListener struct {
	net.Listener
	s *Server
}

func (l *strictListener) Accept() (net.Conn, error) {
	l.s.slots <- struct{}{}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.s.slots
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		// Without it a dead peer would hold a slot until something is written.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: time.Minute, Interval: 20 * time.Second, Count: 3})
	}
	return newStrictConn(&slotConn{Conn: c, release: sync.OnceFunc(func() { <-l.s.slots })}, nil, l.s.Limits.HeaderBytes), nil
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

// serveOuter serves what is said to the proxy itself.
func (s *Server) serveOuter(w http.ResponseWriter, r *http.Request) {
	req := request(r)
	req.ProxyAuthorization = r.Header.Get("Proxy-Authorization")
	conn, _ := r.Context().Value(connKey{}).(*strictConn)
	if s.malformed(w, req, conn) {
		return
	}
	switch {
	case r.Method == http.MethodConnect:
		s.connect(w, req)
	case r.RequestURI == "/health" && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		s.health(w)
	default:
		scheme, authority, target, ok := splitURL(r.RequestURI)
		if !ok || scheme != "http" {
			s.refuse(w, req, "not-a-proxy-request", "this is a proxy: send CONNECT, or the whole URL of an http request")
			return
		}
		host, port, err := policy.ParseAuthority(authority, 80)
		if err != nil {
			s.refuse(w, req, "malformed", err.Error())
			return
		}
		req.Scheme, req.Addr, req.Port, req.RawTarget = scheme, host, port, target
		if d := agree(req, nil); d != nil {
			s.Handler.Refused(w, req, *d)
			return
		}
		s.Handler.Serve(w, req)
	}
}

// serveInner serves what goes through a tunnel.
func (s *Server) serveInner(w http.ResponseWriter, r *http.Request) {
	req := request(r)
	var t *tunnel
	var conn *strictConn
	switch c := r.Context().Value(connKey{}).(type) {
	case *strictConn:
		conn, t = c, c.tunnel
	case interface{ NetConn() net.Conn }:
		t = c.NetConn().(*tunnelConn).tunnel
	}
	req.Scheme, req.Addr, req.Port, req.ProxyAuthorization = t.scheme, t.host, t.port, t.authorization
	if s.malformed(w, req, conn) {
		return
	}
	if t.sni != "" && t.sni != t.host {
		s.Handler.Refused(w, req, Denial{Status: http.StatusForbidden, Rule: "sni-mismatch",
			Reason: "the CONNECT was to " + t.host + ", but TLS was begun with " + t.sni})
		return
	}
	if r.Method == http.MethodConnect {
		s.refuse(w, req, "malformed", "a CONNECT inside a tunnel")
		return
	}
	if d := agree(req, t); d != nil {
		s.Handler.Refused(w, req, *d)
		return
	}
	s.Handler.Serve(w, req)
}

// malformed answers a request in whose place the strict reader put another.
func (s *Server) malformed(w http.ResponseWriter, r *Request, conn *strictConn) bool {
	if conn == nil {
		return false
	}
	if reason := conn.violation(); reason != "" {
		s.refuse(w, r, "malformed", reason)
		return true
	}
	if conn.opened.Load() && r.Method != http.MethodConnect && r.Header.Get("Upgrade") == "" {
		s.refuse(w, r, "malformed", "a request follows one that asked for a tunnel")
		return true
	}
	return false
}

func (s *Server) refuse(w http.ResponseWriter, r *Request, rule, reason string) {
	w.Header().Set("Connection", "close")
	s.Handler.Refused(w, r, Denial{Status: http.StatusBadRequest, Rule: rule, Reason: reason})
}

func (s *Server) health(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	if err := s.Handler.Health(); err != nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, `{"status":"not ready"}`+"\n")
		return
	}
	_, _ = io.WriteString(w, `{"status":"ok"}`+"\n")
}
