package docker

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"maps"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/subnet"
)

const (
	driverBridge  = "bridge"
	driverMacvlan = "macvlan"

	optBridgeName = "com.docker.network.bridge.name"
	optInhibit    = "com.docker.network.bridge.inhibit_ipv4"
)

// subnetAttempts bounds how often a free subnet is looked for again after another
// process took the one chosen.
const subnetAttempts = 32

// CreateNetwork makes a network with a small subnet of its own.
func (e *engine) CreateNetwork(ctx context.Context, spec runtime.NetworkSpec) (runtime.Network, error) {
	const op = "create network"
	n, err := e.createNetwork(ctx, spec)
	return n, fail(ctx, op, spec.Name, err)
}

func (e *engine) createNetwork(ctx context.Context, spec runtime.NetworkSpec) (runtime.Network, error) {
	var taken []netip.Prefix
	for attempt := 1; ; attempt++ {
		all, err := e.networks(ctx)
		if err != nil {
			return runtime.Network{}, err
		}
		if slices.ContainsFunc(all, func(n network.Summary) bool { return n.Name == spec.Name }) {
			return runtime.Network{}, runtime.Errorf(errdefs.ErrAlreadyExists, "a network of that name exists")
		}
		prefix, err := e.chooseSubnet(spec, all, taken)
		if err != nil {
			return runtime.Network{}, err
		}
		id, err := e.createWith(ctx, spec, prefix)
		if errors.Is(err, errOverlap) && !spec.Subnet.IsValid() && attempt < subnetAttempts {
			taken = append(taken, prefix)
			continue
		}
		if err != nil {
			return runtime.Network{}, err
		}
		res, err := e.cli.NetworkInspect(ctx, id, client.NetworkInspectOptions{})
		if err != nil {
			return runtime.Network{}, errors.Join(err, e.discardNetwork(ctx, id, spec))
		}
		return toNetwork(res.Network.Network), nil
	}
}

// chooseSubnet takes the subnet asked for, if it is free, or finds one.
func (e *engine) chooseSubnet(spec runtime.NetworkSpec, all []network.Summary, taken []netip.Prefix) (netip.Prefix, error) {
	used := slices.Clone(taken)
	for _, n := range all {
		for _, c := range n.IPAM.Config {
			used = append(used, c.Subnet)
		}
	}
	if spec.Subnet.IsValid() {
		for _, u := range used {
			if u.IsValid() && u.Overlaps(spec.Subnet) {
				return spec.Subnet, runtime.Errorf(errdefs.ErrFailedPrecondition, "the subnet %s overlaps %s, which another network has", spec.Subnet, u)
			}
		}
	}
	// What this machine routes says nothing about another one's.
	if e.endpoint.scheme() == "unix" {
		host, err := subnet.HostPrefixes()
		if err != nil {
			return spec.Subnet, fmt.Errorf("list the host's routes: %w", err)
		}
		if spec.Subnet.IsValid() {
			for _, h := range host {
				if h.Bits() > 0 && h.Overlaps(spec.Subnet) {
					return spec.Subnet, runtime.Errorf(errdefs.ErrFailedPrecondition, "the subnet %s overlaps the host's route %s", spec.Subnet, h)
				}
			}
		}
		used = append(used, host...)
	}
	if spec.Subnet.IsValid() {
		return spec.Subnet.Masked(), nil
	}
	used = slices.DeleteFunc(used, func(p netip.Prefix) bool { return !p.IsValid() || !p.Addr().Is4() })
	return subnet.Pick(e.pool, subnet.Bits, used, spec.Name+rand.Text())
}

// errOverlap marks a subnet that another process took first.
var errOverlap = runtime.Errorf(errdefs.ErrFailedPrecondition, "the subnet overlaps another network's")

// createWith makes the network, sealed if it is internal, and returns its ID.
// If it fails, nothing is left.
func (e *engine) createWith(ctx context.Context, spec runtime.NetworkSpec, prefix netip.Prefix) (string, error) {
	if !spec.Internal {
		return e.createBridge(ctx, spec, prefix)
	}
	if e.seal.Local() {
		id, err := e.createBridge(ctx, spec, prefix)
		if !errors.Is(err, errNotLocal) {
			return id, err
		}
	}
	return e.createMacvlan(ctx, spec, prefix)
}

