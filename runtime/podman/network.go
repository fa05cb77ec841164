package podman

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/subnet"
)

// settle is how long a request that was cancelled may take to be known to have
// happened or not, so that it can be undone.
const settle = 30 * time.Second

// detached outlives the caller's context, so that what it did can be undone.
func detached(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), settle)
}

// CreateNetwork implements [runtime.Networks].
func (e *engine) CreateNetwork(ctx context.Context, spec runtime.NetworkSpec) (runtime.Network, error) {
	const op = "create network"
	if err := ctx.Err(); err != nil {
		return runtime.Network{}, wrap(ctx, op, spec.Name, err)
	}
	n, err := e.createNetwork(ctx, spec)
	if err == nil && ctx.Err() != nil {
		// It was made while the caller gave up.
		undo, cancel := detached(ctx)
		defer cancel()
		_ = e.removeNetwork(undo, n.Name)
		err = context.Cause(ctx)
	}
	if err != nil {
		return runtime.Network{}, wrap(ctx, op, spec.Name, err)
	}
	return e.network(n), nil
}

func (e *engine) createNetwork(ctx context.Context, spec runtime.NetworkSpec) (apiNetwork, error) {
	ctx, cancel := detached(ctx)
	defer cancel()
	if spec.Subnet.IsValid() {
		if err := e.checkSubnet(spec.Subnet); err != nil {
			return apiNetwork{}, err
		}
		return e.postNetwork(ctx, spec, spec.Subnet.Masked())
	}
	used, err := e.usedSubnets(ctx)
	if err != nil {
		return apiNetwork{}, err
	}
	for {
		prefix, err := subnet.Pick(e.pool, subnet.Bits, used, spec.Name)
		if err != nil {
			return apiNetwork{}, err
		}
		n, err := e.postNetwork(ctx, spec, prefix)
		if err == nil || !isOverlap(err) {
			return n, err
		}
		// Somebody was faster, or the engine's host is not this one.
		used = append(used, prefix)
	}
}

// checkSubnet refuses a subnet that this host routes elsewhere; the service looks
// at interfaces alone.
func (e *engine) checkSubnet(subnetAsked netip.Prefix) error {
	if !e.local {
		return nil
	}
	host, err := subnet.HostPrefixes()
	if err != nil {
		return err
	}
	for _, p := range host {
		// A default route overlaps everything and means nothing here.
		if p.Bits() > 0 && p.Overlaps(subnetAsked) {
			return runtime.Errorf(errdefs.ErrFailedPrecondition, "subnet %s overlaps %s, which this host uses or routes elsewhere", subnetAsked, p)
		}
	}
	return nil
}

func isOverlap(err error) bool {
	return strings.Contains(err.Error(), "is already used on the host or by another config")
}

// usedSubnets are the networks of the engine and of this host.
func (e *engine) usedSubnets(ctx context.Context) ([]netip.Prefix, error) {
	all, err := e.allNetworks(ctx)
	if err != nil {
		return nil, err
	}
	var used []netip.Prefix
	for _, n := range all {
		for _, s := range n.Subnets {
			if p, err := netip.ParsePrefix(s.Subnet); err == nil {
				used = append(used, p)
			}
		}
	}
	if e.local {
		host, err := subnet.HostPrefixes()
		if err != nil {
			return nil, err
		}
		used = append(used, host...)
	}
	return used, nil
}

func (e *engine) postNetwork(ctx context.Context, spec runtime.NetworkSpec, prefix netip.Prefix) (apiNetwork, error) {
	body := networkRequest(spec, prefix)
	var n apiNetwork
	err := e.ask(ctx, call{method: http.MethodPost, path: "/networks/create", json: body}, &n)
	return n, err
}

