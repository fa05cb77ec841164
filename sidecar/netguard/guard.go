// Package netguard dials for a program that an attacker tells where to dial.
//
// # Promises
//
//   - Every address that a name resolves to is checked, and if any of them is
//     forbidden the name is refused; what is dialled is one of the addresses that
//     were checked, so that a second answer of the DNS changes nothing.
//   - Forbidden is every address that is not a public unicast one: private,
//     loopback, link-local (the metadata services are there), carrier-grade NAT,
//     multicast, broadcast, unspecified, documentation, benchmarking, reserved, the
//     metadata addresses outside of these, and whatever carries such an IPv4 address
//     inside an IPv6 one (mapped, compatible, NAT64, 6to4, Teredo, ISATAP).
//   - Prefixes that the operator names are allowed whatever they are.
//
// Behind an upstream proxy it is that proxy which resolves and dials: a name is
// then refused if it resolves to a forbidden address here, but a name that only
// the proxy can resolve is the proxy's to check.
package netguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// ErrForbidden is wrapped by the errors of addresses that may not be dialled.
var ErrForbidden = errors.New("the address may not be dialled")

// ForbiddenError says which address of which host is forbidden, and why.
type ForbiddenError struct {
	Host string
	Addr netip.Addr
	// Class is the kind of address: "private", "loopback", "link-local" …
	Class string
}

func (e *ForbiddenError) Error() string {
	if e.Host == e.Addr.String() {
		return fmt.Sprintf("%s is a %s address, which may not be dialled", e.Addr, e.Class)
	}
	return fmt.Sprintf("%s resolves to the %s address %s, which may not be dialled", e.Host, e.Class, e.Addr)
}

// Is makes errors.Is(err, ErrForbidden) true.
func (e *ForbiddenError) Is(target error) bool { return target == ErrForbidden }

// Resolver finds the addresses of a name. [net.Resolver] is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Guard dials what may be dialled. The zero value forbids everything that is not
// public and asks the system's resolver.
type Guard struct {
	// Allow are prefixes that may be dialled although they are not public.
	Allow []netip.Prefix
	// Resolver is asked for names. Default: the system's.
	Resolver Resolver
	// Dialer dials. Its Control and Resolver are not to be set.
	Dialer net.Dialer
	// Attempt bounds the time spent on one of several addresses. Default: 5 s.
	Attempt time.Duration
}

// DNS returns a resolver that asks the servers given as IP:PORT, in turn, and never
// the system's.
func DNS(servers []netip.AddrPort) *net.Resolver {
	next := make(chan int, 1)
	next <- 0
	return &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
			i := <-next
			next <- (i + 1) % len(servers)
			d := net.Dialer{Timeout: 5 * time.Second}
			return d.DialContext(ctx, network, servers[i].String())
		},
	}
}

// maxAddrs bounds how many addresses of one name are tried.
const maxAddrs = 8

// Resolve returns the addresses of a host, which is a name or an address, if every one
// of them may be dialled. The error wraps [ErrForbidden] if one may not.
func (g *Guard) Resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		if err := g.Check(host, addr); err != nil {
			return nil, err
		}
		return []netip.Addr{addr.Unmap()}, nil
	}
	var r Resolver = net.DefaultResolver
	if g.Resolver != nil {
		r = g.Resolver
	}
	// The dot keeps search domains out of it.
	addrs, err := r.LookupNetIP(ctx, "ip", host+".")
	if err != nil {
		return nil, fmt.Errorf("resolving %s: %w", host, err)
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("resolving %s: it has no address", host)
	}
	for i, addr := range addrs {
		if err := g.Check(host, addr); err != nil {
			return nil, err
		}
		addrs[i] = addr.Unmap()
	}
	return addrs, nil
}

// Check says whether an address that host stands for may be dialled.
func (g *Guard) Check(host string, addr netip.Addr) error {
	plain := addr.Unmap().WithZone("")
	for _, p := range g.Allow {
		if p.Contains(plain) {
			return nil
		}
	}
	if class := Classify(addr); class != "" {
		return &ForbiddenError{Host: host, Addr: addr, Class: class}
	}
	return nil
}

// DialContext dials HOST:PORT over TCP, as [net.Dialer.DialContext] does, through the
// guard.
func (g *Guard) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addrs, err := g.Resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(addrs) > maxAddrs {
		addrs = addrs[:maxAddrs]
	}
	attempt := g.Attempt
	if attempt == 0 {
		attempt = 5 * time.Second
	}
	var errs []error
	for i, addr := range addrs {
		actx, cancel := ctx, context.CancelFunc(func() {})
		if i < len(addrs)-1 {
			actx, cancel = context.WithTimeout(ctx, attempt)
		}
		conn, err := g.Dialer.DialContext(actx, network, net.JoinHostPort(addr.String(), port))
		cancel()
		if err == nil {
			return conn, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("dialling %s: %w", address, errors.Join(errs...))
}
