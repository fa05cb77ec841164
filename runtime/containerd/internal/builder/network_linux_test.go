package builder

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
)

func TestAStepHasTheNetworkThatItIsGiven(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	show := "RUN ip address; cat /etc/resolv.conf; readlink /proc/self/ns/net; cat /proc/sys/net/ipv4/ip_forward; echo x >> /etc/resolv.conf || echo read-only"
	_, out := w.must(b, from(show), runtime.BuildSpec{})
	contains(t, out, "inet 203.0.113.7/24", "nameserver 203.0.113.53\n", "inet 127.0.0.1/8", "\n0\n", "\nread-only\n")
	for _, not := range []string{here, "inet6", "uplink"} {
		if strings.Contains(out, not) {
			t.Errorf("%q is in the output", not)
		}
	}
	_, out = w.must(b, from(show), runtime.BuildSpec{NoNetwork: true})
	contains(t, out, "inet 127.0.0.1/8", "\n0\n")
	for _, not := range []string{here, "inet6", "eth0", "nameserver"} {
		if strings.Contains(out, not) {
			t.Errorf("%q is in the output without a network", not)
		}
	}
	_, out = w.must(b, from("RUN --network=none ip address"), runtime.BuildSpec{})
	if strings.Contains(out, "eth0") {
		t.Error("--network=none has a network")
	}

	w.net.fail = errors.New("out of addresses")
	_, _, err = w.build(b, runtime.BuildSpec{ContextDir: write(t, from("RUN echo not to be seen"))})
	if err == nil || !strings.Contains(err.Error(), "out of addresses") {
		t.Errorf("error %v", err)
	}
}

func TestAStepIsConfined(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	_, out := w.must(b, from(
		"RUN grep -E '^(Seccomp|CapEff|CapBnd):' /proc/self/status | tr '\\t' ' '",
		"RUN mount -t tmpfs none /tmp 2>&1 || echo no mount",
		"RUN ls /dev/kmsg /dev/mem /dev/sda 2>&1 | grep -c 'No such'",
		"RUN cat /proc/self/cgroup; cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null || true",
	), runtime.BuildSpec{})
	// The bounding set is the one that containers usually have: no SYS_ADMIN, NET_ADMIN, SYS_PTRACE.
	contains(t, out, "Seccomp: 2\n", "CapEff: 00000000a80425fb\n", "CapBnd: 00000000a80425fb\n", "no mount\n", "\n3\n", fmt.Sprintf("\n%d\n", runtime.DefaultPIDs))
}

// served is a network in whose namespaces a web server and a nameserver listen.
type served struct {
	fakeNetwork
	handler http.Handler
	t       *testing.T
}

func (s *served) Connect(ctx context.Context, path string) (Connection, error) {
	c, err := s.fakeNetwork.Connect(ctx, path)
	if err != nil {
		return c, err
	}
	var web net.Listener
	var names net.PacketConn
	err = onThread(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
			return err
		}
		if web, err = net.Listen("tcp4", "203.0.113.7:80"); err != nil {
			return err
		}
		names, err = net.ListenPacket("udp4", "203.0.113.7:53")
		return err
	})
	if err != nil {
		return Connection{}, errors.Join(err, c.Close())
	}
	server := &http.Server{Handler: s.handler}
	go func() { _ = server.Serve(web) }()
	go answer(names)
	undo := c.Close
	c.ResolvConf = []byte("# comment\nnameserver 203.0.113.7\n")
	c.Close = func() error { return errors.Join(server.Close(), names.Close(), undo()) }
	return c, nil
}

// answer tells whoever asks for web.example that it is at 203.0.113.7.
func answer(conn net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		m.Response, m.Additionals = true, nil
		switch {
		case q.Name.String() != "web.example.":
			m.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			m.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1},
				Body:   &dnsmessage.AResource{A: [4]byte{203, 0, 113, 7}},
			}}
		}
		if reply, err := m.Pack(); err == nil {
			_, _ = conn.WriteTo(reply, from)
		}
	}
}

func TestADDFetchesThroughTheStepsNetwork(t *testing.T) {
	w := newWorld(t)
	inside := &served{t: t, handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "http://203.0.113.7/file", http.StatusFound)
		case "/file":
			fmt.Fprint(w, "from inside")
		default:
			http.NotFound(w, r)
		}
	})}
	w.opts.Network = inside
	b := w.builder()
	_, out := w.must(b, from("ADD http://web.example/moved /a", "ADD http://203.0.113.7/file /b", "RUN cat /a /b; echo"), runtime.BuildSpec{})
	contains(t, out, "from insidefrom inside\n")
	if n := inside.open(); n != 0 {
		t.Errorf("%d connections are left", n)
	}

	asked := make(chan string, 1)
	host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		fmt.Fprint(w, "the host's")
	}))
	defer host.Close()
	for _, url := range []string{host.URL + "/x", "http://no-such.example/x", "http://203.0.113.7/missing"} {
		_, _, err := w.build(b, runtime.BuildSpec{ContextDir: write(t, from("ADD "+url+" /x", "RUN cat /x"))})
		if err == nil || !strings.Contains(err.Error(), "ADD http") {
			t.Errorf("%s: %v", url, err)
		}
	}
	select {
	case path := <-asked:
		t.Errorf("the host's server was asked for %s", path)
	default:
	}

	w.opts.Network = nil
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	_, _, err := w.build(w.builder(), runtime.BuildSpec{ContextDir: write(t, from("ADD http://203.0.113.7/other /x"))})
	if !errdefs.IsFailedPrecondition(err) {
		t.Errorf("without a network: %v", err)
	}
}
