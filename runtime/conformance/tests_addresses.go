package conformance

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

// How long a probe tries: what must be reached may take a moment, and what must
// not be reached has to be waited for.
const (
	reachTimeout   = "20s"
	unreachTimeout = "700ms"
)

// dial tries targets from the container.
func (b *Box) dial(ctx context.Context, timeout, token string, targets ...string) ([]probe.Answer, error) {
	var answers []probe.Answer
	err := b.JSON(ctx, &answers, append([]string{"dial", timeout, token}, targets...)...)
	return answers, err
}

// reaches fails unless every target echoes what it is sent.
func (b *Box) reaches(ctx context.Context, targets ...string) error {
	token := b.env.Token()
	answers, err := b.dial(ctx, reachTimeout, token, targets...)
	if err != nil {
		return err
	}
	for _, a := range answers {
		if !a.OK || a.Data != token {
			return failed("expected %s to answer container %s, got: %s", a.Target, b.Name, a.Err)
		}
	}
	return nil
}

// resolves fails unless each name has the address.
func (b *Box) resolves(ctx context.Context, want string, names ...string) error {
	var results []probe.Resolved
	if err := b.JSON(ctx, &results, append([]string{"resolve", reachTimeout}, names...)...); err != nil {
		return err
	}
	for _, r := range results {
		if !slices.ContainsFunc(r.Addrs, func(a netip.Addr) bool { return a.String() == want }) {
			return failed("expected name %q to resolve to %s in container %s, got %v %s", r.Name, want, b.Name, r.Addrs, r.Err)
		}
	}
	return nil
}

var addressTests = []Test{
	{
		Name: "names/of-containers-and-aliases-resolve", Kernel: true,
		Doc: "On both kinds of network a container finds another by its name and by each alias, and itself too.",
		Run: onBothKinds(namesResolve),
	},
	{
		Name: "names/late-joiners-resolve", Kernel: true,
		Doc: "A container that runs already finds one that joins later, by name and alias, and no more when it has gone.",
		Run: onBothKinds(lateJoiners),
	},
	{
		Name: "names/of-other-networks-do-not-resolve", Kernel: true,
		Doc: "A name of one network is unknown on another.",
		Run: namesStayInside,
	},
	{
		Name: "names/host-name-is-the-name", Kernel: true,
		Doc: "A container's host name is its name, or what the spec says.",
		Run: hostNames,
	},
	{
		Name: "names/two-networks-at-once", Kernel: true,
		Doc: "A container on two networks is reached on both, under each network's own alias, and reaches both.",
		Run: twoNetworks,
	},
	{
		Name: "names/no-network-is-loopback-alone", Kernel: true,
		Doc: "A container without networks has loopback, which is up, and no other address.",
		Run: noNetwork,
	},
	{
		Name: "names/fixed-address", Kernel: true,
		Doc: "A container has the address that was asked for; one outside of the subnet is InvalidArgument, a taken one FailedPrecondition or AlreadyExists.",
		Run: fixedAddress,
	},
	{
		Name: "names/endpoints-are-reported",
		Doc:  "A container's endpoints tell network, address and the aliases asked for.",
		Run:  endpointsReported,
	},
	{
		Name: "names/traffic-within-a-network", Kernel: true,
		Doc: "TCP, UDP and ICMP flow between the containers of one network, internal or not.",
		Run: onBothKinds(trafficWithin),
	},
}

// onBothKinds runs a test on an internal network and on one that is not.
func onBothKinds(test func(context.Context, *Env, runtime.Network) error) func(context.Context, *Env) error {
	return func(ctx context.Context, e *Env) error {
		for _, internal := range []bool{true, false} {
			n, err := e.Network(ctx, internal)
			if err != nil {
				return err
			}
			if err := test(ctx, e, n); err != nil {
				return fmt.Errorf("on a network with Internal %v: %w", internal, err)
			}
		}
		return nil
	}
}

