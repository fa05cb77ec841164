package netguard

import (
	"encoding/binary"
	"net/netip"
)

type class struct {
	prefix netip.Prefix
	name   string
}

// classes are the ranges of IANA's special-purpose registries that are not globally
// reachable, the metadata addresses that clouds put outside of them, and what is
// reachable but no unicast. The first that holds an address names it.
var classes = []class{
	{netip.MustParsePrefix("169.254.169.254/32"), "metadata"},
	{netip.MustParsePrefix("168.63.129.16/32"), "metadata"},
	{netip.MustParsePrefix("100.100.100.200/32"), "metadata"},
	{netip.MustParsePrefix("192.0.0.192/32"), "metadata"},
	{netip.MustParsePrefix("fd00:ec2::254/128"), "metadata"},
	{netip.MustParsePrefix("fd20:ce::254/128"), "metadata"},
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "carrier-grade NAT"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved"},
	{netip.MustParsePrefix("192.0.2.0/24"), "documentation"},
	{netip.MustParsePrefix("192.31.196.0/24"), "reserved"},
	{netip.MustParsePrefix("192.52.193.0/24"), "reserved"},
	{netip.MustParsePrefix("192.88.99.0/24"), "reserved"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("192.175.48.0/24"), "reserved"},
	{netip.MustParsePrefix("198.18.0.0/15"), "benchmarking"},
	{netip.MustParsePrefix("198.51.100.0/24"), "documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("255.255.255.255/32"), "broadcast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "private"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
	{netip.MustParsePrefix("2001:db8::/32"), "documentation"},
	{netip.MustParsePrefix("3fff::/20"), "documentation"},
}

var (
	global      = netip.MustParsePrefix("2000::/3")
	nat64       = netip.MustParsePrefix("64:ff9b::/96")
	teredo      = netip.MustParsePrefix("2001::/32")
	sixToFour   = netip.MustParsePrefix("2002::/16")
	ietf        = netip.MustParsePrefix("2001::/23")
	compatible  = netip.MustParsePrefix("::/96")
	translation = netip.MustParsePrefix("::ffff:0:0:0/96")
)

// Classify names the kind of address that an address is if it is not a public unicast
// one, and returns "" if it is.
func Classify(addr netip.Addr) string {
	if !addr.IsValid() {
		return "invalid"
	}
	if addr.Zone() != "" {
		return "link-local"
	}
	mapped := addr.Is4In6()
	addr = addr.Unmap()
	for _, c := range classes {
		if c.prefix.Contains(addr) {
			if mapped {
				return "IPv4-mapped " + c.name
			}
			return c.name
		}
	}
	if addr.Is4() {
		return ""
	}
	return classify6(addr)
}

// classify6 judges IPv6 addresses that are in none of the classes: those that carry
// an IPv4 address by that address, the rest by whether they are global unicast.
func classify6(addr netip.Addr) string {
	b := addr.As16()
	inner := func(kind string, off int, mask uint32) string {
		var v4 [4]byte
		binary.BigEndian.PutUint32(v4[:], binary.BigEndian.Uint32(b[off:])^mask)
		if c := Classify(netip.AddrFrom4(v4)); c != "" {
			return kind + " " + c
		}
		return ""
	}
	switch {
	case nat64.Contains(addr):
		return inner("NAT64", 12, 0)
	case sixToFour.Contains(addr):
		return inner("6to4", 2, 0)
	case teredo.Contains(addr):
		// Whatever it carries, a relay of somebody else's would be talked to.
		return "Teredo"
	case translation.Contains(addr):
		return "IPv4-translated"
	case compatible.Contains(addr):
		return "IPv4-compatible"
	case ietf.Contains(addr):
		return "reserved"
	case !global.Contains(addr):
		// Among these is 64:ff9b:1::/48, the local use NAT64 prefix.
		return "reserved"
	case b[8]&^3 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe:
		return inner("ISATAP", 12, 0)
	}
	return ""
}
