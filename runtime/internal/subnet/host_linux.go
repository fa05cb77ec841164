package subnet

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/bottle-run/bottle/runtime/internal/dump"
)

// HostPrefixes returns what this host already uses: the destination of every
// IPv4 route in every table and the network of every address.
func HostPrefixes() ([]netip.Prefix, error) {
	var used []netip.Prefix
	add := func(n *net.IPNet) {
		if n == nil {
			return
		}
		ip, ok := netip.AddrFromSlice(n.IP)
		ones, bits := n.Mask.Size()
		if ok && ip.Unmap().Is4() && bits == 32 {
			used = append(used, netip.PrefixFrom(ip.Unmap(), ones).Masked())
		}
	}
	// Table 0 (unspecified) with RT_FILTER_TABLE means all tables.
	routes, err := dump.Whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V4, &netlink.Route{Table: 0}, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return nil, fmt.Errorf("list the host's routes: %w", err)
	}
	for _, r := range routes {
		add(r.Dst)
	}
	addrs, err := dump.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V4) })
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	for _, a := range addrs {
		add(a.IPNet)
	}
	return used, nil
}
