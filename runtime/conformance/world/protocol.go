package world

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// One line of JSON each way; a connection has one request at a time.
type request struct {
	Listen Place  `json:"listen,omitempty"`
	Hits   *Query `json:"hits,omitempty"`
	// Bind is answered with a listening socket beside the line.
	Bind *netip.AddrPort `json:"bind,omitempty"`
}

type response struct {
	Error  string          `json:"error,omitempty"`
	Layout *Layout         `json:"layout,omitempty"` // the greeting
	Addr   *netip.AddrPort `json:"addr,omitempty"`
	Hits   []Hit           `json:"hits,omitempty"`
}

// client is a world of another process.
type client struct {
	layout Layout
	socket string
	mu     sync.Mutex
	conn   net.Conn
	in     *bufio.Reader
}

// Connect connects to a served world.
func Connect(ctx context.Context, socket string) (World, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, fmt.Errorf("connect to the world (is `bottle conformance world --listen %s` running?): %w", socket, err)
	}
	c := &client{socket: socket, conn: conn, in: bufio.NewReader(conn)}
	greeting, err := c.receive(ctx)
	if err == nil && greeting.Layout == nil {
		err = errors.New("what listens there is no world")
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("connect to the world at %s: %w", socket, err)
	}
	c.layout = *greeting.Layout
	return c, nil
}

func (c *client) receive(ctx context.Context) (response, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.conn.Close() })
	defer stop()
	line, err := c.in.ReadBytes('\n')
	if err != nil {
		return response{}, errors.Join(err, context.Cause(ctx))
	}
	var r response
	if err := json.Unmarshal(line, &r); err != nil {
		return r, err
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

func (c *client) ask(ctx context.Context, r request) (response, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	line, err := json.Marshal(r)
	if err != nil {
		return response{}, err
	}
	if _, err := c.conn.Write(append(line, '\n')); err != nil {
		return response{}, fmt.Errorf("the world does not answer any more: %w", err)
	}
	return c.receive(ctx)
}

func (c *client) Layout() Layout { return c.layout }

func (c *client) Listen(ctx context.Context, p Place) (netip.AddrPort, error) {
	r, err := c.ask(ctx, request{Listen: p})
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("listen in the world at %s: %w", p, err)
	}
	if r.Addr == nil {
		return netip.AddrPort{}, errors.New("the world gave no address")
	}
	return *r.Addr, nil
}

func (c *client) Hits(ctx context.Context, q Query) ([]Hit, error) {
	r, err := c.ask(ctx, request{Hits: &q})
	if err != nil {
		return nil, fmt.Errorf("ask the world for its hits: %w", err)
	}
	return r.Hits, nil
}

func (c *client) Close() error { return c.conn.Close() }
