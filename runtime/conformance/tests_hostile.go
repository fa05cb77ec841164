package conformance

import (
	"context"
	"net/netip"
	"strings"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/world"
)

var hostileTests = []Test{
	{
		Name: "sealing/added-route-without-net-admin", Kernel: true, World: true,
		Doc: "Without NET_ADMIN a container cannot add a route, and stays sealed.",
		Run: routeDenied,
	},
	{
		Name: "sealing/added-route-with-net-admin", Kernel: true, World: true, Timeout: 2 * DefaultTimeout,
		Doc: "With NET_ADMIN a container adds a route to the outside, on the link and by every address of the subnet, and stays sealed.",
		Run: routeAdded,
	},
	{
		Name: "sealing/added-route-to-the-host", Kernel: true, World: true,
		Doc: "With NET_ADMIN a container routes this host's addresses onto the link, and still none of its services is reached.",
		Run: routeToHost,
	},
	{
		Name: "sealing/added-ipv6-address-and-route", Kernel: true, World: true,
		Doc: "With NET_ADMIN a container takes an IPv6 address and routes by this host's link-local addresses, and stays sealed.",
		Run: routeIPv6,
	},
	{
		Name: "sealing/added-address", Kernel: true, World: true,
		Doc: "With NET_ADMIN a container takes an address of the outside's network, and stays sealed.",
		Run: addressAdded,
	},
	{
		Name: "sealing/forged-frames", Kernel: true, World: true,
		Doc: "With NET_RAW a container sends frames to the hardware addresses of this host's links, bridges among them, and to all: no datagram in them reaches a service of the host or the outside.",
		Run: framesForged,
	},
	{
		Name: "sealing/broadcast-and-multicast", Kernel: true, World: true,
		Doc: "What a container sends to everybody on its network reaches no service of this host.",
		Run: broadcastSent,
	},
	{
		Name: "sealing/no-forwarding-to-the-outside", Kernel: true, World: true,
		Doc: "A container on both networks forwards nothing: one that routes through it, with NET_ADMIN, stays sealed.",
		Run: notForwardedOut,
	},
	{
		Name: "sealing/no-forwarding-to-the-inside", Kernel: true,
		Doc: "A container on both networks forwards nothing inwards either: one on the network with a way out does not reach the internal one through it.",
		Run: notForwardedIn,
	},
}

func routeDenied(ctx context.Context, e *Env) error {
	s, err := e.scene(ctx)
	if err != nil {
		return err
	}
	link, err := s.sealed.link(ctx, s.inner)
	if err != nil {
		return err
	}
	out, err := s.sealed.Exec(ctx, "route", e.World.Layout().A.String(), "dev", link)
	if err != nil {
		return err
	}
	if out.Code == 0 || !strings.Contains(out.Stderr, "not permitted") {
		return failed("expected a route to be denied, got exit status %d: %s", out.Code, out.Stderr)
	}
	return s.proveSealed(ctx, e, world.A, []string{"tcp", "udp"}, nil)
}

func routeAdded(ctx context.Context, e *Env) error {
	s, err := e.scene(ctx, "NET_ADMIN", "NET_RAW")
	if err != nil {
		return err
	}
	link, err := s.sealed.link(ctx, s.inner)
	if err != nil {
		return err
	}
	try := func(where ...string) error {
		return s.proveSealed(ctx, e, world.A, []string{"tcp", "udp", "icmp"}, func(ctx context.Context, b *Box, a netip.Addr) error {
			_, err := b.Do(ctx, append([]string{"route", netip.PrefixFrom(a, 32).String()}, where...)...)
			return err
		})
	}
	if err := try("dev", link); err != nil {
		return failed("route on the link: %w", err)
	}
	// Where a gateway is, or could be: the first, the second and the last address.
	in := addressesIn(s.inner.Subnet, s.sealed.Address(s.inner))
	gateways := map[netip.Addr]bool{in[1]: true, in[2]: true, in[len(in)-2]: true}
	if s.inner.Gateway.IsValid() {
		gateways[s.inner.Gateway] = true
	}
	for g := range gateways {
		if err := try("via", g.String()); err != nil {
			return failed("route by %s: %w", g, err)
		}
	}
	return nil
}