func namesResolve(ctx context.Context, e *Env, n runtime.Network) error {
	server, err := e.BoxOf(ctx, runtime.ContainerSpec{
		Command:  []string{"listen", "tcp :80"},
		Networks: []runtime.NetworkAttachment{{Network: n.Name, Aliases: []string{"service", "other.name"}}},
	})
	if err != nil {
		return err
	}
	client, err := e.Box(ctx, n)
	if err != nil {
		return err
	}
	names := []string{server.Name, "service", "other.name"}
	if err := client.resolves(ctx, server.Address(n), names...); err != nil {
		return err
	}
	if err := client.reaches(ctx, "tcp "+server.Name+":80", "tcp service:80", "tcp other.name:80"); err != nil {
		return err
	}
	return first(server.resolves(ctx, server.Address(n), server.Name), server.resolves(ctx, client.Address(n), client.Name))
}

func lateJoiners(ctx context.Context, e *Env, n runtime.Network) error {
	early, err := e.Box(ctx, n)
	if err != nil {
		return err
	}
	late, err := e.BoxOf(ctx, runtime.ContainerSpec{
		Command:  []string{"listen", "tcp :80"},
		Networks: []runtime.NetworkAttachment{{Network: n.Name, Aliases: []string{"late"}}},
	})
	if err != nil {
		return err
	}
	if err := early.resolves(ctx, late.Address(n), late.Name, "late"); err != nil {
		return err
	}
	if err := early.reaches(ctx, "tcp late:80"); err != nil {
		return err
	}
	if err := e.Runtime.RemoveContainer(ctx, late.ID); err != nil {
		return err
	}
	return poll(ctx, patience, func(ctx context.Context) error { return early.knowsNot(ctx, late.Name, "late") })
}

// knowsNot fails if a name resolves.
func (b *Box) knowsNot(ctx context.Context, names ...string) error {
	var results []probe.Resolved
	if err := b.JSON(ctx, &results, append([]string{"resolve", "1s"}, names...)...); err != nil {
		return err
	}
	for _, r := range results {
		if len(r.Addrs) > 0 {
			return failed("expected name %q to be unknown in container %s, got %v", r.Name, b.Name, r.Addrs)
		}
	}
	return nil
}

func namesStayInside(ctx context.Context, e *Env) error {
	a, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	b, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	here, err := e.BoxOf(ctx, runtime.ContainerSpec{Networks: []runtime.NetworkAttachment{{Network: a.Name, Aliases: []string{"here"}}}})
	if err != nil {
		return err
	}
	neighbour, err := e.Box(ctx, a)
	if err != nil {
		return err
	}
	there, err := e.Box(ctx, b)
	if err != nil {
		return err
	}
	return first(neighbour.resolves(ctx, here.Address(a), here.Name, "here"), there.knowsNot(ctx, here.Name, "here"))
}

func hostNames(ctx context.Context, e *Env) error {
	for _, hostname := range []string{"", "chosen-name"} {
		b, err := e.BoxOf(ctx, runtime.ContainerSpec{Hostname: hostname})
		if err != nil {
			return err
		}
		want := hostname
		if want == "" {
			want = b.Name
		}
		var id probe.Identity
		if err := b.JSON(ctx, &id, "id"); err != nil {
			return err
		}
		if id.Host != want {
			return failed("expected host name %q, got %q", want, id.Host)
		}
	}
	return nil
}

func twoNetworks(ctx context.Context, e *Env) error {
	inner, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	outer, err := e.Network(ctx, false)
	if err != nil {
		return err
	}
	both, err := e.BoxOf(ctx, runtime.ContainerSpec{
		Command: []string{"listen", "tcp :80"},
		Networks: []runtime.NetworkAttachment{
			{Network: inner.Name, Aliases: []string{"inside"}}, {Network: outer.Name, Aliases: []string{"outside"}},
		},
	})
	if err != nil {
		return err
	}
	if both.Address(inner) == "" || both.Address(outer) == "" {
		return failed("expected an address on both networks, got %+v", both.Networks)
	}
	for _, side := range []struct {
		n     runtime.Network
		alias string
		other string
	}{{inner, "inside", "outside"}, {outer, "outside", "inside"}} {
		peer, err := e.BoxOf(ctx, runtime.ContainerSpec{
			Command: []string{"listen", "tcp :81"}, Networks: []runtime.NetworkAttachment{{Network: side.n.Name}},
		})
		if err != nil {
			return err
		}
		if err := first(
			peer.resolves(ctx, both.Address(side.n), both.Name, side.alias),
			peer.reaches(ctx, "tcp "+side.alias+":80", "tcp "+both.Address(side.n)+":80"),
			both.resolves(ctx, peer.Address(side.n), peer.Name),
			both.reaches(ctx, "tcp "+peer.Name+":81"),
			peer.knowsNot(ctx, side.other),
		); err != nil {
			return err
		}
	}
	return nil
}

