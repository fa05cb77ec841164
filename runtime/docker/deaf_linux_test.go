package docker_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	goruntime "runtime"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/docker"
)

// listener counts what arrives at any address of this host.
type listener struct {
	port    int
	arrived chan string
}

func listen(t *testing.T) *listener {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	l := &listener{port: conn.LocalAddr().(*net.UDPAddr).Port, arrived: make(chan string, 1024)}
	go func() {
		buf := make([]byte, 64)
		for {
			n, from, err := conn.ReadFromUDP(buf)
			if err != nil {
				return
			}
			l.arrived <- string(buf[:n]) + " from " + from.String()
		}
	}()
	return l
}

// attack sends to each address of this host from a container's network, as a
// process without any capability can: by a socket that is bound to the interface
// and asks for no gateway. It reports what arrived.
func attack(t *testing.T, l *listener, pid int) []string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	must(t, err)
	done := make(chan error, 1)
	go func() {
		// The thread is not given back: it ends with the goroutine.
		goruntime.LockOSThread()
		done <- sendAll(pid, addresses, l.port)
	}()
	must(t, <-done)
	var got []string
	for {
		select {
		case s := <-l.arrived:
			got = append(got, s)
		case <-time.After(200 * time.Millisecond):
			return got
		}
	}
}

func sendAll(pid int, addresses []net.Addr, port int) error {
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		return err
	}
	defer ns.Close() //nolint:errcheck // a test's
	if err := netns.Set(ns); err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // a test's
	if err := unix.BindToDevice(fd, "eth0"); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DONTROUTE, 1); err != nil {
		return err
	}
	// Resolving an address that was silent before takes a second.
	for range 60 {
		for _, a := range addresses {
			prefix, err := netip.ParsePrefix(a.String())
			if err != nil || !prefix.Addr().Is4() || prefix.Addr().IsLoopback() {
				continue
			}
			// An error is as good as silence.
			_ = unix.Sendto(fd, []byte("to "+prefix.Addr().String()), 0, &unix.SockaddrInet4{Port: port, Addr: prefix.Addr().As4()})
		}
		time.Sleep(25 * time.Millisecond)
	}
	return nil
}

func TestHostIsDeafToAnInternalNetwork(t *testing.T) {
	rt := testEngine(t)
	e, err := docker.OpenForTest(t.Context(), testHost())
	must(t, err)
	cleanup(t, func(context.Context) error { return e.Close() })
	n := network(t, rt, runtime.NetworkSpec{Name: "dk-deaf", Internal: true})
	c := run(t, rt, runtime.ContainerSpec{Name: "dk-deaf", Networks: []runtime.NetworkAttachment{{Network: n.Name}}})
	inspected, err := e.API().ContainerInspect(t.Context(), c.ID, client.ContainerInspectOptions{})
	must(t, err)
	l := listen(t)
	if got := attack(t, l, inspected.Container.State.Pid); len(got) > 0 {
		t.Errorf("the host was reached: %q", got)
	}
	// The attack is one: without the seal it succeeds, Docker's own isolation
	// notwithstanding.
	must(t, e.Unseal(t.Context(), n.Name))
	reached := false
	for range 20 { // on a busy machine the first may be too early
		if reached = len(attack(t, l, inspected.Container.State.Pid)) > 0; reached {
			break
		}
	}
	if !reached {
		t.Error("control: the host is not reached without the seal either")
	}
	// Whoever attaches the next container seals it again.
	other := run(t, rt, runtime.ContainerSpec{Name: "dk-deaf2", Networks: []runtime.NetworkAttachment{{Network: n.Name}}})
	if got := attack(t, l, inspected.Container.State.Pid); len(got) > 0 {
		t.Errorf("the host was reached after %s was run: %q", other.Name, got)
	}
}

