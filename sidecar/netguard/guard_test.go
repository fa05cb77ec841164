package netguard

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
)

func TestClassify(t *testing.T) {
	for in, want := range map[string]string{
		"8.8.8.8": "", "1.1.1.1": "", "2606:4700::1111": "", "2001:4860:4860::8888": "", "::ffff:8.8.8.8": "", "64:ff9b::808:808": "", "2002:808:808::1": "",
		"10.1.2.3": "private", "172.16.0.1": "private", "172.31.255.255": "private", "192.168.1.1": "private", "127.0.0.1": "loopback", "127.9.9.9": "loopback",
		"169.254.1.1": "link-local", "169.254.169.254": "metadata", "168.63.129.16": "metadata", "fd00:ec2::254": "metadata", "100.64.0.1": "carrier-grade NAT",
		"0.0.0.0": "unspecified", "0.1.2.3": "unspecified", "224.0.0.1": "multicast", "239.1.1.1": "multicast", "255.255.255.255": "broadcast", "240.0.0.1": "reserved",
		"192.0.2.1": "documentation", "198.51.100.1": "documentation", "203.0.113.9": "documentation", "198.18.0.1": "benchmarking",
		"::": "unspecified", "::1": "loopback", "fe80::1": "link-local", "fe80::1%eth0": "link-local", "fec0::1": "private", "fc00::1": "private", "fd12::1": "private", "ff02::1": "multicast",
		"2001:db8::1": "documentation", "3fff::1": "documentation", "::ffff:127.0.0.1": "IPv4-mapped loopback", "::ffff:169.254.169.254": "IPv4-mapped metadata",
		"64:ff9b::7f00:1": "NAT64 loopback", "64:ff9b::a9fe:a9fe": "NAT64 metadata", "64:ff9b:1::808:808": "reserved", "2002:7f00:1::": "6to4 loopback", "2002:a00:1::": "6to4 private",
		"2001:0:808:808::1": "Teredo", "::808:808": "IPv4-compatible", "::ffff:0:7f00:1": "IPv4-translated", "100::1": "reserved", "4000::1": "reserved",
		"2606:4700::5efe:a00:1": "ISATAP private", "2606:4700::200:5efe:a00:1": "ISATAP private", "2606:4700::5efe:808:808": "",
	} {
		if got := Classify(netip.MustParseAddr(in)); got != want {
			t.Errorf("Classify(%s) = %q; want %q", in, got, want)
		}
	}
	if Classify(netip.Addr{}) == "" {
		t.Error("no address at all is public")
	}
}

type answers func(host string) []netip.Addr

func (a answers) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	addrs := a(host)
	if addrs == nil {
		return nil, fmt.Errorf("no such host")
	}
	return addrs, nil
}

func TestEveryAddressIsChecked(t *testing.T) {
	g := &Guard{Resolver: answers(func(string) []netip.Addr {
		return []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("10.0.0.1")}
	})}
	_, err := g.DialContext(t.Context(), "tcp", "mixed.example:443")
	var fe *ForbiddenError
	if !errors.Is(err, ErrForbidden) || !errors.As(err, &fe) || fe.Class != "private" || fe.Host != "mixed.example" {
		t.Errorf("a name with one private address: %v", err)
	}
	g.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}
	if addrs, err := g.Resolve(t.Context(), "mixed.example"); err != nil || len(addrs) != 2 {
		t.Errorf("with the prefix allowed: %v, %v", addrs, err)
	}
	if _, err := g.Resolve(t.Context(), "10.0.1.1"); !errors.Is(err, ErrForbidden) {
		t.Errorf("a literal outside the allowed prefix: %v", err)
	}
	if _, err := g.Resolve(t.Context(), "::ffff:10.0.0.9"); err != nil {
		t.Errorf("a mapped literal inside the allowed prefix: %v", err)
	}
}

func TestRebindingDialsWhatWasChecked(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	var asked atomic.Int32
	g := &Guard{
		Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
		Resolver: answers(func(host string) []netip.Addr {
			if host != "rebind.example." {
				t.Errorf("asked for %q; search domains would apply", host)
			}
			if asked.Add(1) == 1 {
				return []netip.Addr{netip.MustParseAddr("127.0.0.1")}
			}
			return []netip.Addr{netip.MustParseAddr("127.0.0.2")}
		}),
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	conn, err := g.DialContext(t.Context(), "tcp", "rebind.example:"+port)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if asked.Load() != 1 {
		t.Errorf("the name was resolved %d times for one connection", asked.Load())
	}
	if _, err = g.DialContext(t.Context(), "tcp", "rebind.example:"+port); !errors.Is(err, ErrForbidden) {
		t.Errorf("the second answer: %v", err)
	}
}

func TestDialTriesTheNextAddress(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	g := &Guard{
		Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Resolver: answers(func(string) []netip.Addr {
			return []netip.Addr{netip.MustParseAddr("127.0.0.9"), netip.MustParseAddr("127.0.0.1")}
		}),
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	conn, err := g.DialContext(t.Context(), "tcp", "two.example:"+port)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := (&Guard{Resolver: answers(func(string) []netip.Addr { return nil })}).Resolve(t.Context(), "none.example"); err == nil || !strings.Contains(err.Error(), "none.example") {
		t.Errorf("a name that does not exist: %v", err)
	}
}

func FuzzClassify(f *testing.F) {
	f.Add([]byte{127, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, ok := netip.AddrFromSlice(b)
		if !ok || Classify(addr) != "" {
			return
		}
		plain := addr.Unmap()
		if !plain.IsGlobalUnicast() || plain.IsPrivate() || plain.IsLoopback() || plain.IsLinkLocalUnicast() || plain.IsMulticast() {
			t.Fatalf("%s passes for public", addr)
		}
	})
}
