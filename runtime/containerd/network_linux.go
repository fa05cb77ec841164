package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/dump"
	"github.com/bottle-run/bottle/runtime/internal/subnet"
)

// network is a network's definition, a file below the state directory. The
// device and the rules follow from it and are made again after a reboot.
type network struct {
	runtime.Network
	Bridge string
	// Step marks the network of a build's step, which is nobody else's concern.
	Step bool `json:",omitempty"`
}

// lockNetworks takes the lock under which addresses, devices, rules and hosts
// files are changed. It is one for the machine: the rules are, too.
func (e *Engine) lockNetworks(ctx context.Context) (*fileLock, error) {
	l, err := lock(ctx, "/run/bottle/networks.lock")
	if err == nil {
		if err = context.Cause(ctx); err != nil {
			l.unlock()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("wait for another process to finish with the networks: %w", err)
	}
	return l, nil
}

// CreateNetwork implements [runtime.Networks].
func (e *Engine) CreateNetwork(ctx context.Context, spec runtime.NetworkSpec) (runtime.Network, error) {
	n, err := e.createNetwork(ctx, spec)
	return n, wrap(ctx, "create network", spec.Name, err)
}

func (e *Engine) createNetwork(ctx context.Context, spec runtime.NetworkSpec) (_ runtime.Network, err error) {
	if err := spec.Validate(); err != nil {
		return runtime.Network{}, err
	}
	l, err := e.lockNetworks(ctx)
	if err != nil {
		return runtime.Network{}, err
	}
	defer l.unlock()
	if _, err := e.findNetwork(spec.Name); err == nil {
		return runtime.Network{}, runtime.Errorf(errdefs.ErrAlreadyExists, "a network of that name exists")
	} else if !errdefs.IsNotFound(err) {
		return runtime.Network{}, err
	}
	prefix, err := e.freeSubnet(spec)
	if err != nil {
		return runtime.Network{}, err
	}
	n := &network{Network: runtime.Network{
		ID: newID(), Name: spec.Name, Internal: spec.Internal, Subnet: prefix,
		Labels: withManaged(spec.Labels), Created: time.Now().UTC(),
	}}
	n.Bridge = egressBridge + shortHash(n.ID)
	if n.Internal {
		n.Bridge = internalBridge + shortHash(n.ID)
	} else {
		n.Gateway = subnet.Nth(prefix, 1)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.dropNetwork(n))
		}
	}()
	if err := writeJSON(e.networkFile(n.Name), n); err != nil {
		return runtime.Network{}, err
	}
	if _, err := e.ensureNetwork(n); err != nil {
		return runtime.Network{}, err
	}
	return n.Network, context.Cause(ctx)
}

func withManaged(labels map[string]string) map[string]string {
	all := map[string]string{runtime.LabelManaged: "true"}
	for k, v := range labels {
		if k != runtime.LabelManaged {
			all[k] = v
		}
	}
	return all
}

// freeSubnet checks the subnet that was asked for, or picks one.
func (e *Engine) freeSubnet(spec runtime.NetworkSpec) (netip.Prefix, error) {
	host, err := subnet.HostPrefixes()
	if err != nil {
		return netip.Prefix{}, err
	}
	networks, err := e.networks()
	if err != nil {
		return netip.Prefix{}, err
	}
	used := host
	for _, n := range networks {
		used = append(used, n.Subnet)
	}
	if !spec.Subnet.IsValid() {
		return subnet.Pick(e.subnets, subnet.Bits, used, spec.Name)
	}
	for _, n := range networks {
		if n.Subnet.Overlaps(spec.Subnet) {
			return netip.Prefix{}, precondition("subnet %s overlaps %s of network %q", spec.Subnet, n.Subnet, n.Name)
		}
	}
	for _, p := range host {
		if p.Bits() > 0 && p.Overlaps(spec.Subnet) {
			return netip.Prefix{}, precondition("subnet %s overlaps %s, which this host has an address in or a route to", spec.Subnet, p)
		}
	}
	return spec.Subnet.Masked(), nil
}

// ensureNetwork makes a network's device and rules, unless they are there. Use it
// under the lock.
func (e *Engine) ensureNetwork(n *network) (netlink.Link, error) {
	bridge, err := e.link.LinkByName(n.Bridge)
	if err != nil && !isNoLink(err) {
		return nil, fmt.Errorf("look for bridge %s: %w", n.Bridge, err)
	}
	// Docker may have begun to drop what is forwarded since.
	if err := acceptForwarding(); err != nil {
		return nil, fmt.Errorf("accept the network in iptables: %w", err)
	}
	if bridge != nil && bridge.Attrs().Flags&unix.IFF_UP != 0 {
		return bridge, nil
	}
	fw, err := e.openFirewall()
	if err != nil {
		return nil, err
	}
	// The rules first: there is never a bridge without them.
	if err := fw.addNetwork(n.Bridge); err != nil {
		return nil, fmt.Errorf("add the network to the firewall: %w", err)
	}
	if !n.Internal {
		if err := enableForwarding(); err != nil {
			return nil, err
		}
		if err := fw.allowResolvers(hostResolvers()); err != nil {
			return nil, fmt.Errorf("let the network reach the host's resolver: %w", err)
		}
	}
	if bridge == nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = n.Bridge
		attrs.MTU = e.mtu(n)
		snooping := false
		if err := e.link.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
			return nil, fmt.Errorf("make bridge %s: %w", n.Bridge, err)
		}
		if bridge, err = e.link.LinkByName(n.Bridge); err != nil {
			return nil, fmt.Errorf("look for bridge %s: %w", n.Bridge, err)
		}
	}
	if err := disableIPv6(n.Bridge); err != nil {
		return nil, err
	}
	if !n.Internal {
		addr := &netlink.Addr{IPNet: ipNet(n.Gateway, n.Subnet.Bits())}
		if err := e.link.AddrReplace(bridge, addr); err != nil {
			return nil, fmt.Errorf("give bridge %s its address: %w", n.Bridge, err)
		}
	}
	if err := e.link.LinkSetUp(bridge); err != nil {
		return nil, fmt.Errorf("start bridge %s: %w", n.Bridge, err)
	}
	return bridge, nil
}

