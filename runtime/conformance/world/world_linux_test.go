package world

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/bottle-run/bottle/runtime/conformance/internal/dns"
	"github.com/bottle-run/bottle/runtime/internal/dump"
)

// TestMain runs the tests in a network namespace of their own: what they make
// changes nothing of this host.
func TestMain(m *testing.M) {
	const inside = "BOTTLE_WORLD_TEST"
	if os.Getenv(inside) != "" {
		if lo, err := netlink.LinkByName("lo"); err != nil || netlink.LinkSetUp(lo) != nil {
			panic("cannot set up lo")
		}
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
	}
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(exit.ExitCode())
	case err != nil:
		panic("tests need a network namespace: " + err.Error())
	}
}

func open(t *testing.T, socket string) World {
	t.Helper()
	w, err := Open(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func say(t *testing.T, network, addr, text string) string {
	t.Helper()
	conn, err := net.DialTimeout(network, addr, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 512)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatalf("%s %s: %v", network, addr, err)
	}
	return string(b[:n])
}

func count(t *testing.T, w World, q Query) int {
	t.Helper()
	hits, err := w.Hits(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return len(hits)
}

func TestTheWorldAnswersAndRecords(t *testing.T) {
	w := open(t, "")
	places := []Place{A, B, Metadata}
	if w.Layout().IPv6() {
		places = append(places, V6)
	}
	for _, p := range places {
		at, err := w.Listen(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		if n := count(t, w, Query{Addr: at.Addr(), Port: at.Port()}); n != 0 {
			t.Errorf("%s: %d hits before anything was sent", p, n)
		}
		for _, network := range []string{"tcp", "udp"} {
			token := "Token-" + network + string(p)
			if got := say(t, network, at.String(), token); got != token {
				t.Errorf("%s %s: want an echo of %q, got %q", network, at, token, got)
			}
			if n := count(t, w, Query{Token: "tOKEN-" + network + string(p)}); n == 0 {
				t.Errorf("%s %s: the token was not recorded", network, at)
			}
		}
		if n := count(t, w, Query{Addr: at.Addr(), Port: at.Port()}); n < 2 {
			t.Errorf("%s: want a hit by address for each protocol, got %d", p, n)
		}
	}
	for name, want := range map[string][]netip.Addr{
		"Secret":               {w.Layout().Answer},
		"192-0-2-1":            {netip.MustParseAddr("192.0.2.1")},
		"192-0-2-1.127-0-0-2":  {netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("127.0.0.2")},
		"192-0-2-1.else.where": {w.Layout().Answer},
	} {
		query := dns.Query(1, name+"."+Zone, dns.TypeA)
		_, addrs, err := dns.ParseReply([]byte(say(t, "udp", netip.AddrPortFrom(w.Layout().DNS, 53).String(), string(query))))
		if err != nil || !slices.Equal(addrs, want) {
			t.Errorf("DNS of %s: want %v, got %v, %v", name, want, addrs, err)
		}
	}
	if count(t, w, Query{Token: "secret"}) == 0 {
		t.Error("the DNS query was not recorded")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := netlink.LinkByName(hostLink); err == nil {
		t.Error("the link is there after Close")
	}
	routes, err := dump.Whole(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_V4) })
	if err != nil || len(routes) != 0 {
		t.Errorf("want no routes after Close, got %v, %v", routes, err)
	}
}

func TestAnAddressThatIsGivenOutAgainHasNoHits(t *testing.T) {
	w := open(t, "")
	defer func() { _ = w.Close() }()
	at, err := w.Listen(t.Context(), B)
	if err != nil {
		t.Fatal(err)
	}
	say(t, "udp", at.String(), "before")
	if count(t, w, Query{Addr: at.Addr()}) == 0 {
		t.Fatal("the packet was not recorded")
	}
	for range 1000 {
		again, err := w.Listen(t.Context(), B)
		if err != nil {
			t.Fatal(err)
		}
		if again.Addr() == at.Addr() {
			if n := count(t, w, Query{Addr: at.Addr()}); n != 0 {
				t.Errorf("%d hits of before", n)
			}
			return
		}
	}
	t.Error("the address was not given out again")
}

func TestASecondProcessSharesTheWorld(t *testing.T) {
	first := open(t, "")
	second := open(t, "")
	at, err := second.Listen(t.Context(), A)
	if err != nil {
		t.Fatal(err)
	}
	say(t, "tcp", at.String(), "shared")
	if count(t, first, Query{Token: "shared"}) == 0 {
		t.Error("the first does not see what the second does")
	}
	closed := make(chan error, 1)
	go func() { closed <- first.Close() }()
	if count(t, second, Query{Token: "shared"}) == 0 {
		t.Error("the second lost the world when the first was done with it")
	}
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-closed; err != nil {
		t.Fatal(err)
	}
}

func TestAServedWorldIsReachedByItsSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "world")
	ctx, stop := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- Serve(ctx, socket, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatal(err)
	}
	w := open(t, socket)
	if w.Layout().DNS != layout.DNS {
		t.Errorf("layout: %+v", w.Layout())
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if _, err := w.Listen(t.Context(), A); err == nil {
		t.Error("an ended world answered")
	}
	_ = w.Close()
}

func TestAServerOfTheCallersOwn(t *testing.T) {
	w := open(t, "")
	defer func() { _ = w.Close() }()
	at := netip.AddrPortFrom(w.Layout().Answer, 80)
	for range 2 { // it is free again when it is closed
		l, err := w.Bind(t.Context(), at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Bind(t.Context(), at); err == nil {
			t.Error("an address was had twice")
		}
		served := make(chan struct{})
		go func() {
			defer close(served)
			serveTCP(l, func(conn net.Conn) { _, _ = conn.Write([]byte("mine")) })
		}()
		if got := say(t, "tcp", at.String(), "hello"); got != "mine" {
			t.Errorf("it said %q", got)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-served
		if conn, err := net.DialTimeout("tcp", at.String(), time.Second); err == nil {
			_ = conn.Close()
			t.Error("it is still open")
		}
	}
	if _, err := w.Bind(t.Context(), netip.MustParseAddrPort("127.0.0.1:0")); err == nil {
		t.Error("an address that is not of the world was had")
	}
}
