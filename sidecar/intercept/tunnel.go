package intercept

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/bottle-run/bottle/sidecar/policy"
)

// tunnel is what a CONNECT opened.
type tunnel struct {
	host          string
	port          uint16
	scheme        string
	sni           string // canonical; "" if the client sent none
	authorization string
}

// tunnelConn is the connection of a tunnel, of which something was read already.
type tunnelConn struct {
	net.Conn
	tunnel *tunnel
	head   io.Reader

	mu   sync.Mutex // TLS may have something to say of its own
	held *[]byte    // what is written while it is held together
}

// heldSize is what is held together at most: a long buffer, in records.
const heldSize = longBuffer + 2<<10

var helds = sync.Pool{New: func() any { b := make([]byte, 0, heldSize); return &b }}

// hold has what is written wait for release, so that many records are sent at once.
func (c *tunnelConn) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = helds.Get().(*[]byte)
}

// release sends what was held.
func (c *tunnelConn) release() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.Conn.Write(*c.held)
	*c.held = (*c.held)[:0]
	helds.Put(c.held)
	c.held = nil
	return err
}

func (c *tunnelConn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.held == nil {
		return c.Conn.Write(p)
	}
	if len(*c.held)+len(p) > cap(*c.held) {
		_, err := c.Conn.Write(*c.held)
		if *c.held = (*c.held)[:0]; err != nil {
			return 0, err
		}
		if len(p) > cap(*c.held) {
			return c.Conn.Write(p)
		}
	}
	*c.held = append(*c.held, p...)
	return len(p), nil
}

func (c *tunnelConn) Read(p []byte) (int, error) {
	if c.head != nil {
		if n, err := c.head.Read(p); n > 0 || err == nil {
			return n, nil
		}
		c.head = nil
	}
	return c.Conn.Read(p)
}

// connect judges a CONNECT. What it says yes to is opened by [conn.open].
func (s *Server) connect(w http.ResponseWriter, r *Request) {
	host, port, err := policy.ParseAuthority(r.RequestURI, 0)
	if err != nil {
		s.refuse(w, r, "malformed", "CONNECT: "+err.Error())
		return
	}
	r.Addr, r.Port, r.RawTarget = host, port, ""
	// Clients that speak neither TLS nor HTTP would wait for the other side to begin:
	// on the ports of those two the answer comes later, where it is seen.
	if d := s.Handler.Tunnel(host, port); d != nil && port != 443 && port != 80 {
		w.Header().Set("Connection", "close")
		s.Handler.Refused(w, r, *d)
		return
	}
	w.(*response).connects = &tunnel{host: host, port: port, authorization: r.ProxyAuthorization}
}

// open answers a CONNECT with yes and opens up what follows. It reports whether it is
// HTTP/1 and the connection goes on with it. If it is somebody else's, nc is nil.
func (c *conn) open(t *tunnel) (goesOn bool) {
	s := c.s
	minted := make(chan struct{})
	go func() { // while the client takes note of the answer
		defer close(minted)
		_, _ = s.Minter.Get(t.host)
	}()
	c.until = time.Time{}
	_ = c.raw.SetDeadline(time.Now().Add(s.Limits.HeaderTimeout))
	_, _ = c.bw.WriteString("HTTP/1.1 200 Connection established\r\n\r\n")
	err := c.bw.Flush()
	<-minted
	if err != nil {
		return false
	}
	if len(c.in.in) == 0 {
		if err := c.in.more(); err != nil {
			if isTimeout(err) {
				s.Handler.Broken(t.host, t.port, "nothing was sent through the tunnel")
			}
			return false
		}
	}
	tc := &tunnelConn{Conn: c.raw, tunnel: t, head: bytes.NewReader(c.in.in)}
	switch first := c.in.in[0]; {
	case first == 0x16: // a TLS handshake
		return c.openTLS(tc)
	case first >= 'A' && first <= 'Z':
		t.scheme = "http"
		_ = c.raw.SetDeadline(time.Time{})
		c.speak(tc, t)
		return true
	}
	s.Handler.Broken(t.host, t.port, "what was sent through the tunnel is neither TLS nor HTTP")
	return false
}

// openTLS opens up TLS, and hands HTTP/2 over to who speaks it.
func (c *conn) openTLS(tc *tunnelConn) (goesOn bool) {
	s, t := c.s, tc.tunnel
	t.scheme = "https"
	conn := tls.Server(tc, &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		// Small records at first are for slow lines; here they only cost system calls.
		DynamicRecordSizingDisabled: true,
		// A ticket would be of use only to this very configuration.
		SessionTicketsDisabled: true,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			if hello.ServerName == "" {
				return s.Minter.Get(t.host)
			}
			name, err := policy.CanonicalHost(hello.ServerName)
			if err != nil {
				return nil, err
			}
			// A name other than the tunnel's gets a certificate, so that the client can be
			// told in a language that it understands.
			t.sni = name
			return s.Minter.Get(name)
		},
	})
	ctx, cancel := context.WithTimeout(context.Background(), s.Limits.HeaderTimeout)
	defer cancel()
	if err := conn.HandshakeContext(ctx); err != nil {
		s.Handler.Broken(t.host, t.port, "the TLS handshake failed: "+err.Error())
		return false
	}
	_ = tc.SetDeadline(time.Time{})
	if conn.ConnectionState().NegotiatedProtocol == "h2" {
		c.nc = nil
		s.tunnels.give(conn)
		return false
	}
	c.speak(conn, t)
	c.bw.Reset(&recordWriter{tls: conn, below: tc})
	return true
}

// recordWriter writes what takes several records with one system call.
type recordWriter struct {
	tls   *tls.Conn
	below *tunnelConn
}

// maxRecord is the most that a record of TLS holds, in bytes.
const maxRecord = 16 << 10

func (w *recordWriter) Write(p []byte) (int, error) {
	if len(p) <= maxRecord {
		return w.tls.Write(p)
	}
	w.below.hold()
	n, err := w.tls.Write(p)
	if rerr := w.below.release(); err == nil {
		err = rerr
	}
	return n, err
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}