func routeToHost(ctx context.Context, e *Env) error {
	s, err := e.siege(ctx, "NET_ADMIN", "NET_RAW")
	if err != nil {
		return err
	}
	var all []string
	for _, a := range s.addrs {
		if !a.Is4() {
			continue
		}
		if _, err := s.sealed.Do(ctx, "route", netip.PrefixFrom(a, 32).String(), "dev", s.link); err != nil {
			return err
		}
		all = append(all, targets(netip.AddrPortFrom(a, s.host.port), "tcp", "udp", "icmp")...)
	}
	token, err := s.sealed.unanswered(ctx, all...)
	if err != nil {
		return err
	}
	at, err := e.World.Listen(ctx, world.A)
	if err != nil {
		return err
	}
	if err := s.control(ctx, e, at, []string{"tcp", "udp"}); err != nil {
		return err
	}
	return check(len(s.host.received(token)) == 0 && s.host.connections() == 0, "nothing should reach this host's services, but something came from %q", s.host.received(token))
}

func routeIPv6(ctx context.Context, e *Env) error {
	s, err := e.siege(ctx, "NET_ADMIN", "NET_RAW")
	if err != nil {
		return err
	}
	if !e.World.Layout().IPv6() {
		return sealedWithoutIPv6(ctx, e)
	}
	// An engine that has no IPv6 in its containers refuses this; that seals too.
	for _, command := range [][]string{
		{"addr", "2001:db8:b0:ffff::9/64", s.link}, {"addr", "fe80::9999/64", s.link}, {"route", "2001:db8:b0::/64", "dev", s.link},
	} {
		if out, err := s.sealed.Exec(ctx, command...); err != nil {
			return err
		} else if out.Code != 0 {
			e.Logf("%v: %s", command, out.Stderr)
		}
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	if err := s.proveSealed(ctx, e, world.V6, []string{"tcp", "udp", "icmp"}, nil); err != nil {
		return err
	}
	var all []string
	tried := 0
	for _, a := range s.addrs {
		switch {
		case a.Is4():
			continue
		case a.Zone() == "":
			if _, err := s.sealed.Exec(ctx, "route", netip.PrefixFrom(a, 128).String(), "dev", s.link); err != nil {
				return err
			}
			all = append(all, targets(netip.AddrPortFrom(a, s.host.port), "tcp", "udp", "icmp")...)
		default:
			all = append(all, targets(netip.AddrPortFrom(a.WithZone(s.link), s.host.port), "tcp", "udp", "icmp")...)
			if tried++; tried > 4 {
				continue
			}
			if err := s.proveSealed(ctx, e, world.V6, []string{"tcp", "udp"}, func(ctx context.Context, b *Box, to netip.Addr) error {
				_, err := b.Exec(ctx, "route", netip.PrefixFrom(to, 128).String(), "via", a.WithZone(s.link).String())
				return err
			}); err != nil {
				return failed("route by %s: %w", a, err)
			}
		}
	}
	token, err := s.sealed.unanswered(ctx, all...)
	if err != nil {
		return err
	}
	return s.quiet(token)
}

func addressAdded(ctx context.Context, e *Env) error {
	s, err := e.scene(ctx, "NET_ADMIN")
	if err != nil {
		return err
	}
	link, err := s.sealed.link(ctx, s.inner)
	if err != nil {
		return err
	}
	// Its own address there, and that of the neighbour with a way out.
	for _, p := range []string{netip.PrefixFrom(e.World.Layout().A.Addr().Next(), 24).String(), s.open.Address(s.outer) + "/24"} {
		if _, err := s.sealed.Do(ctx, "addr", p, link); err != nil {
			return err
		}
	}
	return s.proveSealed(ctx, e, world.A, []string{"tcp", "udp"}, nil)
}

func framesForged(ctx context.Context, e *Env) error {
	s, err := e.siege(ctx, "NET_RAW")
	if err != nil {
		return err
	}
	at, err := e.World.Listen(ctx, world.A)
	if err != nil {
		return err
	}
	macs, err := hostMACs()
	if err != nil {
		return err
	}
	token := e.Token()
	sources := []string{s.sealed.Address(s.inner), s.open.Address(s.outer), "127.0.0.1"}
	command := []string{"frames", s.link, token}
	for _, src := range sources {
		for _, mac := range macs {
			command = append(command, mac+" "+src+" "+at.String())
			for _, a := range append(s.addrs, netip.MustParseAddr("127.0.0.1")) {
				if a.Is4() {
					command = append(command, mac+" "+src+" "+netip.AddrPortFrom(a, s.host.port).String())
				}
			}
		}
	}
	if _, err := s.sealed.Do(ctx, command...); err != nil {
		return err
	}
	// The control: a forged frame does arrive where it may.
	peer, err := e.BoxOf(ctx, runtime.ContainerSpec{
		Command: []string{"record", "udp :80"}, Networks: Attach(s.inner),
	})
	if err != nil {
		return err
	}
	if err := peer.Await(ctx, "ready"); err != nil {
		return err
	}
	if _, err := s.sealed.Do(ctx, "frames", s.link, token, "ff:ff:ff:ff:ff:ff "+sources[0]+" "+peer.Address(s.inner)+":80"); err != nil {
		return err
	}
	if err := peer.Await(ctx, "got "+token); err != nil {
		return failed("control: a forged frame should reach a neighbour: %w", err)
	}
	if err := s.quiet(token); err != nil {
		return err
	}
	return first(s.control(ctx, e, at, []string{"udp"}), e.silent(ctx, world.Query{Token: token}))
}

func broadcastSent(ctx context.Context, e *Env) error {
	s, err := e.siege(ctx, "NET_ADMIN")
	if err != nil {
		return err
	}
	for _, p := range []string{"224.0.0.0/4", "255.255.255.255/32"} {
		if _, err := s.sealed.Do(ctx, "route", p, "dev", s.link); err != nil {
			return err
		}
	}
	in := addressesIn(s.inner.Subnet)
	var all []string
	for _, a := range []netip.Addr{netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("224.0.0.251"), in[len(in)-1], in[0]} {
		all = append(all, targets(netip.AddrPortFrom(a, s.host.port), "udp")...)
	}
	token, err := s.sealed.unanswered(ctx, all...)
	if err != nil {
		return err
	}
	at, err := e.World.Listen(ctx, world.A)
	if err != nil {
		return err
	}
	if err := s.control(ctx, e, at, []string{"udp"}); err != nil {
		return err
	}
	return s.quiet(token)
}

// throughBoth adds, to the scene, a container on both networks.
func (s *scene) throughBoth(ctx context.Context, e *Env) (*Box, error) {
	return e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"listen", "tcp :80"}, Networks: Attach(s.inner, s.outer)})
}