// createBridge makes a bridge network. The device's name derives from the
// network's, so that the daemon refuses a second network of the name: the daemon
// itself ensures unique names only from 25 on, but unique devices always.
func (e *engine) createBridge(ctx context.Context, spec runtime.NetworkSpec, prefix netip.Prefix) (string, error) {
	bridge, err := e.bridgeName(ctx, spec.Name)
	if err != nil {
		return "", err
	}
	opts := map[string]string{optBridgeName: bridge}
	if spec.Internal {
		opts[optInhibit] = "true"
	}
	id, err := e.requestNetwork(ctx, spec, prefix, driverBridge, opts)
	if err != nil || !spec.Internal {
		return id, err
	}
	if err := e.seal.Seal(bridge); err != nil {
		return "", errors.Join(err, e.discardNetwork(ctx, id, spec))
	}
	return id, nil
}

// bridgeName derives a device's name, at most 15 characters, from a network's.
// It differs between daemons, lest another one's device be taken for this one's.
func (e *engine) bridgeName(ctx context.Context, network string) (string, error) {
	id, err := e.daemonID(ctx)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(id + "\x00" + network))
	return "bt" + strings.ToLower(base32.StdEncoding.EncodeToString(sum[:])[:13]), nil
}

func (e *engine) requestNetwork(ctx context.Context, spec runtime.NetworkSpec, prefix netip.Prefix, driver string, opts map[string]string) (string, error) {
	no := false
	res, err := detached(ctx, func(ctx context.Context) (client.NetworkCreateResult, error) {
		return e.cli.NetworkCreate(ctx, spec.Name, client.NetworkCreateOptions{
			Driver: driver, Internal: spec.Internal, EnableIPv6: &no, Options: opts, Labels: withManaged(spec.Labels),
			IPAM: &network.IPAM{Driver: "default", Config: []network.IPAMConfig{{Subnet: prefix}}},
		})
	}, func(ctx context.Context, res client.NetworkCreateResult) error {
		return e.discardNetwork(ctx, res.ID, spec)
	})
	switch {
	case err == nil:
		return res.ID, nil
	case ctx.Err() != nil:
		return "", err
	case containsAny(err, "have same bridge name", "already exists"):
		return "", runtime.Errorf(errdefs.ErrAlreadyExists, "a network of that name exists")
	case containsAny(err, "pool overlaps", "overlapping ipv4", "overlaps with"):
		return "", errOverlap
	}
	return "", asKind(err, errdefs.IsPermissionDenied, errdefs.ErrFailedPrecondition)
}

// withManaged is a copy of labels with bottle's own.
func withManaged(labels map[string]string) map[string]string {
	out := make(map[string]string, len(labels)+1)
	maps.Copy(out, labels)
	out[runtime.LabelManaged] = "true"
	return out
}

func containsAny(err error, substrings ...string) bool {
	text := strings.ToLower(err.Error())
	return slices.ContainsFunc(substrings, func(s string) bool { return strings.Contains(text, s) })
}

// createMacvlan makes an internal macvlan network without a parent: the daemon
// puts it on a dummy device, from which no frame comes back and to which the
// host's network stack has no way.
func (e *engine) createMacvlan(ctx context.Context, spec runtime.NetworkSpec, prefix netip.Prefix) (string, error) {
	for attempt := 1; ; attempt++ {
		id, err := e.requestNetwork(ctx, spec, prefix, driverMacvlan, nil)
		if err != nil {
			if containsAny(err, "not supported", "unknown device type") {
				why := "the host's kernel has no dummy and macvlan devices"
				if here := e.seal.Unavailable(ctx); here != "" {
					why = here
				}
				return "", &runtime.Error{Engine: Name, Op: "create network", Object: spec.Name,
					Err:  runtime.Errorf(errdefs.ErrFailedPrecondition, "an internal network cannot be sealed: %s", why),
					Hint: "load them with modprobe dummy macvlan, or run bottle as root on the engine's host"}
			}
			return "", err
		}
		if e.api("1.44") {
			return id, nil // the daemon refuses a second one of the name
		}
		// Whoever sees a rival gives way, so that no two stay; who comes later
		// sees the first one stay and has lost.
		all, err := e.networks(ctx)
		if err != nil {
			return "", errors.Join(err, e.discardNetwork(ctx, id, spec))
		}
		rival := slices.ContainsFunc(all, func(n network.Summary) bool { return n.Name == spec.Name && n.ID != id })
		if !rival {
			return id, nil
		}
		if err := e.discardNetwork(ctx, id, spec); err != nil {
			return "", err
		}
		if attempt == 5 {
			return "", runtime.Errorf(errdefs.ErrAlreadyExists, "a network of that name exists")
		}
		if err := pause(ctx, time.Duration(attempt)*randomDelay(100*time.Millisecond)); err != nil {
			return "", err
		}
	}
}

