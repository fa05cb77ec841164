package world

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// shared is the abstract socket at which the world of a network namespace is
// served: being taken, it keeps a second one from being made.
const shared = "@bottle-conformance-world"

var layout = Layout{
	A:        netip.MustParsePrefix("198.51.100.0/24"),
	B:        netip.MustParsePrefix("203.0.113.0/24"),
	V6:       netip.MustParsePrefix("2001:db8:b0::/64"),
	Metadata: netip.MustParseAddr("169.254.169.254"),
	DNS:      netip.MustParseAddr("198.51.100.53"),
	Answer:   netip.MustParseAddr("198.51.100.80"),
}

// server is the world itself.
type server struct {
	ns      *namespace
	capture *capture
	dns     []io.Closer
	layout  Layout

	mu      sync.Mutex
	next    map[Place]int
	clients sync.WaitGroup
	conns   map[net.Conn]bool
}

// newServer makes the world.
func newServer() (*server, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, err
	}
	s := &server{ns: ns, layout: layout, next: map[Place]int{}, conns: map[net.Conn]bool{}}
	if !ns.ipv6 {
		s.layout.V6 = netip.Prefix{}
	}
	err = ns.run(func() error {
		link, err := netlink.LinkByName(worldLink)
		if err != nil {
			return err
		}
		if s.capture, err = newCapture(link.Attrs().Index); err != nil {
			return err
		}
		s.dns, err = nameServer()
		return err
	})
	if err != nil {
		s.close()
		return nil, fmt.Errorf("make the outside world: %w", err)
	}
	return s, nil
}

func (s *server) close() {
	for _, c := range s.dns {
		_ = c.Close()
	}
	if s.capture != nil {
		_ = s.capture.file.Close()
	}
	s.ns.close()
}

// listen starts echo servers at a fresh address of a place.
func (s *server) listen(p Place) (netip.AddrPort, []io.Closer, error) {
	addr, err := s.address(p)
	if err != nil {
		return netip.AddrPort{}, nil, err
	}
	if p != Metadata {
		s.capture.forget(addr) // of whoever had it before
	}
	var port uint16
	var servers []io.Closer
	err = s.ns.run(func() error {
		port, servers, err = echo(addr)
		return err
	})
	return netip.AddrPortFrom(addr, port), servers, err
}

// address gives out the addresses of a place in turn. The low ones are left to
// what is fixed.
func (s *server) address(p Place) (netip.Addr, error) {
	const fixed, last = 100, 250
	var prefix netip.Prefix
	switch p {
	case A:
		prefix = s.layout.A
	case B:
		prefix = s.layout.B
	case V6:
		if prefix = s.layout.V6; !prefix.IsValid() {
			return netip.Addr{}, errors.New("this host has no IPv6")
		}
	case Metadata:
		return s.layout.Metadata, nil
	default:
		return netip.Addr{}, fmt.Errorf("there is no place %q", p)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n := fixed + s.next[p]%(last-fixed)
	s.next[p]++
	b := prefix.Addr().AsSlice()
	b[len(b)-1] = byte(n)
	addr, _ := netip.AddrFromSlice(b)
	return addr, nil
}

// hits waits until what the host sent before has been recorded: a packet sent
// now arrives after it.
func (s *server) hits(ctx context.Context, q Query) ([]Hit, error) {
	mark := rand.Text()
	for {
		if err := s.mark(mark); err != nil {
			return nil, err
		}
		found, news, err := s.capture.find(Query{Token: mark})
		if err != nil {
			return nil, err
		}
		if len(found) > 0 {
			found, _, err = s.capture.find(q)
			return found, err
		}
		select {
		case <-news:
		case <-time.After(100 * time.Millisecond): // it was lost: once more
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// mark sends a packet from the host.
func (s *server) mark(text string) error {
	conn, err := net.Dial("udp", netip.AddrPortFrom(worldSide.Addr(), 9).String())
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte(text))
	return errors.Join(err, conn.Close())
}

// serve answers clients until the listener is closed.
func (s *server) serve(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns[conn] = true
		s.mu.Unlock()
		s.clients.Go(func() { s.client(conn) })
	}
}

func (s *server) client(conn net.Conn) {
	var servers []io.Closer
	defer func() {
		for _, c := range servers {
			_ = c.Close()
		}
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
		_ = conn.Close()
	}()
	out := json.NewEncoder(conn)
	if out.Encode(response{Layout: &s.layout}) != nil {
		return
	}
	for in := bufio.NewScanner(conn); in.Scan(); {
		var q request
		var r response
		err := json.Unmarshal(in.Bytes(), &q)
		switch {
		case err != nil:
		case q.Hits != nil:
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			r.Hits, err = s.hits(ctx, *q.Hits)
			cancel()
		case q.Bind != nil:
			if err = s.bind(conn, *q.Bind); err == nil {
				continue // it has answered
			}
		default:
			var addr netip.AddrPort
			var more []io.Closer
			addr, more, err = s.listen(q.Listen)
			servers = append(servers, more...)
			r.Addr = &addr
		}
		if err != nil {
			r = response{Error: err.Error()}
		}
		if out.Encode(r) != nil {
			return
		}
	}
}

// own is the connection of the process that has the world. It is served to
// other processes meanwhile.
type own struct {
	*client
	server   *server
	listener net.Listener
}

// inProcess makes a world, or shares the one that there is.
func inProcess(ctx context.Context) (World, error) {
	for {
		l, err := net.Listen("unix", shared)
		if errors.Is(err, unix.EADDRINUSE) {
			w, err := Connect(ctx, shared)
			if err == nil {
				return w, nil
			}
			// It has ended in this moment, or is about to begin.
			select {
			case <-ctx.Done():
				return nil, errors.Join(err, context.Cause(ctx))
			case <-time.After(50 * time.Millisecond):
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		s, err := newServer()
		if err != nil {
			return nil, errors.Join(err, l.Close())
		}
		go s.serve(l)
		w, err := Connect(ctx, shared)
		if err != nil {
			s.close()
			return nil, errors.Join(err, l.Close())
		}
		return &own{w.(*client), s, l}, nil
	}
}

// Close ends the world when the other processes that share it have done so.
func (o *own) Close() error {
	err := errors.Join(o.client.Close(), o.listener.Close())
	o.server.clients.Wait()
	o.server.close()
	return err
}

// Serve makes a world and serves it at a socket that everybody on this host may
// connect to, until ctx ends. It calls ready when it can be connected to.
func Serve(ctx context.Context, socket string, ready func()) error {
	if os.Geteuid() != 0 {
		return errors.New("the outside world is a network namespace with routes to it: only root can make it")
	}
	// Held for its name alone: one world to a network namespace.
	lock, err := net.Listen("unix", shared)
	if errors.Is(err, unix.EADDRINUSE) {
		return errors.New("another process has made the outside world already (a run of the suite by root, or another `bottle conformance world`); wait for its end")
	}
	if err != nil {
		return err
	}
	defer func() { _ = lock.Close() }()
	s, err := newServer()
	if err != nil {
		return err
	}
	defer s.close()
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	if err := os.Chmod(socket, 0o666); err != nil {
		return errors.Join(err, l.Close())
	}
	go s.serve(lock)
	go func() {
		<-ctx.Done()
		_ = l.Close()
		_ = lock.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		for conn := range s.conns {
			_ = conn.Close()
		}
	}()
	ready()
	s.serve(l)
	s.clients.Wait()
	return nil
}
