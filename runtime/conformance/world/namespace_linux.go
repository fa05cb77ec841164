package world

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The link between the host and the namespace: benchmark addresses, which no
// network has.
var (
	hostSide  = netip.MustParsePrefix("198.18.73.1/30")
	worldSide = netip.MustParsePrefix("198.18.73.2/30")
	hostSide6 = netip.MustParsePrefix("2001:db8:b1::1/64")
	otherSide = netip.MustParsePrefix("2001:db8:b1::2/64")
)

const (
	hostLink  = "bottle-world"
	worldLink = "outside"
)

// namespace is a network namespace of one thread: what run does happens in it.
// It is gone when the thread has ended, and with it the link and the routes.
type namespace struct {
	calls chan func()
	done  chan struct{}
	ipv6  bool
}

// newNamespace makes the namespace, its link and this host's routes to it.
func newNamespace() (*namespace, error) {
	ns := &namespace{calls: make(chan func()), done: make(chan struct{})}
	failed := make(chan error, 1)
	go func() {
		// The thread is not unlocked: it ends with the goroutine, and the namespace
		// with it.
		runtime.LockOSThread()
		defer close(ns.done)
		if err := ns.enter(); err != nil {
			failed <- err
			return
		}
		failed <- nil
		for call := range ns.calls {
			call()
		}
	}()
	if err := <-failed; err != nil {
		<-ns.done
		return nil, fmt.Errorf("make the outside world: %w", err)
	}
	return ns, nil
}

// run calls f in the namespace. Sockets that f opens stay in it.
func (ns *namespace) run(f func() error) error {
	result := make(chan error, 1)
	ns.calls <- func() { result <- f() }
	return <-result
}

func (ns *namespace) close() {
	close(ns.calls)
	<-ns.done
	// The kernel takes namespaces down in the background: without the link they
	// leave no trace.
	if link, err := netlink.LinkByName(hostLink); err == nil {
		_ = netlink.LinkDel(link)
	}
}

func (ns *namespace) enter() (err error) {
	host, err := netns.Get()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()
	outside, err := netlink.NewHandleAt(host)
	if err != nil {
		return err
	}
	defer outside.Close()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("new network namespace: %w", err)
	}
	here, err := netns.Get()
	if err != nil {
		return err
	}
	defer func() { _ = here.Close() }()
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: hostLink, HardwareAddr: net.HardwareAddr{2, 0, 0, 0, 73, 1}},
		PeerName:  worldLink, PeerNamespace: netlink.NsFd(here), PeerHardwareAddr: net.HardwareAddr{2, 0, 0, 0, 73, 2},
	}
	if err := outside.LinkAdd(veth); err != nil {
		return fmt.Errorf("add link %s: %w", hostLink, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, outside.LinkDel(veth))
		}
	}()
	_, statErr := os.Stat("/proc/sys/net/ipv6")
	disabled, _ := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	ns.ipv6 = statErr == nil && string(disabled) != "1\n"
	if err := ns.inside(); err != nil {
		return err
	}
	return ns.outside(outside)
}

// inside configures the namespace: every address of the world is its own.
func (ns *namespace) inside() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(worldLink)
	if err != nil {
		return err
	}
	if err := errors.Join(netlink.LinkSetUp(lo), address(link, worldSide), netlink.LinkSetUp(link)); err != nil {
		return err
	}
	via := hostSide.Addr()
	if err := netlink.RouteAdd(&netlink.Route{Gw: via.AsSlice()}); err != nil {
		return fmt.Errorf("add default route of the world: %w", err)
	}
	local := []netip.Prefix{layout.A, layout.B, netip.PrefixFrom(layout.Metadata, 32)}
	if ns.ipv6 {
		if err := address(link, otherSide); err != nil {
			return err
		}
		if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: hostSide6.Addr().AsSlice(), Dst: ipNet(netip.MustParsePrefix("::/0"))}); err != nil {
			return fmt.Errorf("add default IPv6 route of the world: %w", err)
		}
		local = append(local, layout.V6)
	}
	for _, p := range local {
		r := &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: ipNet(p), Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST}
		if err := netlink.RouteAdd(r); err != nil {
			return fmt.Errorf("make %s local to the world: %w", p, err)
		}
	}
	return nil
}

// outside routes the world's networks of the host into the namespace.
func (ns *namespace) outside(h *netlink.Handle) error {
	link, err := h.LinkByName(hostLink)
	if err != nil {
		return err
	}
	if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(hostSide)}); err != nil {
		return fmt.Errorf("add %s to %s: %w", hostSide, hostLink, err)
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	routes := map[netip.Prefix]netip.Addr{
		layout.A: worldSide.Addr(), layout.B: worldSide.Addr(), netip.PrefixFrom(layout.Metadata, 32): worldSide.Addr(),
	}
	if ns.ipv6 {
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: ipNet(hostSide6), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("add %s to %s: %w", hostSide6, hostLink, err)
		}
		routes[layout.V6] = otherSide.Addr()
	}
	for dst, via := range routes {
		err := h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(dst), Gw: via.AsSlice()})
		if err != nil {
			return fmt.Errorf("route %s into the world: %w (if a route to it exists, something else is using the documentation's networks)", dst, err)
		}
	}
	return nil
}

func address(link netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := netlink.AddrAdd(link, a); err != nil {
		return fmt.Errorf("add %s to %s: %w", p, link.Attrs().Name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
