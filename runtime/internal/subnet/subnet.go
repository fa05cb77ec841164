// Package subnet chooses small IPv4 networks that collide with nothing this
// host already routes.
//
// Engines take a /16 or /20 for each network when left alone, and run out at
// some thirty networks; a bottle needs room for a handful of containers.
package subnet

import (
	"hash/fnv"
	"net/netip"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// Bits is the prefix length of the networks handed out: 30 addresses for at
// most five containers and their engine's own.
const Bits = 27

// Pick returns a network of the given prefix length out of pool (the zero Prefix
// means runtime.DefaultSubnetPool) that overlaps
// none of used. The search begins at a place derived from seed, so that
// processes that choose at the same time rarely choose the same; a caller that
// loses such a race adds the loser to used and asks again. A full pool is
// Unavailable.
func Pick(pool netip.Prefix, bits int, used []netip.Prefix, seed string) (netip.Prefix, error) {
	if !pool.IsValid() {
		pool = runtime.DefaultSubnetPool
	}
	pool = pool.Masked()
	if !pool.Addr().Is4() || bits < pool.Bits() || bits > 30 {
		return netip.Prefix{}, runtime.Errorf(errdefs.ErrInvalidArgument,
			"cannot take networks of /%d out of the pool %s: the pool must be IPv4 and larger than that", bits, pool)
	}
	count := uint32(1) << (bits - pool.Bits())
	step := uint32(1) << (32 - bits)
	base := toUint(pool.Addr())
	h := fnv.New32a()
	h.Write([]byte(seed))
	start := h.Sum32() % count
	for i := range count {
		candidate := netip.PrefixFrom(fromUint(base+(start+i)%count*step), bits)
		if !overlapsAny(candidate, used) {
			return candidate, nil
		}
	}
	return netip.Prefix{}, runtime.Errorf(errdefs.ErrUnavailable,
		"no free /%d network is left in the pool %s: remove unused networks or choose a larger pool", bits, pool)
}

func overlapsAny(p netip.Prefix, used []netip.Prefix) bool {
	for _, u := range used {
		// A default route overlaps everything and means nothing here.
		if u.Bits() > 0 && p.Overlaps(u) {
			return true
		}
	}
	return false
}

// Nth returns the n-th address of p, counting from 0 (the network address).
func Nth(p netip.Prefix, n uint32) netip.Addr { return fromUint(toUint(p.Masked().Addr()) + n) }

// Size is the number of addresses in p, network and broadcast included.
func Size(p netip.Prefix) uint32 { return uint32(1) << (32 - p.Bits()) }

func toUint(a netip.Addr) uint32 {
	b := a.As4()
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func fromUint(u uint32) netip.Addr {
	return netip.AddrFrom4([4]byte{byte(u >> 24), byte(u >> 16), byte(u >> 8), byte(u)})
}