// networkRequest renders a network. An internal one has no DNS server and thereby
// no address on the host's side. The others drop what comes from each other's
// bridges; internal ones need no such rule, having no route at all.
func networkRequest(spec runtime.NetworkSpec, prefix netip.Prefix) apiNetwork {
	labels := map[string]string{}
	for k, v := range spec.Labels {
		labels[k] = v
	}
	labels[runtime.LabelManaged] = "true"
	n := apiNetwork{
		Name:   spec.Name,
		Driver: "bridge",
		// Podman's own names (podman1) are used again: what is left of a seal would
		// fall on another network.
		NetworkInterface: "btl" + randomHex(6)[:11],
		Subnets:          []apiSubnet{{Subnet: prefix.String()}},
		Internal:         spec.Internal,
		DNSEnabled:       !spec.Internal,
		Labels:           labels,
	}
	if !spec.Internal {
		n.Options = map[string]string{"isolate": "true"}
	}
	return n
}

// randomHex returns n random bytes in hexadecimal digits.
func randomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

func (e *engine) network(n apiNetwork) runtime.Network {
	out := runtime.Network{ID: n.ID, Name: n.Name, Internal: n.Internal, Labels: n.Labels, Created: n.Created}
	if len(n.Subnets) > 0 {
		out.Subnet, _ = netip.ParsePrefix(n.Subnets[0].Subnet)
		out.Gateway, _ = netip.ParseAddr(n.Subnets[0].Gateway)
	}
	return out
}

// findNetwork returns any network, bottle's or not.
func (e *engine) findNetwork(ctx context.Context, name string) (apiNetwork, error) {
	var n apiNetwork
	err := e.ask(ctx, call{method: http.MethodGet, path: "/networks/" + esc(name) + "/json"}, &n)
	return n, err
}

// allNetworks returns every network of the engine.
func (e *engine) allNetworks(ctx context.Context) ([]apiNetwork, error) {
	var list []apiNetwork
	err := e.list(ctx, call{method: http.MethodGet, path: "/networks/json"}, &list)
	return list, err
}

// InspectNetwork implements [runtime.Networks].
func (e *engine) InspectNetwork(ctx context.Context, network string) (runtime.Network, error) {
	const op = "inspect network"
	n, err := e.findNetwork(ctx, network)
	if err == nil && n.Labels[runtime.LabelManaged] != "true" {
		err = runtime.Errorf(errdefs.ErrNotFound, "there is no such network of bottle's")
	}
	if err != nil {
		return runtime.Network{}, wrap(ctx, op, network, err)
	}
	return e.network(n), nil
}

// ListNetworks implements [runtime.Networks].
func (e *engine) ListNetworks(ctx context.Context, filter runtime.Filter) ([]runtime.Network, error) {
	all, err := e.allNetworks(ctx)
	if err != nil {
		return nil, wrap(ctx, "list networks", "", err)
	}
	var list []runtime.Network
	for _, n := range all {
		if filter.Match(n.Labels) {
			list = append(list, e.network(n))
		}
	}
	slices.SortStableFunc(list, func(a, b runtime.Network) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// RemoveNetwork implements [runtime.Networks].
func (e *engine) RemoveNetwork(ctx context.Context, network string) error {
	const op = "remove network"
	n, err := e.findNetwork(ctx, network)
	if isNotFound(err) {
		return nil
	}
	if err == nil && n.Labels[runtime.LabelManaged] != "true" {
		err = foreign("network")
	}
	if err == nil {
		err = e.removeNetwork(ctx, n.Name)
	}
	if err != nil {
		return wrap(ctx, op, network, err)
	}
	e.hosts.forget(n.Name)
	if n.Internal {
		e.unseal(n.NetworkInterface)
	}
	return nil
}

// errInUse is what the service knows and does not say.
var errInUse = runtime.Errorf(errdefs.ErrFailedPrecondition, "containers are still attached to it")

// removeNetwork removes a network by its name: asked to remove one by its id, the
// service does not see that containers are on it.
func (e *engine) removeNetwork(ctx context.Context, name string) error {
	var reports []report
	err := e.ask(ctx, call{method: http.MethodDelete, path: "/networks/" + esc(name), query: url.Values{"force": {"false"}}}, &reports)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, r := range reports {
		if r.failed() {
			if _, err := e.findNetwork(ctx, name); isNotFound(err) {
				return nil
			} else if err != nil {
				return errors.Join(errInUse, err)
			}
			return errInUse
		}
	}
	return nil
}
