package conformance

import (
	"context"
	"net/netip"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/world"
)

var sealingTests = []Test{
	sealed("sealing/tcp", "no TCP connection to an outside address is made", world.A, "tcp"),
	sealed("sealing/udp", "no UDP datagram reaches an outside address", world.A, "udp"),
	sealed("sealing/icmp", "no ICMP reaches an outside address, even from a container that may send it (NET_RAW)", world.B, "icmp"),
	sealed("sealing/ipv6", "no IPv6 reaches an outside address: TCP, UDP, ICMP", world.V6, "tcp", "udp", "icmp"),
	sealed("sealing/metadata-address", "nothing reaches 169.254.169.254: TCP, UDP, ICMP", world.Metadata, "tcp", "udp", "icmp"),
	{
		Name: "sealing/host-by-every-address", Kernel: true, World: true,
		Doc: "From an internal network nothing of this host answers: TCP, UDP and ICMP to each of its addresses, those of all bridges among them.",
		Run: sealedFromHost,
	},
	{
		Name: "sealing/gateway-and-subnet", Kernel: true, World: true,
		Doc: "From an internal network no address of its subnet answers, other than the containers': no gateway with services of the host, no resolver, no ICMP.",
		Run: sealedFromGateway,
	},
	{
		Name: "sealing/ipv6-link-local", Kernel: true, World: true,
		Doc: "From an internal network this host is not reached by link-local IPv6: by the addresses of its links, nor by the all-nodes group.",
		Run: sealedFromLinkLocal,
	},
	{
		Name: "sealing/without-a-network", Kernel: true, World: true,
		Doc: "A container without networks reaches nothing.",
		Run: sealedWithoutNetwork,
	},
	{
		Name: "sealing/stays-when-others-come", Kernel: true, World: true,
		Doc: "A sealed container stays sealed while networks and containers with a way out come and go.",
		Run: staysSealed,
	},
}

// sealed is the test that a place of the world is not reached.
func sealed(name, doc string, place world.Place, protocols ...string) Test {
	return Test{
		Name: name, Doc: "From an internal network " + doc + ".", Kernel: true, World: true,
		Run: func(ctx context.Context, e *Env) error {
			if place == world.V6 && !e.World.Layout().IPv6() {
				return sealedWithoutIPv6(ctx, e)
			}
			s, err := e.scene(ctx, "NET_RAW")
			if err != nil {
				return err
			}
			return s.proveSealed(ctx, e, place, protocols, nil)
		},
	}
}

// sealedWithoutIPv6 is what can be proved on a host that has no IPv6: neither
// has the container, other than loopback's.
func sealedWithoutIPv6(ctx context.Context, e *Env) error {
	n, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	b, err := e.Box(ctx, n)
	if err != nil {
		return err
	}
	_, err = b.unanswered(ctx, "tcp [2001:db8:b0::64]:80", "udp [2001:db8:b0::64]:80")
	return err
}

func sealedFromHost(ctx context.Context, e *Env) error {
	s, err := e.siege(ctx, "NET_RAW")
	if err != nil {
		return err
	}
	var all []string
	for _, a := range s.addrs {
		if a.Zone() == "" {
			all = append(all, targets(netip.AddrPortFrom(a, s.host.port), "tcp", "udp", "icmp")...)
		}
	}
	token, err := s.sealed.unanswered(ctx, all...)
	if err != nil {
		return err
	}
	// That the probe works from there is proved on the world.
	at, err := e.World.Listen(ctx, world.A)
	if err != nil {
		return err
	}
	if err := s.control(ctx, e, at, []string{"tcp", "udp"}); err != nil {
		return err
	}
	return s.quiet(token)
}

func sealedFromGateway(ctx context.Context, e *Env) error {
	s, err := e.siege(ctx, "NET_RAW")
	if err != nil {
		return err
	}
	listener, err := e.BoxOf(ctx, runtime.ContainerSpec{
		Command: []string{"listen", "tcp :53", "udp :53"}, Networks: Attach(s.inner),
	})
	if err != nil {
		return err
	}
	var all []string
	for _, a := range addressesIn(s.inner.Subnet, s.sealed.Address(s.inner), listener.Address(s.inner)) {
		// A resolver or a service of the host, or anything that answers at all.
		all = append(all, targets(netip.AddrPortFrom(a, 53), "tcp", "udp", "icmp")...)
		all = append(all, targets(netip.AddrPortFrom(a, s.host.port), "tcp", "udp")...)
	}
	token, err := s.sealed.unanswered(ctx, all...)
	if err != nil {
		return err
	}
	if err := s.sealed.reaches(ctx, targets(netip.AddrPortFrom(netip.MustParseAddr(listener.Address(s.inner)), 53), "tcp", "udp", "icmp")...); err != nil {
		return failed("control: %w", err)
	}
	return s.quiet(token)
}

func sealedFromLinkLocal(ctx context.Context, e *Env) error {
	s, err := e.siege(ctx, "NET_RAW")
	if err != nil {
		return err
	}
	if err := s.settle(ctx); err != nil {
		return err
	}
	all := targets(netip.AddrPortFrom(netip.IPv6LinkLocalAllNodes().WithZone(s.link), s.host.port), "udp", "icmp")
	for _, a := range s.addrs {
		if a.Zone() != "" {
			all = append(all, targets(netip.AddrPortFrom(a.WithZone(s.link), s.host.port), "tcp", "udp", "icmp")...)
		}
	}
	token, err := s.sealed.unanswered(ctx, all...)
	if err != nil {
		return err
	}
	if err := s.quiet(token); err != nil {
		return err
	}
	at, err := e.World.Listen(ctx, world.A)
	if err != nil {
		return err
	}
	return s.control(ctx, e, at, []string{"tcp"})
}

func sealedWithoutNetwork(ctx context.Context, e *Env) error {
	s, err := e.scene(ctx, "NET_RAW", "NET_ADMIN")
	if err != nil {
		return err
	}
	if s.sealed, err = e.BoxOf(ctx, runtime.ContainerSpec{Capabilities: []string{"NET_RAW", "NET_ADMIN"}}); err != nil {
		return err
	}
	return s.proveSealed(ctx, e, world.A, []string{"tcp", "udp"}, nil)
}

func staysSealed(ctx context.Context, e *Env) error {
	s, err := e.scene(ctx)
	if err != nil {
		return err
	}
	if err := s.proveSealed(ctx, e, world.B, []string{"tcp", "udp"}, nil); err != nil {
		return err
	}
	// The control goes; the sealed one stays.
	if err := e.Runtime.RemoveContainer(ctx, s.open.ID); err != nil {
		return err
	}
	if err := e.Runtime.RemoveNetwork(ctx, s.outer.ID); err != nil {
		return err
	}
	if s.outer, err = e.Network(ctx, false); err != nil {
		return err
	}
	if s.open, err = e.Box(ctx, s.outer); err != nil {
		return err
	}
	return s.proveSealed(ctx, e, world.B, []string{"tcp", "udp"}, nil)
}