func notForwardedOut(ctx context.Context, e *Env) error {
	s, err := e.scene(ctx, "NET_ADMIN", "NET_RAW")
	if err != nil {
		return err
	}
	both, err := s.throughBoth(ctx, e)
	if err != nil {
		return err
	}
	// The way to it is there, and it has a way out.
	if err := s.sealed.reaches(ctx, "tcp "+both.Address(s.inner)+":80"); err != nil {
		return failed("control: %w", err)
	}
	at, err := e.World.Listen(ctx, world.A)
	if err != nil {
		return err
	}
	if err := both.reaches(ctx, "tcp "+at.String()); err != nil {
		return failed("control: %w", err)
	}
	via := func(ctx context.Context, b *Box, to netip.Addr) error {
		_, err := b.Do(ctx, "route", netip.PrefixFrom(to, 32).String(), "via", both.Address(s.inner))
		return err
	}
	if err := s.proveSealed(ctx, e, world.A, []string{"tcp", "udp", "icmp"}, via); err != nil {
		return err
	}
	// Nor to the neighbours on the other network, nor to its other address's host.
	listener, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"listen", "tcp :80", "udp :80"}, Networks: Attach(s.outer)})
	if err != nil {
		return err
	}
	to := netip.MustParseAddr(listener.Address(s.outer))
	if err := via(ctx, s.sealed, to); err != nil {
		return err
	}
	if _, err := s.sealed.unanswered(ctx, targets(netip.AddrPortFrom(to, 80), "tcp", "udp", "icmp")...); err != nil {
		return err
	}
	return s.open.reaches(ctx, targets(netip.AddrPortFrom(to, 80), "tcp", "udp")...)
}

func notForwardedIn(ctx context.Context, e *Env) error {
	s, err := e.scene(ctx, "NET_ADMIN", "NET_RAW")
	if err != nil {
		return err
	}
	both, err := s.throughBoth(ctx, e)
	if err != nil {
		return err
	}
	listener, err := e.BoxOf(ctx, runtime.ContainerSpec{
		Command: []string{"listen", "tcp :80", "udp :80"}, Capabilities: []string{"NET_ADMIN"}, Networks: Attach(s.inner),
	})
	if err != nil {
		return err
	}
	to := netip.MustParseAddr(listener.Address(s.inner))
	// Both sides know the way.
	if _, err := s.open.Do(ctx, "route", netip.PrefixFrom(to, 32).String(), "via", both.Address(s.outer)); err != nil {
		return err
	}
	if _, err := listener.Do(ctx, "route", s.open.Address(s.outer)+"/32", "via", both.Address(s.inner)); err != nil {
		return err
	}
	if err := s.open.reaches(ctx, "tcp "+both.Address(s.outer)+":80"); err != nil {
		return failed("control: %w", err)
	}
	if _, err := s.open.unanswered(ctx, targets(netip.AddrPortFrom(to, 80), "tcp", "udp", "icmp")...); err != nil {
		return err
	}
	return s.sealed.reaches(ctx, targets(netip.AddrPortFrom(to, 80), "tcp", "udp")...)
}
