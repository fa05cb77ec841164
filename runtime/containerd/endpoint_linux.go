package containerd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/subnet"
)

// endpoint is a container's place on a network: a file in the run directory, and
// its claim to the address.
type endpoint struct {
	Container string // ID
	Name      string
	Aliases   []string
	NetworkID string
	Network   string
	Internal  bool
	Address   netip.Addr
	MAC       net.HardwareAddr
	Port      string // the host's end of the pair
	Device    string // the container's end
	Bridge    string
	Gateway   netip.Addr // zero on an internal network
	Bits      int
}

// names are what other containers call it by.
func (ep *endpoint) names() []string { return append([]string{ep.Name}, ep.Aliases...) }

// allocate claims an address on every network, all or nothing. The networks'
// devices are made again if a reboot took them.
func (e *Engine) allocate(ctx context.Context, id string, spec runtime.ContainerSpec) (claimed []*endpoint, err error) {
	if len(spec.Networks) == 0 {
		return nil, nil
	}
	l, err := e.lockNetworks(ctx)
	if err != nil {
		return nil, err
	}
	defer l.unlock()
	defer func() {
		if err != nil {
			err = errors.Join(err, e.release(claimed))
			claimed = nil
		}
	}()
	for i, attachment := range spec.Networks {
		n, err := e.findNetwork(attachment.Network)
		if errdefs.IsNotFound(err) {
			return claimed, notFound("there is no network %q", attachment.Network)
		}
		if err != nil {
			return claimed, err
		}
		if slices.ContainsFunc(claimed, func(ep *endpoint) bool { return ep.NetworkID == n.ID }) {
			return claimed, invalid("network %q is given twice", n.Name)
		}
		addr, err := e.freeAddress(n, attachment.Address)
		if err != nil {
			return claimed, err
		}
		prefix := egressPort
		if n.Internal {
			prefix = internalPort
		}
		ep := &endpoint{
			Container: id, Name: spec.Name, Aliases: attachment.Aliases,
			NetworkID: n.ID, Network: n.Name, Internal: n.Internal,
			Address: addr, MAC: macOf(addr), Port: prefix + shortHash(id+n.ID), Device: fmt.Sprintf("eth%d", i),
			Bridge: n.Bridge, Gateway: n.Gateway, Bits: n.Subnet.Bits(),
		}
		if err := os.MkdirAll(e.endpointsDir(n.ID), 0o700); err != nil {
			return claimed, err
		}
		if err := writeJSON(e.endpointFile(ep), ep); err != nil {
			return claimed, err
		}
		claimed = append(claimed, ep)
		if _, err := e.ensureNetwork(n); err != nil {
			return claimed, err
		}
	}
	return claimed, nil
}

// freeAddress checks the address that was asked for, or takes the lowest free
// one. The first is the gateway's, used or not.
func (e *Engine) freeAddress(n *network, want netip.Addr) (netip.Addr, error) {
	endpoints, err := e.endpoints(n.ID)
	if err != nil {
		return netip.Addr{}, err
	}
	holder := map[netip.Addr]string{}
	for _, ep := range endpoints {
		holder[ep.Address] = ep.Name
	}
	last := subnet.Size(n.Subnet) - 1 // broadcast
	if want.IsValid() {
		switch {
		case !n.Subnet.Contains(want) || want == n.Subnet.Addr() || want == subnet.Nth(n.Subnet, last):
			return want, invalid("address %s is not a host's address in %s of network %q", want, n.Subnet, n.Name)
		case want == n.Gateway:
			return want, invalid("address %s is the gateway's of network %q", want, n.Name)
		case holder[want] != "":
			return want, precondition("address %s on network %q is %s's", want, n.Name, holder[want])
		}
		return want, nil
	}
	for i := uint32(2); i < last; i++ {
		if addr := subnet.Nth(n.Subnet, i); holder[addr] == "" {
			return addr, nil
		}
	}
	return netip.Addr{}, runtime.Errorf(errdefs.ErrUnavailable, "no address is left on network %q (%s)", n.Name, n.Subnet)
}

// macOf derives a locally administered address, the same after a reboot.
func macOf(addr netip.Addr) net.HardwareAddr {
	a := addr.As4()
	return net.HardwareAddr{0x02, 0xb0, a[0], a[1], a[2], a[3]}
}

