package conformance

import (
	"context"
	"net/netip"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
	"github.com/bottle-run/bottle/runtime/conformance/world"
)

var neighbourTests = []Test{
	{
		Name: "neighbours/internal-to-internal", Kernel: true,
		Doc: "A container on an internal network does not reach another bottle's internal network.",
		Run: apart(true, true),
	},
	{
		Name: "neighbours/internal-to-egress", Kernel: true,
		Doc: "A container on an internal network does not reach another bottle's network with a way out.",
		Run: apart(true, false),
	},
	{
		Name: "neighbours/egress-to-internal", Kernel: true,
		Doc: "A container on a network with a way out does not reach another bottle's internal network.",
		Run: apart(false, true),
	},
	{
		Name: "neighbours/egress-to-egress", Kernel: true,
		Doc: "A container on a network with a way out does not reach another bottle's.",
		Run: apart(false, false),
	},
	{
		Name: "neighbours/with-net-admin", Kernel: true,
		Doc: "With NET_ADMIN and routes of its own a container reaches no other bottle's network, from either kind to either kind.",
		Run: apartWithNetAdmin,
	},
}

// stranger runs a server on a network of another bottle.
func (e *Env) stranger(ctx context.Context, internal bool) (runtime.Network, *Box, error) {
	n, err := e.Network(ctx, internal)
	if err != nil {
		return n, nil, err
	}
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"listen", "tcp :80", "udp :80"}, Networks: Attach(n)})
	return n, b, err
}

// knocks tries the stranger from b, then, as the control, from beside it.
func (e *Env) knocks(ctx context.Context, b *Box, n runtime.Network, stranger *Box) error {
	at := netip.AddrPortFrom(netip.MustParseAddr(stranger.Address(n)), 80)
	if _, err := b.unanswered(ctx, targets(at, "tcp", "udp", "icmp")...); err != nil {
		return err
	}
	beside, err := e.Box(ctx, n)
	if err != nil {
		return err
	}
	if err := beside.reaches(ctx, targets(at, "tcp", "udp")...); err != nil {
		return failed("control: %w", err)
	}
	return e.Runtime.RemoveContainer(ctx, beside.ID)
}

func apart(from, to bool) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		n, stranger, err := e.stranger(ctx, to)
		if err != nil {
			return err
		}
		mine, err := e.Network(ctx, from)
		if err != nil {
			return err
		}
		b, err := e.BoxOf(ctx, runtime.ContainerSpec{Capabilities: []string{"NET_RAW"}, Networks: Attach(mine)})
		if err != nil {
			return err
		}
		return e.knocks(ctx, b, n, stranger)
	}
}

func apartWithNetAdmin(ctx context.Context, e *Env) error {
	for _, to := range []bool{true, false} {
		n, stranger, err := e.stranger(ctx, to)
		if err != nil {
			return err
		}
		for _, from := range []bool{true, false} {
			mine, err := e.Network(ctx, from)
			if err != nil {
				return err
			}
			b, err := e.BoxOf(ctx, runtime.ContainerSpec{Capabilities: []string{"NET_ADMIN", "NET_RAW"}, Networks: Attach(mine)})
			if err != nil {
				return err
			}
			link, err := b.link(ctx, mine)
			if err != nil {
				return err
			}
			if _, err := b.Do(ctx, "route", n.Subnet.String(), "dev", link); err != nil {
				return err
			}
			if err := e.knocks(ctx, b, n, stranger); err != nil {
				return failed("from Internal %v to Internal %v, with a route on the link: %w", from, to, err)
			}
		}
	}
	return nil
}

var egressTests = []Test{
	{
		Name: "egress/tcp-and-udp", Kernel: true, World: true,
		Doc: "From a network with a way out the outside is reached, TCP and UDP.",
		Run: egressWorks,
	},
	{
		Name: "egress/names", Kernel: true, World: true,
		Doc: "From a network with a way out the host's name server is reached, by the engine's resolver, and names of containers resolve too.",
		Run: egressNames,
	},
	{
		Name: "egress/beside-an-internal-network", Kernel: true, World: true,
		Doc: "A container on an internal network and one with a way out has the way out, in either order of attachment.",
		Run: egressBeside,
	},
	{
		Name: "egress/two-ways-out", Kernel: true, World: true,
		Doc: "Two containers of different networks with a way out reach the same outside host at the same time.",
		Run: egressTwice,
	},
}

func egressWorks(ctx context.Context, e *Env) error {
	n, err := e.Network(ctx, false)
	if err != nil {
		return err
	}
	b, err := e.Box(ctx, n)
	if err != nil {
		return err
	}
	for _, place := range []world.Place{world.A, world.B} {
		at, err := e.World.Listen(ctx, place)
		if err != nil {
			return err
		}
		if err := b.reaches(ctx, targets(at, "tcp", "udp")...); err != nil {
			return err
		}
		if err := e.heard(ctx, world.Query{Addr: at.Addr()}, "a container with a way out"); err != nil {
			return err
		}
	}
	return nil
}

func egressNames(ctx context.Context, e *Env) error {
	n, err := e.Network(ctx, false)
	if err != nil {
		return err
	}
	peer, err := e.Box(ctx, n)
	if err != nil {
		return err
	}
	b, err := e.Box(ctx, n)
	if err != nil {
		return err
	}
	if err := b.resolves(ctx, peer.Address(n), peer.Name); err != nil {
		return err
	}
	token := e.Token()
	if !e.suite.recordingResolver {
		// The host's own name server is somebody else's: it is not asked for names
		// that only the world knows.
		var results []probe.Resolved
		if err := b.JSON(ctx, &results, "dns", reachTimeout, token+"."+world.Zone, e.World.Layout().DNS.String()); err != nil {
			return err
		}
		return e.heard(ctx, world.Query{Token: token}, "a DNS query of a container with a way out")
	}
	if err := b.resolves(ctx, e.World.Layout().Answer.String(), token+"."+world.Zone); err != nil {
		return err
	}
	return e.heard(ctx, world.Query{Token: token}, "a DNS query through the engine's resolver")
}

func egressBeside(ctx context.Context, e *Env) error {
	inner, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	outer, err := e.Network(ctx, false)
	if err != nil {
		return err
	}
	for _, order := range [][]runtime.Network{{inner, outer}, {outer, inner}} {
		b, err := e.Box(ctx, order...)
		if err != nil {
			return err
		}
		at, err := e.World.Listen(ctx, world.A)
		if err != nil {
			return err
		}
		if err := b.reaches(ctx, targets(at, "tcp", "udp")...); err != nil {
			return err
		}
	}
	return nil
}

func egressTwice(ctx context.Context, e *Env) error {
	at, err := e.World.Listen(ctx, world.B)
	if err != nil {
		return err
	}
	var boxes []*Box
	for range 2 {
		n, err := e.Network(ctx, false)
		if err != nil {
			return err
		}
		b, err := e.Box(ctx, n)
		if err != nil {
			return err
		}
		boxes = append(boxes, b)
	}
	errs := make(chan error, len(boxes))
	for _, b := range boxes {
		go func() { errs <- b.reaches(ctx, targets(at, "tcp", "udp")...) }()
	}
	return first(<-errs, <-errs)
}
