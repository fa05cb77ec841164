//go:build !linux

package subnet

import (
	"fmt"
	"net"
	"net/netip"
)

// HostPrefixes returns the networks of this host's addresses. Where the engine
// runs in a virtual machine its routes are not this host's, and the engine's
// own check for overlap decides.
func HostPrefixes() ([]netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list the host's addresses: %w", err)
	}
	var used []netip.Prefix
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr().Unmap().Is4() {
			used = append(used, netip.PrefixFrom(p.Addr().Unmap(), p.Bits()).Masked())
		}
	}
	return used, nil
}
