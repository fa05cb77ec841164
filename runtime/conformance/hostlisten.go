package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// hostListener is a service of this host on every address it has or will have,
// TCP and UDP, that records what reaches it.
type hostListener struct {
	port uint16
	tcp  *net.TCPListener
	udp  *net.UDPConn

	mu   sync.Mutex
	hits []hostHit
}

type hostHit struct {
	from string
	data []byte
}

// hostListener starts one for the test. It answers by echoes.
func (e *Env) hostListener() (*hostListener, error) {
	var errs []error
	for range 8 {
		l, err := net.ListenTCP("tcp", &net.TCPAddr{}) // [::] and 0.0.0.0
		if err != nil {
			return nil, err
		}
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		u, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		if err != nil {
			errs = append(errs, err, l.Close())
			continue
		}
		h := &hostListener{port: port, tcp: l, udp: u}
		go h.serveTCP()
		go h.serveUDP()
		e.Cleanup(func(context.Context) error { return errors.Join(l.Close(), u.Close()) })
		return h, h.alive()
	}
	return nil, errors.Join(errs...)
}

func (h *hostListener) record(from string, data []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hits = append(h.hits, hostHit{from, bytes.Clone(data)})
}

func (h *hostListener) serveTCP() {
	for {
		conn, err := h.tcp.Accept()
		if err != nil {
			return
		}
		h.record("tcp "+conn.RemoteAddr().String(), nil)
		go func() {
			defer func() { _ = conn.Close() }()
			_ = conn.SetDeadline(time.Now().Add(patience))
			b := make([]byte, 2048)
			n, err := conn.Read(b)
			if err != nil {
				return
			}
			h.record("tcp "+conn.RemoteAddr().String(), b[:n])
			_, _ = conn.Write(b[:n])
		}()
	}
}

func (h *hostListener) serveUDP() {
	b := make([]byte, 2048)
	for {
		n, from, err := h.udp.ReadFromUDPAddrPort(b)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		h.record("udp "+from.String(), b[:n])
		_, _ = h.udp.WriteToUDPAddrPort(b[:n], from)
	}
}

// received returns from where something with the token has come.
func (h *hostListener) received(token string) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var from []string
	for _, hit := range h.hits {
		if bytes.Contains(hit.data, []byte(token)) {
			from = append(from, hit.from)
		}
	}
	return from
}

// connections counts the connections that were accepted.
func (h *hostListener) connections() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, hit := range h.hits {
		if hit.data == nil {
			n++
		}
	}
	return n
}

// alive is the control: this host reaches its own service by loopback and by
// each address of its own.
func (h *hostListener) alive() error {
	addrs, err := hostAddresses()
	if err != nil {
		return err
	}
	control := "control" + random(4)
	if slices.ContainsFunc(addrs, netip.Addr.Is6) {
		addrs = append(addrs, netip.IPv6Loopback())
	}
	for _, a := range append(addrs, netip.MustParseAddr("127.0.0.1")) {
		if a.Zone() != "" {
			continue // it may be tentative still
		}
		at := netip.AddrPortFrom(a, h.port).String()
		err := echoed("tcp", at, control)
		if now, _ := hostAddresses(); err != nil && (a.IsLoopback() || slices.Contains(now, a)) {
			return failed("control: this host should reach its own service at tcp %s: %w", at, err)
		}
	}
	// By loopback alone: an engine's address translation may mangle the answer of
	// a UDP service to this host itself.
	if err := echoed("udp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), h.port).String(), control); err != nil {
		return failed("control: this host should reach its own service by UDP: %w", err)
	}
	if len(h.received(control)) == 0 {
		return failed("control: the service at port %d records nothing", h.port)
	}
	// What the control did is not the test's.
	h.mu.Lock()
	h.hits = nil
	h.mu.Unlock()
	return nil
}

// echoed sends text from this process and expects it back.
func echoed(network, at, text string) error {
	conn, err := net.DialTimeout(network, at, patience)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		return err
	}
	b := make([]byte, 2048)
	n, err := conn.Read(b)
	if err != nil {
		return err
	}
	if string(b[:n]) != text {
		return fmt.Errorf("expected %q back, got %q", text, b[:n])
	}
	return nil
}

// hostAddresses are this host's own, other than loopback's: those of every
// bridge are among them. Link-local ones have their zone.
func hostAddresses() ([]netip.Addr, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var all []netip.Addr
	for _, l := range links {
		if l.Flags&net.FlagUp == 0 || l.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := l.Addrs()
		if err != nil {
			continue // it has gone meanwhile
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err != nil {
				continue
			}
			addr := p.Addr()
			if addr.IsLinkLocalUnicast() && addr.Is6() {
				addr = addr.WithZone(l.Name)
			}
			all = append(all, addr)
		}
	}
	return all, nil
}

// hostMACs are the hardware addresses of this host's links, a bridge's among
// them: more than an agent could know.
func hostMACs() ([]string, error) {
	links, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	macs := []string{"ff:ff:ff:ff:ff:ff"}
	for _, l := range links {
		if len(l.HardwareAddr) == 6 && l.Flags&net.FlagUp != 0 {
			macs = append(macs, l.HardwareAddr.String())
		}
	}
	return macs, nil
}