// mtu is that of the device with the host's default route, so that what leaves
// an egress network fits.
func (e *Engine) mtu(n *network) int {
	const usual = 1500
	if n.Internal {
		return usual
	}
	routes, err := dump.Whole(func() ([]netlink.Route, error) {
		return e.link.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return usual
	}
	for _, r := range routes {
		if r.Dst != nil && r.Dst.IP != nil && !r.Dst.IP.IsUnspecified() || r.LinkIndex == 0 {
			continue
		}
		if l, err := e.link.LinkByIndex(r.LinkIndex); err == nil && l.Attrs().MTU >= 576 && l.Attrs().MTU < usual {
			return l.Attrs().MTU
		}
	}
	return usual
}

// disableIPv6 keeps a device from having so much as a link-local address.
func disableIPv6(device string) error {
	err := os.WriteFile(filepath.Join("/proc/sys/net/ipv6/conf", device, "disable_ipv6"), []byte("1"), 0o644)
	// A kernel without IPv6 has nothing to disable.
	if errors.Is(err, fs.ErrNotExist) {
		if _, statErr := os.Stat("/proc/sys/net/ipv6"); statErr != nil {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("disable IPv6 on %s: %w", device, err)
	}
	return nil
}

// RemoveNetwork implements [runtime.Networks].
func (e *Engine) RemoveNetwork(ctx context.Context, name string) error {
	return wrap(ctx, "remove network", name, e.removeNetwork(ctx, name))
}

func (e *Engine) removeNetwork(ctx context.Context, name string) error {
	l, err := e.lockNetworks(ctx)
	if err != nil {
		return err
	}
	defer l.unlock()
	n, err := e.findNetwork(name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	endpoints, err := e.endpoints(n.ID)
	if err != nil {
		return err
	}
	if len(endpoints) > 0 {
		var names []string
		for _, ep := range endpoints {
			names = append(names, ep.Name)
		}
		return precondition("%s: still attached to it", strings.Join(names, ", "))
	}
	return e.dropNetwork(n)
}

// dropNetwork removes what there is of a network, the definition last.
func (e *Engine) dropNetwork(n *network) error {
	var errs []error
	if bridge, err := e.link.LinkByName(n.Bridge); err == nil {
		errs = append(errs, e.link.LinkDel(bridge))
	} else if !isNoLink(err) {
		errs = append(errs, err)
	}
	if fw, err := e.openFirewall(); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, fw.delNetwork(n.Bridge))
	}
	errs = append(errs, os.RemoveAll(e.endpointsDir(n.ID)))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return os.RemoveAll(e.networkFile(n.Name))
}

// InspectNetwork implements [runtime.Networks].
func (e *Engine) InspectNetwork(ctx context.Context, name string) (runtime.Network, error) {
	if err := context.Cause(ctx); err != nil {
		return runtime.Network{}, wrap(ctx, "inspect network", name, err)
	}
	n, err := e.findNetwork(name)
	if err == nil && n.Step {
		err = notFound("no network of that name")
	}
	if err != nil {
		return runtime.Network{}, wrap(ctx, "inspect network", name, err)
	}
	return n.Network, nil
}

// ListNetworks implements [runtime.Networks].
func (e *Engine) ListNetworks(ctx context.Context, filter runtime.Filter) ([]runtime.Network, error) {
	networks, err := e.networks()
	if err := errors.Join(context.Cause(ctx), err); err != nil {
		return nil, wrap(ctx, "list networks", "", err)
	}
	list := []runtime.Network{}
	for _, n := range networks {
		if !n.Step && filter.Match(n.Labels) {
			list = append(list, n.Network)
		}
	}
	slices.SortFunc(list, func(a, b runtime.Network) int { return a.Created.Compare(b.Created) })
	return list, nil
}

func (e *Engine) networkFile(name string) string { return e.dir("networks", name+".json") }

// findNetwork finds a network by name or ID.
func (e *Engine) findNetwork(name string) (*network, error) {
	if isName(name) {
		n, err := readNetwork(e.networkFile(name))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return n, err
		}
	}
	networks, err := e.networks()
	if err != nil {
		return nil, err
	}
	for _, n := range networks {
		if n.ID == name {
			return n, nil
		}
	}
	return nil, notFound("no network of that name")
}

func (e *Engine) networks() ([]*network, error) {
	files, err := filepath.Glob(e.networkFile("*"))
	if err != nil {
		return nil, err
	}
	var all []*network
	for _, f := range files {
		n, err := readNetwork(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

func readNetwork(path string) (*network, error) {
	var n network
	if err := readJSON(path, &n); err != nil {
		return nil, err
	}
	return &n, nil
}

// isName reports whether a string can be a name of bottle's, and so part of a path.
func isName(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i, c := range []byte(s) {
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return true
}

func isNoLink(err error) bool {
	var missing netlink.LinkNotFoundError
	return errors.As(err, &missing)
}

// writeJSON replaces a file at once.
func writeJSON(path string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	temporary := path + ".new"
	if err := os.WriteFile(temporary, content, 0o600); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func readJSON(path string, value any) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, value); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
