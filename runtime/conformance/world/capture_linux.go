package world

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What is kept of the packets: the newest ones, and the beginning of each.
const (
	keepPackets = 1 << 15
	keepBytes   = 1 << 10
)

// capture records every packet that arrives on the world's link.
type capture struct {
	file *os.File
	mu   sync.Mutex
	hits []Hit
	news chan struct{} // closed and replaced when a packet has arrived
	err  error
}

// newCapture is called in the namespace.
func newCapture(ifindex int) (*capture, error) {
	const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL<<8&0xff00
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, all)
	if err != nil {
		return nil, fmt.Errorf("open the recorder: %w", err)
	}
	c := &capture{file: os.NewFile(uintptr(fd), "recorder"), news: make(chan struct{})}
	// A burst must not be lost; where the larger buffer is refused the usual
	// one does.
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20)
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex}); err != nil {
		return nil, errors.Join(fmt.Errorf("bind the recorder: %w", err), c.file.Close())
	}
	go c.read()
	return c, nil
}

func (c *capture) read() {
	raw, err := c.file.SyscallConn()
	if err != nil {
		c.fail(err)
		return
	}
	b := make([]byte, 1<<16)
	for {
		var n int
		var from unix.Sockaddr
		var readErr error
		err := raw.Read(func(fd uintptr) bool {
			n, from, readErr = unix.Recvfrom(int(fd), b, 0)
			return !errors.Is(readErr, unix.EAGAIN)
		})
		if err != nil || errors.Is(readErr, unix.EBADF) {
			c.fail(errors.Join(err, readErr))
			return
		}
		if readErr != nil {
			continue // such as ENETDOWN; the next read tells more
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if h, ok := parse(b[:n]); ok {
			c.add(h)
		}
	}
}

func (c *capture) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = fmt.Errorf("the recorder has stopped: %w", err)
	close(c.news)
	c.news = make(chan struct{})
}

func (c *capture) add(h Hit) {
	h.Time = time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.hits) == keepPackets {
		c.hits = append(c.hits[:0], c.hits[keepPackets/4:]...)
	}
	c.hits = append(c.hits, h)
	close(c.news)
	c.news = make(chan struct{})
}

// forget drops what was received at an address.
func (c *capture) forget(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hits = slices.DeleteFunc(c.hits, func(h Hit) bool { return h.Dst.Addr() == addr })
}

// find returns the hits of a query, and a channel that is closed at the next one.
func (c *capture) find(q Query) ([]Hit, <-chan struct{}, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var found []Hit
	for _, h := range c.hits {
		if q.match(h) {
			found = append(found, h)
		}
	}
	return found, c.news, c.err
}

// parse reads an IP packet.
func parse(b []byte) (Hit, bool) {
	var h Hit
	var protocol byte
	var src, dst netip.Addr
	switch {
	case len(b) >= 20 && b[0]>>4 == 4:
		size := int(b[0]&0xf) * 4
		if size < 20 || len(b) < size {
			return h, false
		}
		protocol = b[9]
		src, dst = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))
		b = b[size:]
	case len(b) >= 40 && b[0]>>4 == 6:
		protocol = b[6]
		src, dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
		b = b[40:]
	default:
		return h, false // ARP, which says nothing
	}
	var sport, dport uint16
	switch protocol {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		if len(b) >= 4 {
			sport, dport = binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		}
		h.Protocol = map[byte]string{unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp"}[protocol]
	case unix.IPPROTO_ICMP:
		h.Protocol = "icmp"
	case unix.IPPROTO_ICMPV6:
		h.Protocol = "icmpv6"
	default:
		h.Protocol = fmt.Sprint(protocol)
	}
	h.Src, h.Dst = netip.AddrPortFrom(src, sport), netip.AddrPortFrom(dst, dport)
	h.Payload = append([]byte(nil), b[:min(len(b), keepBytes)]...)
	return h, true
}

// match reports whether the query selects the hit.
func (q Query) match(h Hit) bool {
	if q.Addr.IsValid() && h.Dst.Addr() == q.Addr && (q.Port == 0 || h.Dst.Port() == q.Port) {
		return true
	}
	return q.Token != "" && strings.Contains(strings.ToLower(string(h.Payload)), strings.ToLower(q.Token))
}