// randomDelay is between a tenth and the whole of d.
func randomDelay(d time.Duration) time.Duration {
	n, err := rand.Int(rand.Reader, big.NewInt(int64(d)*9/10))
	if err != nil {
		return d
	}
	return d/10 + time.Duration(n.Int64())
}

// discardNetwork removes a network whose creation did not succeed.
func (e *engine) discardNetwork(ctx context.Context, id string, spec runtime.NetworkSpec) error {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	_, err := e.cli.NetworkRemove(ctx, id, client.NetworkRemoveOptions{})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove the incomplete network %s: %w", id, err)
	}
	if !spec.Internal || !e.seal.Local() {
		return nil
	}
	bridge, err := e.bridgeName(ctx, spec.Name)
	if err != nil {
		return err
	}
	return e.seal.Unseal(bridge)
}

// networks lists all networks of the daemon, bottle's or not.
func (e *engine) networks(ctx context.Context) ([]network.Summary, error) {
	res, err := e.cli.NetworkList(ctx, client.NetworkListOptions{})
	return res.Items, err
}

func managed(labels map[string]string) bool { return labels[runtime.LabelManaged] == "true" }

// findNetwork finds a network by its exact name or ID. If none of bottle's is
// called so, it is another's, or NotFound.
func findNetwork(all []network.Summary, name string) (network.Summary, error) {
	var found network.Summary
	for _, n := range all {
		if n.Name != name && n.ID != name {
			continue
		}
		if managed(n.Labels) {
			return n, nil
		}
		found = n
	}
	if found.ID == "" {
		return found, runtime.Errorf(errdefs.ErrNotFound, "no such network")
	}
	return found, nil
}

// InspectNetwork describes one network of bottle's.
func (e *engine) InspectNetwork(ctx context.Context, name string) (runtime.Network, error) {
	const op = "inspect network"
	all, err := e.networks(ctx)
	if err != nil {
		return runtime.Network{}, fail(ctx, op, name, err)
	}
	n, err := findNetwork(all, name)
	if err == nil && !managed(n.Labels) {
		err = runtime.Errorf(errdefs.ErrNotFound, "no such network of bottle's")
	}
	if err != nil {
		return runtime.Network{}, fail(ctx, op, name, err)
	}
	return toNetwork(n.Network), nil
}

