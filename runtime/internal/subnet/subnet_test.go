package subnet

import (
	"net/netip"
	"testing"

	"github.com/containerd/errdefs"
)

func TestPickSkipsWhatIsUsed(t *testing.T) {
	pool := netip.MustParsePrefix("10.208.0.0/24")
	var used []netip.Prefix
	for range 8 {
		p, err := Pick(pool, Bits, used, "same seed")
		if err != nil {
			t.Fatal(err)
		}
		if overlapsAny(p, used) || !pool.Overlaps(p) || p.Bits() != Bits {
			t.Fatalf("picked %s with %v in use", p, used)
		}
		used = append(used, p)
	}
	if _, err := Pick(pool, Bits, used, "same seed"); !errdefs.IsUnavailable(err) {
		t.Fatalf("a full pool gave %v, want Unavailable", err)
	}
}

func TestPickIgnoresADefaultRoute(t *testing.T) {
	if _, err := Pick(netip.Prefix{}, Bits, []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}, ""); err != nil {
		t.Fatal(err)
	}
}

func TestPickAvoidsWiderRoutes(t *testing.T) {
	p, err := Pick(netip.MustParsePrefix("10.208.0.0/23"), Bits, []netip.Prefix{netip.MustParsePrefix("10.208.0.0/24")}, "x")
	if err != nil {
		t.Fatal(err)
	}
	if !netip.MustParsePrefix("10.208.1.0/24").Overlaps(p) {
		t.Fatalf("picked %s inside a routed network", p)
	}
}

func TestPickRefusesAnUnfitPool(t *testing.T) {
	for _, pool := range []string{"2001:db8::/32", "10.0.0.0/30"} {
		if _, err := Pick(netip.MustParsePrefix(pool), Bits, nil, ""); !errdefs.IsInvalidArgument(err) {
			t.Errorf("pool %s gave %v, want InvalidArgument", pool, err)
		}
	}
}

func TestHostPrefixesHoldTheLoopbackNetwork(t *testing.T) {
	used, err := HostPrefixes()
	if err != nil {
		t.Fatal(err)
	}
	if !overlapsAny(netip.MustParsePrefix("127.0.0.0/16"), used) {
		t.Fatalf("no loopback network in %v", used)
	}
}
