// Package world is the outside that a sealed container must not reach: a
// network namespace to which this host routes the documentation's networks, the
// metadata address among them. In it every packet is recorded, echo servers
// answer on request, and a name server answers (and so records) every query for
// *.world.test.
//
// A world lives in the process that made it and vanishes with it, however that
// ends. It needs root, on Linux. Other processes of the same network namespace
// share it through a socket: that is how the suite runs as an unprivileged user.
package world

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

// EnvSocket names the socket of a world that another process serves.
const EnvSocket = "BOTTLE_CONFORMANCE_WORLD"

// Zone is the domain whose names the name server knows.
const Zone = "world.test"

// Place is one of the world's networks.
type Place string

// The places.
const (
	A        Place = "a"        // in 198.51.100.0/24
	B        Place = "b"        // in 203.0.113.0/24
	V6       Place = "v6"       // in 2001:db8:b0::/64; see Layout.IPv6
	Metadata Place = "metadata" // 169.254.169.254
)

// Layout tells where things are.
type Layout struct {
	A, B netip.Prefix
	// V6 is invalid where the host has no IPv6.
	V6       netip.Prefix
	Metadata netip.Addr
	// DNS is the name server's address, port 53, UDP and TCP.
	DNS netip.Addr
	// Answer is what the name server says for every A of the zone, but for names that
	// consist of addresses (198-51-100-7.world.test).
	Answer netip.Addr
}

// IPv6 reports whether the world has IPv6.
func (l Layout) IPv6() bool { return l.V6.IsValid() }

// Hit is a packet that reached the world.
type Hit struct {
	Time     time.Time
	Protocol string // "tcp", "udp", "icmp", "icmpv6", or a number
	Src, Dst netip.AddrPort
	Payload  []byte // the IP payload, header of the transport included, cut off
}

// String describes the packet in a line.
func (h Hit) String() string { return fmt.Sprintf("%s %s -> %s", h.Protocol, h.Src, h.Dst) }

// Query selects hits: those to Addr, or that carry Token in any letter case, or
// either where both are given.
type Query struct {
	Addr  netip.Addr
	Port  uint16 // of Addr; 0 is any
	Token string
}

// World is a connection to a world. It is safe for concurrent use.
type World interface {
	Layout() Layout
	// Listen starts a TCP and a UDP echo server at a place, at an address that no
	// other call was given (but for Metadata, which is one) and a port of its own.
	// They end with the connection.
	Listen(ctx context.Context, p Place) (netip.AddrPort, error)
	// Bind listens at an address of the world, on behalf of this process: a server of
	// the caller's own. It ends when the listener is closed.
	Bind(ctx context.Context, at netip.AddrPort) (net.Listener, error)
	// Hits returns what was received, oldest first. What was sent by this host
	// before the call is in it.
	Hits(ctx context.Context, q Query) ([]Hit, error)
	// Close ends the connection, and with the last one a world of this process.
	Close() error
}

// Open connects to the world that socket (or BOTTLE_CONFORMANCE_WORLD) names. If
// neither does, it makes one in this process, or shares that of another root
// process of this network namespace.
func Open(ctx context.Context, socket string) (World, error) {
	if socket == "" {
		socket = os.Getenv(EnvSocket)
	}
	if socket != "" {
		return Connect(ctx, socket)
	}
	if os.Geteuid() != 0 {
		return nil, errors.New("the tests of sealing need a network namespace that only root can make, and this is not root; " +
			"run `sudo bottle conformance world --listen PATH` in another terminal, and this with " + EnvSocket + "=PATH")
	}
	return inProcess(ctx)
}