// attach gives a network namespace its devices, opens their ports and tells the
// other containers the name.
func (e *Engine) attach(ctx context.Context, path string, endpoints []*endpoint) error {
	if len(endpoints) == 0 {
		return nil
	}
	space, err := netns.GetFromPath(path)
	if err != nil {
		return fmt.Errorf("open the container's network namespace: %w", err)
	}
	defer func() { _ = space.Close() }()
	inside, err := netlink.NewHandleAt(space, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter the container's network namespace: %w", err)
	}
	defer inside.Close()
	l, err := e.lockNetworks(ctx)
	if err != nil {
		return err
	}
	defer l.unlock()
	fw, err := e.openFirewall()
	if err != nil {
		return err
	}
	routed := false
	for _, ep := range endpoints {
		if err := e.plug(ep, space, inside, fw); err != nil {
			return fmt.Errorf("attach to network %q: %w", ep.Network, err)
		}
		if routed || !ep.Gateway.IsValid() {
			continue
		}
		if err := inside.RouteAdd(&netlink.Route{Gw: ep.Gateway.AsSlice()}); err != nil {
			return fmt.Errorf("add the route through network %q: %w", ep.Network, err)
		}
		routed = true
	}
	return e.writeHosts(endpoints)
}

// plug makes one pair of devices.
func (e *Engine) plug(ep *endpoint, space netns.NsHandle, inside *netlink.Handle, fw *firewall) error {
	bridge, err := e.link.LinkByName(ep.Bridge)
	if err != nil {
		return err
	}
	if err := fw.addPort(ep, ep.Internal); err != nil {
		return fmt.Errorf("open the port in the firewall: %w", err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = ep.Port
	attrs.MTU = bridge.Attrs().MTU
	pair := &netlink.Veth{
		LinkAttrs: attrs, PeerName: ep.Device, PeerHardwareAddr: ep.MAC,
		PeerMTU: uint32(attrs.MTU), PeerNamespace: netlink.NsFd(space),
	}
	if err := e.link.LinkAdd(pair); err != nil {
		return fmt.Errorf("make the devices: %w", err)
	}
	if err := disableIPv6(ep.Port); err != nil {
		return err
	}
	port, err := e.link.LinkByName(ep.Port)
	if err != nil {
		return err
	}
	if err := e.link.LinkSetMaster(port, bridge); err != nil {
		return fmt.Errorf("join the bridge: %w", err)
	}
	if err := e.link.LinkSetUp(port); err != nil {
		return err
	}
	device, err := inside.LinkByName(ep.Device)
	if err != nil {
		return err
	}
	if err := inside.AddrAdd(device, &netlink.Addr{IPNet: ipNet(ep.Address, ep.Bits)}); err != nil {
		return fmt.Errorf("set the address: %w", err)
	}
	return inside.LinkSetUp(device)
}

// detach releases a container's endpoints.
func (e *Engine) detach(ctx context.Context, id string) error {
	files, err := filepath.Glob(filepath.Join(e.endpointsDir("*"), id+".json"))
	if err != nil || len(files) == 0 {
		return err
	}
	l, err := e.lockNetworks(ctx)
	if err != nil {
		return err
	}
	defer l.unlock()
	var endpoints []*endpoint
	for _, f := range files {
		ep, err := readEndpoint(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		endpoints = append(endpoints, ep)
	}
	return e.release(endpoints)
}

// release undoes attach and allocate, under the lock.
func (e *Engine) release(endpoints []*endpoint) error {
	if len(endpoints) == 0 {
		return nil
	}
	var errs []error
	fw, err := e.openFirewall()
	if err != nil {
		return err
	}
	for _, ep := range endpoints {
		// The kernel removes the device some time after the last process; the
		// address must be free before that.
		if port, err := e.link.LinkByName(ep.Port); err == nil {
			if err := e.link.LinkDel(port); err != nil && !errors.Is(err, unix.ENODEV) {
				errs = append(errs, fmt.Errorf("remove device %s: %w", ep.Port, err))
			}
		} else if !isNoLink(err) {
			errs = append(errs, err)
		}
		errs = append(errs, fw.delPort(ep, ep.Internal))
		if err := os.Remove(e.endpointFile(ep)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, e.writeHosts(endpoints))
	return errors.Join(errs...)
}

func (e *Engine) endpointFile(ep *endpoint) string {
	return filepath.Join(e.endpointsDir(ep.NetworkID), ep.Container+".json")
}

// endpoints lists who is on a network, by address.
func (e *Engine) endpoints(networkID string) ([]*endpoint, error) {
	entries, err := os.ReadDir(e.endpointsDir(networkID))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []*endpoint
	for _, entry := range entries {
		if !strings.HasSuffix(entry.Name(), ".json") {
			continue
		}
		ep, err := readEndpoint(filepath.Join(e.endpointsDir(networkID), entry.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, ep)
	}
	slices.SortFunc(all, func(a, b *endpoint) int { return a.Address.Compare(b.Address) })
	return all, nil
}

func readEndpoint(path string) (*endpoint, error) {
	var ep endpoint
	if err := readJSON(path, &ep); err != nil {
		return nil, err
	}
	return &ep, nil
}

func ipNet(addr netip.Addr, bits int) *net.IPNet {
	return &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(bits, 32)}
}
