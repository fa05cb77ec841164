package docker

import (
	"errors"
	"net"
	"os"
	goruntime "runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// inNamespace runs f in a network namespace of its own.
func inNamespace(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a network namespace")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// The thread is not given back: it ends with the goroutine.
		goruntime.LockOSThread()
		ns, err := netns.New()
		if err != nil {
			t.Error(err)
			return
		}
		defer ns.Close() //nolint:errcheck // it is gone with the thread
		f()
	}()
	<-done
}

func addBridge(t *testing.T, name string) {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		t.Fatal(err)
	}
}

func removeLink(t *testing.T, name string) {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func seals(t *testing.T) int {
	t.Helper()
	list, err := nftSealer{}.Seals()
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestSealIsIdempotentAndGoes(t *testing.T) {
	inNamespace(t, func() {
		s := nftSealer{}
		if err := s.Seal("btnone"); !errors.Is(err, errNotLocal) {
			t.Errorf("a bridge that is not here: %v", err)
		}
		addBridge(t, "btone")
		for range 2 {
			if err := s.Seal("btone"); err != nil {
				t.Fatal(err)
			}
		}
		if n := seals(t); n != 1 {
			t.Errorf("%d seals, want 1", n)
		}
		// After a reboot the daemon makes the device anew.
		removeLink(t, "btone")
		addBridge(t, "btone")
		if err := s.Seal("btone"); err != nil {
			t.Fatal(err)
		}
		removeLink(t, "btone")
		for range 2 {
			if err := s.Unseal("btone"); err != nil {
				t.Fatal(err)
			}
		}
		if n := seals(t); n != 0 {
			t.Errorf("%d seals are left", n)
		}
	})
}

// TestSealHoldsForADeviceMadeAnew proves what Seal's early return relies on.
func TestSealHoldsForADeviceMadeAnew(t *testing.T) {
	inNamespace(t, func() {
		s := nftSealer{}
		for round := range 2 {
			addBridge(t, "bttwo")
			if err := s.Seal("bttwo"); err != nil {
				t.Fatal(err)
			}
			if reached(t, "bttwo") {
				t.Errorf("round %d: the host is reached through the sealed bridge", round)
			}
			if round == 1 {
				if err := s.Unseal("bttwo"); err != nil {
					t.Fatal(err)
				}
				if !reached(t, "bttwo") {
					t.Error("control: without the seal the host is not reached either")
				}
			}
			removeLink(t, "bttwo")
		}
	})
}

// reached sends a frame into the bridge by one of its ports, and reports whether
// the host's side of it receives it.
func reached(t *testing.T, bridge string) bool {
	t.Helper()
	link, err := netlink.LinkByName(bridge)
	if err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "btport"
	attrs.MasterIndex = link.Attrs().Index
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "btpeer"}); err != nil {
		t.Fatal(err)
	}
	defer removeLink(t, "btport")
	address, _ := netlink.ParseAddr("192.0.2.1/24")
	if err := netlink.AddrReplace(link, address); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{bridge, "btport", "btpeer"} {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	peer, err := net.InterfaceByName("btpeer")
	if err != nil {
		t.Fatal(err)
	}
	return answersARP(t, peer, net.IPv4(192, 0, 2, 1).To4())
}
