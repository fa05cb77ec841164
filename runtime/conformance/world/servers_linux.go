package world

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime/conformance/internal/dns"
)

// idle is when a server gives a connection up.
const idle = time.Minute

// anywhere listens on addresses that are routed to the namespace and not set on
// a link: IPv6 wants to be told.
var anywhere = net.ListenConfig{Control: func(network, _ string, c syscall.RawConn) error {
	if !strings.HasSuffix(network, "6") {
		return nil
	}
	var err error
	if ctl := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_FREEBIND, 1) }); ctl != nil {
		return ctl
	}
	return err
}}

// echo serves TCP and UDP at an address, on a port that both can have. It is
// called in the namespace.
func echo(addr netip.Addr) (uint16, []io.Closer, error) {
	var errs []error
	for range 8 {
		l, err := anywhere.Listen(context.Background(), "tcp", netip.AddrPortFrom(addr, 0).String())
		if err != nil {
			return 0, nil, err
		}
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		p, err := anywhere.ListenPacket(context.Background(), "udp", netip.AddrPortFrom(addr, port).String())
		if err != nil {
			errs = append(errs, err, l.Close())
			continue
		}
		go serveTCP(l, func(conn net.Conn) { _, _ = io.Copy(conn, conn) })
		go serveUDP(p.(*net.UDPConn), func(b []byte) []byte { return b })
		return port, []io.Closer{l, p}, nil
	}
	return 0, nil, errors.Join(errs...)
}

// nameServer serves DNS. It is called in the namespace.
func nameServer() ([]io.Closer, error) {
	at := netip.AddrPortFrom(layout.DNS, 53)
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	p, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	go serveUDP(p, answer)
	go serveTCP(l, func(conn net.Conn) {
		for {
			var size [2]byte
			if _, err := io.ReadFull(conn, size[:]); err != nil {
				return
			}
			b := make([]byte, binary.BigEndian.Uint16(size[:]))
			if _, err := io.ReadFull(conn, b); err != nil {
				return
			}
			reply := answer(b)
			if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...)); err != nil {
				return
			}
		}
	})
	return []io.Closer{l, p}, nil
}

// answer knows every name of the zone and no other. A name of addresses, with hyphens for
// dots, leads to them: 192-0-2-1.192-0-2-2.world.test has two.
func answer(query []byte) []byte {
	q, err := dns.ParseQuery(query)
	if err != nil {
		return nil
	}
	rcode := byte(dns.RCodeNXDomain)
	var addrs []netip.Addr
	if strings.HasSuffix("."+q.Name, "."+Zone) {
		rcode, addrs = dns.RCodeSuccess, namedAddresses(strings.TrimSuffix(q.Name, "."+Zone))
		if len(addrs) == 0 {
			addrs = []netip.Addr{layout.Answer}
		}
	}
	reply, err := dns.Reply(query, rcode, addrs...)
	if err != nil {
		return nil
	}
	return reply
}

// namedAddresses are those that a name consists of; none if it holds something else.
func namedAddresses(name string) (addrs []netip.Addr) {
	for label := range strings.SplitSeq(name, ".") {
		addr, err := netip.ParseAddr(strings.ReplaceAll(label, "-", "."))
		if err != nil {
			return nil
		}
		addrs = append(addrs, addr)
	}
	return addrs
}

func serveTCP(l net.Listener, handle func(net.Conn)) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			_ = conn.SetDeadline(time.Now().Add(idle))
			handle(conn)
			_ = conn.Close()
		}()
	}
}

func serveUDP(p *net.UDPConn, handle func([]byte) []byte) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := p.ReadFromUDPAddrPort(b)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of an earlier reply
		}
		if reply := handle(b[:n]); reply != nil {
			_, _ = p.WriteToUDPAddrPort(reply, from)
		}
	}
}
