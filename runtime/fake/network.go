package fake

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/runtime"
)

type network struct {
	runtime.Network
	addresses map[netip.Addr]string // to the container's ID
}

// CreateNetwork implements [runtime.Networks].
func (e *Engine) CreateNetwork(ctx context.Context, spec runtime.NetworkSpec) (runtime.Network, error) {
	const op = "create network"
	if err := e.enter(ctx, "CreateNetwork", op, spec.Name); err != nil {
		return runtime.Network{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.network(spec.Name) != nil || e.isForeign("networks", spec.Name) {
		return runtime.Network{}, fail(op, spec.Name, taken("network", spec.Name))
	}
	subnet := spec.Subnet.Masked()
	if !spec.Subnet.IsValid() {
		var ok bool
		if subnet, ok = e.freeSubnet(); !ok {
			return runtime.Network{}, fail(op, spec.Name, precondition("no free subnet is left in %s", addressPool))
		}
	} else if other := e.overlapping(subnet); other != "" {
		return runtime.Network{}, fail(op, spec.Name, precondition("subnet %s overlaps that of network %q", subnet, other))
	}
	n := &network{
		Network: runtime.Network{
			ID: e.id("network"), Name: spec.Name, Internal: spec.Internal, Subnet: subnet,
			Labels: managed(spec.Labels), Created: e.now(),
		},
		addresses: map[netip.Addr]string{},
	}
	if !spec.Internal {
		n.Gateway = subnet.Addr().Next()
	}
	e.networks[n.ID] = n
	return n.copy(), nil
}

// InspectNetwork implements [runtime.Networks].
func (e *Engine) InspectNetwork(ctx context.Context, name string) (runtime.Network, error) {
	const op = "inspect network"
	if err := e.enter(ctx, "InspectNetwork", op, name); err != nil {
		return runtime.Network{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.network(name)
	if n == nil {
		return runtime.Network{}, fail(op, name, notFound("network", name))
	}
	return n.copy(), nil
}

// ListNetworks implements [runtime.Networks].
func (e *Engine) ListNetworks(ctx context.Context, filter runtime.Filter) ([]runtime.Network, error) {
	if err := e.enter(ctx, "ListNetworks", "list networks", ""); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []runtime.Network
	for _, n := range e.networks {
		if filter.Match(n.Labels) {
			list = append(list, n.copy())
		}
	}
	slices.SortFunc(list, func(a, b runtime.Network) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// RemoveNetwork implements [runtime.Networks].
func (e *Engine) RemoveNetwork(ctx context.Context, name string) error {
	const op = "remove network"
	if err := e.enter(ctx, "RemoveNetwork", op, name); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	n := e.network(name)
	switch {
	case n == nil && e.isForeign("networks", name):
		return fail(op, name, foreign("network", name))
	case n == nil:
		return nil
	case len(n.addresses) > 0:
		return fail(op, name, precondition("%d containers are attached to it", len(n.addresses)))
	}
	delete(e.networks, n.ID)
	return nil
}

// network finds a network by name or ID. The caller holds the lock.
func (e *Engine) network(name string) *network {
	if n := e.networks[name]; n != nil {
		return n
	}
	for _, n := range e.networks {
		if n.Name == name {
			return n
		}
	}
	return nil
}

func (e *Engine) isForeign(kind, name string) bool { return slices.Contains(e.foreign[kind], name) }

func (e *Engine) overlapping(subnet netip.Prefix) string {
	for _, n := range e.networks {
		if n.Subnet.Overlaps(subnet) {
			return n.Name
		}
	}
	return ""
}

func (e *Engine) freeSubnet() (netip.Prefix, bool) {
	const bits = 27
	for addr := addressPool.Addr(); addressPool.Contains(addr); {
		subnet := netip.PrefixFrom(addr, bits)
		if e.overlapping(subnet) == "" {
			return subnet, true
		}
		for range 1 << (32 - bits) {
			addr = addr.Next()
		}
	}
	return netip.Prefix{}, false
}

// attach gives the container an address on the network. The caller holds the
// lock.
func (n *network) attach(container string, want netip.Addr) (netip.Addr, error) {
	if want.IsValid() {
		switch {
		case !n.Subnet.Contains(want):
			return want, invalid("address %s is not in subnet %s of network %q", want, n.Subnet, n.Name)
		case n.addresses[want] != "" || want == n.Gateway:
			return want, precondition("address %s of network %q is in use", want, n.Name)
		}
		n.addresses[want] = container
		return want, nil
	}
	// The first address is the gateway's, the last the broadcast's.
	for a := n.Subnet.Addr().Next().Next(); n.Subnet.Contains(a.Next()); a = a.Next() {
		if n.addresses[a] == "" {
			n.addresses[a] = container
			return a, nil
		}
	}
	return want, precondition("network %q has no free address", n.Name)
}

func (n *network) detach(container string) {
	for a, c := range n.addresses {
		if c == container {
			delete(n.addresses, a)
		}
	}
}

func (n *network) copy() runtime.Network {
	c := n.Network
	c.Labels = maps.Clone(c.Labels)
	return c
}

// managed adds the label of bottle's objects.
func managed(labels map[string]string) map[string]string {
	all := map[string]string{runtime.LabelManaged: "true"}
	for k, v := range labels {
		if !strings.EqualFold(k, runtime.LabelManaged) {
			all[k] = v
		}
	}
	return all
}