// ListNetworks lists bottle's networks, oldest first.
func (e *engine) ListNetworks(ctx context.Context, filter runtime.Filter) ([]runtime.Network, error) {
	e.reconnect()
	res, err := e.cli.NetworkList(ctx, client.NetworkListOptions{Filters: labelFilter(filter)})
	if err != nil {
		return nil, fail(ctx, "list networks", "", err)
	}
	var list []runtime.Network
	for _, n := range res.Items {
		if filter.Match(n.Labels) {
			list = append(list, toNetwork(n.Network))
		}
	}
	slices.SortFunc(list, func(a, b runtime.Network) int {
		return cmpOr(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	return list, nil
}

// RemoveNetwork removes a network that nothing is attached to, running or not.
func (e *engine) RemoveNetwork(ctx context.Context, name string) error {
	return fail(ctx, "remove network", name, e.removeNetwork(ctx, name))
}

func (e *engine) removeNetwork(ctx context.Context, name string) error {
	all, err := e.networks(ctx)
	if err != nil {
		return err
	}
	n, err := findNetwork(all, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !managed(n.Labels) {
		return errForeign("network")
	}
	// The daemon would remove it from below a container that does not run.
	users, err := e.cli.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("network", n.ID)})
	if err != nil {
		return err
	}
	if len(users.Items) > 0 {
		return runtime.Errorf(errdefs.ErrFailedPrecondition, "container %s is attached to it", containerName(users.Items[0].Names, users.Items[0].ID))
	}
	_, err = e.cli.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
	if err != nil && strings.Contains(err.Error(), "active endpoints") {
		dropped, none := e.dropStaleEndpoints(ctx, n.ID)
		switch {
		case dropped:
			_, err = e.cli.NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
		case none:
			// It counts them apart from what it lists, and not always right: seen of 20.10 when
			// sixteen containers were started at once on a machine that had too much to do.
			return runtime.Errorf(errdefs.ErrFailedPrecondition, "the daemon says that it has active endpoints, and lists none: it has miscounted, and can remove it when it has been restarted")
		}
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return rekind(err, errdefs.ErrFailedPrecondition, "active endpoints", "in use")
	}
	if bridge := n.Options[optBridgeName]; n.Internal && bridge != "" && e.seal.Local() {
		return e.seal.Unseal(bridge)
	}
	return nil
}

// dropStaleEndpoints takes from a network what a daemon has kept of containers that are gone
// (moby/moby#33156): with it the network could never be removed. It reports whether there was
// something, and whether the daemon lists no endpoint at all.
func (e *engine) dropStaleEndpoints(ctx context.Context, id string) (dropped, none bool) {
	res, err := e.cli.NetworkInspect(ctx, id, client.NetworkInspectOptions{})
	if err != nil {
		return false, false
	}
	gone := func(container string) bool {
		_, err := e.cli.ContainerInspect(ctx, container, client.ContainerInspectOptions{})
		return errdefs.IsNotFound(err)
	}
	for key, endpoint := range res.Network.Containers {
		// The key is its container's ID, or "ep-" and its own.
		if !gone(key) || !gone(endpoint.Name) {
			continue
		}
		if _, err := e.cli.NetworkDisconnect(ctx, id, client.NetworkDisconnectOptions{Container: endpoint.Name, Force: true}); err != nil {
			e.log.Debug("cannot drop an endpoint without a container", "network", id, "endpoint", endpoint.Name, "error", err)
			continue
		}
		dropped = true
	}
	return dropped, len(res.Network.Containers) == 0
}

// errForeign refuses to touch what bottle did not make.
func errForeign(what string) error {
	return runtime.Errorf(errdefs.ErrPermissionDenied, "bottle did not make this %s, and leaves it alone", what)
}

// sealed makes sure that an internal network is what it was made as: devices are
// made anew, without the seal, when the daemon starts after a reboot.
func (e *engine) sealed(n network.Summary) error {
	switch {
	case !n.Internal:
		return nil
	case n.Driver == driverBridge && n.Options[optBridgeName] != "" && n.Options[optInhibit] == "true":
		if err := e.seal.Seal(n.Options[optBridgeName]); err != nil {
			return fmt.Errorf("seal network %s: %w", n.Name, err)
		}
		return nil
	case n.Driver == driverMacvlan && n.Options["parent"] == "":
		return nil
	case n.Driver == driverMacvlan && strings.HasPrefix(n.Options["parent"], "dm-"):
		return nil
	}
	return runtime.Errorf(errdefs.ErrFailedPrecondition, "network %s is internal, but was not made in a way that seals it", n.Name)
}

func toNetwork(n network.Network) runtime.Network {
	out := runtime.Network{ID: n.ID, Name: n.Name, Internal: n.Internal, Created: n.Created, Labels: maps.Clone(n.Labels)}
	for _, c := range n.IPAM.Config {
		if !c.Subnet.IsValid() || !c.Subnet.Addr().Is4() {
			continue
		}
		out.Subnet = c.Subnet.Masked()
		if out.Gateway = c.Gateway; !out.Gateway.IsValid() {
			out.Gateway = out.Subnet.Addr().Next()
		}
		break
	}
	return out
}

// labelFilter selects bottle's objects that carry the labels.
func labelFilter(f runtime.Filter) client.Filters {
	filters := make(client.Filters).Add("label", runtime.LabelManaged+"=true")
	for k, v := range f.Labels {
		// Filter.Match tells an empty value from any; the daemon does not.
		if v != "" {
			filters.Add("label", k+"="+v)
		} else {
			filters.Add("label", k)
		}
	}
	return filters
}

// cmpOr returns the first comparison that decides.
func cmpOr(cs ...int) int {
	for _, c := range cs {
		if c != 0 {
			return c
		}
	}
	return 0
}
