package gitgate

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

// idleConn is a connection that fails when nothing has moved on it, in either direction,
// for a time.
type idleConn struct {
	net.Conn
	idle  time.Duration
	moved atomic.Int64 // when something moved, in nanoseconds since 1970
}

func newIdleConn(c net.Conn, idle time.Duration) *idleConn {
	ic := &idleConn{Conn: c, idle: idle}
	ic.moved.Store(time.Now().UnixNano())
	return ic
}

func (c *idleConn) wait(set func(time.Time) error, do func() (int, error)) (int, error) {
	for {
		deadline := time.Unix(0, c.moved.Load()).Add(c.idle)
		if err := set(deadline); err != nil {
			return 0, err
		}
		n, err := do()
		if n > 0 {
			c.moved.Store(time.Now().UnixNano())
		}
		if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) && time.Until(time.Unix(0, c.moved.Load()).Add(c.idle)) > 0 {
			continue // something moved the other way
		}
		return n, err
	}
}

func (c *idleConn) Read(b []byte) (int, error) {
	return c.wait(c.Conn.SetReadDeadline, func() (int, error) { return c.Conn.Read(b) })
}

func (c *idleConn) Write(b []byte) (int, error) {
	// What was written before a deadline is not written again.
	written := 0
	for written < len(b) {
		n, err := c.wait(c.Conn.SetWriteDeadline, func() (int, error) { return c.Conn.Write(b[written:]) })
		written += n
		if err != nil && (n == 0 || !errors.Is(err, os.ErrDeadlineExceeded)) {
			return written, err
		}
	}
	return written, nil
}

// touch says that the connection is waited for by something that works.
func (c *idleConn) touch() { c.moved.Store(time.Now().UnixNano()) }

// CloseWrite says that nothing more is sent.
func (c *idleConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// dialer opens connections.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// idle returns a dialer of connections that fail when they are idle.
func (d dialer) idle(after time.Duration) dialer {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := d(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return newIdleConn(c, after), nil
	}
}