func noNetwork(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	if len(b.Networks) != 0 {
		return failed("expected no endpoint, got %+v", b.Networks)
	}
	var links []probe.Interface
	if err := b.JSON(ctx, &links, "ifaces"); err != nil {
		return err
	}
	loopback := false
	for _, l := range links {
		for _, p := range l.Addrs {
			if !p.Addr().IsLoopback() {
				return failed("expected loopback alone, got %s on %s", p, l.Name)
			}
			loopback = true
		}
	}
	return check(loopback, "expected an address of loopback, got %+v", links)
}

func fixedAddress(ctx context.Context, e *Env) error {
	n, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	want := n.Subnet.Addr()
	for range 9 {
		want = want.Next()
	}
	with := func(a netip.Addr) runtime.ContainerSpec {
		return runtime.ContainerSpec{Networks: []runtime.NetworkAttachment{{Network: n.Name, Address: a}}}
	}
	if !n.Subnet.Contains(want.Next()) {
		want = n.Subnet.Addr().Next().Next().Next() // a /29
	}
	b, err := e.BoxOf(ctx, with(want))
	if err != nil {
		return err
	}
	if got := b.Address(n); got != want.String() {
		return failed("expected address %s, got %s", want, got)
	}
	if err := b.hasAddress(ctx, want); err != nil {
		return err
	}
	_, err = e.BoxOf(ctx, with(want))
	taken := func(err error) bool { return errdefs.IsFailedPrecondition(err) || errdefs.IsAlreadyExists(err) }
	if err := kind(err, taken, "FailedPrecondition or AlreadyExists", "ask for a taken address"); err != nil {
		return err
	}
	_, err = e.BoxOf(ctx, with(netip.MustParseAddr("203.0.113.9")))
	return kind(err, errdefs.IsInvalidArgument, "InvalidArgument", "ask for an address outside of the subnet")
}

func endpointsReported(ctx context.Context, e *Env) error {
	inner, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	outer, err := e.Network(ctx, false)
	if err != nil {
		return err
	}
	made, err := e.BoxOf(ctx, runtime.ContainerSpec{Networks: []runtime.NetworkAttachment{
		{Network: inner.Name, Aliases: []string{"one", "two"}}, {Network: outer.ID, Aliases: []string{"three"}},
	}})
	if err != nil {
		return err
	}
	seen, err := e.Runtime.InspectContainer(ctx, made.Name)
	if err != nil {
		return err
	}
	for _, c := range []runtime.Container{made.Container, seen} {
		if len(c.Networks) != 2 {
			return failed("expected two endpoints, got %+v", c.Networks)
		}
		for _, ep := range c.Networks {
			n, aliases := inner, []string{"one", "two"}
			if ep.Network == outer.Name {
				n, aliases = outer, []string{"three"}
			}
			if ep.Network != n.Name || !n.Subnet.Contains(ep.Address) {
				return failed("expected an endpoint on network %s with an address in %s, got %+v", n.Name, n.Subnet, ep)
			}
			for _, a := range aliases {
				if !slices.Contains(ep.Aliases, a) {
					return failed("expected alias %q of %s, got %q", a, ep.Network, strings.Join(ep.Aliases, " "))
				}
			}
		}
	}
	return nil
}

func trafficWithin(ctx context.Context, e *Env, n runtime.Network) error {
	server, err := e.BoxOf(ctx, runtime.ContainerSpec{
		Command: []string{"listen", "tcp :80", "udp :80"}, Networks: Attach(n),
	})
	if err != nil {
		return err
	}
	client, err := e.BoxOf(ctx, runtime.ContainerSpec{Capabilities: []string{"NET_RAW"}, Networks: Attach(n)})
	if err != nil {
		return err
	}
	at := server.Address(n)
	return client.reaches(ctx, "tcp "+at+":80", "udp "+at+":80", "icmp "+at)
}