// TestMacvlanNetworkIsDeaf checks the other kind of internal network, whose parent
// is a dummy device. Not every kernel has those: a pair of devices whose other end
// leads nowhere stands for it, called as the daemon would call it.
func TestMacvlanNetworkIsDeaf(t *testing.T) {
	rt := testEngine(t)
	e, err := docker.OpenForTest(t.Context(), testHost())
	must(t, err)
	cleanup(t, func(context.Context) error { return e.Close() })
	parent := deadEnd(t, "dm-dktest")
	created, err := e.API().NetworkCreate(t.Context(), "dk-macvlan", client.NetworkCreateOptions{
		Driver: "macvlan", Internal: true, Options: map[string]string{"parent": parent},
		Labels: map[string]string{runtime.LabelManaged: "true"},
		IPAM:   &networktypes.IPAM{Config: []networktypes.IPAMConfig{{Subnet: netip.MustParsePrefix("203.0.113.128/27")}}},
	})
	must(t, err)
	cleanup(t, func(ctx context.Context) error { return rt.RemoveNetwork(ctx, created.ID) })
	c := run(t, rt, runtime.ContainerSpec{Name: "dk-macvlan1", Networks: []runtime.NetworkAttachment{{Network: "dk-macvlan"}}})
	run(t, rt, runtime.ContainerSpec{Name: "dk-macvlan2", Networks: []runtime.NetworkAttachment{{Network: "dk-macvlan", Aliases: []string{"peer"}}}, Command: []string{"sh", "-c", "while :; do echo hello | busybox nc -l -p 7; done"}})
	if got, _ := sh(t, rt, c.ID, "for i in $(busybox seq 100); do busybox nc peer 7 </dev/null && break; busybox sleep 0.2; done"); got != "hello" {
		t.Errorf("containers do not reach each other: %q", got)
	}
	inspected, err := e.API().ContainerInspect(t.Context(), c.ID, client.ContainerInspectOptions{})
	must(t, err)
	if got := attack(t, listen(t), inspected.Container.State.Pid); len(got) > 0 {
		t.Errorf("the host was reached: %q", got)
	}
}

// deadEnd makes a device that is up and leads into an empty namespace.
func deadEnd(t *testing.T, name string) string {
	t.Helper()
	made := make(chan netns.NsHandle)
	go func() {
		goruntime.LockOSThread() // ends with the goroutine
		ns, err := netns.New()
		if err != nil {
			t.Error(err)
		}
		made <- ns
	}()
	ns := <-made
	t.Cleanup(func() { _ = ns.Close() })
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: name + "1", PeerNamespace: netlink.NsFd(int(ns))}
	must(t, netlink.LinkAdd(link))
	cleanup(t, func(context.Context) error { return netlink.LinkDel(link) })
	must(t, netlink.LinkSetUp(link))
	inside, err := netlink.NewHandleAt(ns)
	must(t, err)
	defer inside.Close()
	peer, err := inside.LinkByName(name + "1")
	must(t, err)
	must(t, inside.LinkSetUp(peer))
	return name
}

// TestWithoutTheMeansToSeal is a process that is not root. On a kernel without
// dummy devices it gets no internal network, and no open one instead.
func TestWithoutTheMeansToSeal(t *testing.T) {
	rt := openEngine(t)
	t.Cleanup(func() { _ = rt.Close() })
	unchanged(t, rt)
	e, err := docker.OpenForTest(t.Context(), testHost())
	must(t, err)
	cleanup(t, func(context.Context) error { return e.Close() })
	e.CannotSeal()
	n, err := e.CreateNetwork(t.Context(), runtime.NetworkSpec{Name: "dk-unsealed", Internal: true})
	if err != nil {
		if !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "modprobe") {
			t.Errorf("got %v, want FailedPrecondition with a hint", err)
		}
		return
	}
	cleanup(t, func(ctx context.Context) error { return rt.RemoveNetwork(ctx, n.ID) })
	raw, err := e.API().NetworkInspect(t.Context(), n.ID, client.NetworkInspectOptions{})
	must(t, err)
	if raw.Network.Driver != "macvlan" {
		t.Errorf("the network has the driver %s", raw.Network.Driver)
	}
	if os.Geteuid() != 0 {
		t.Log("not root: the effect is not tested")
	}
}
