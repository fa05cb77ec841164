package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bottle-run/bottle/runtime/conformance/internal/dns"
)

func init() {
	register(map[string]command{
		// dial TIMEOUT TOKEN TARGET…: sends the token to each target at once, tries
		// until the timeout, and tells what answered. A target is "tcp ADDR:PORT",
		// "udp ADDR:PORT" or "icmp ADDR".
		"dial": dial,
		// listen TARGET…: echoes what arrives on "tcp ADDR:PORT" and "udp ADDR:PORT".
		"listen": listen,
		// record "udp ADDR:PORT": prints what arrives.
		"record": record,
		// resolve TIMEOUT NAME…: as a program does it, by hosts file and resolv.conf.
		"resolve": resolve,
		// dns TIMEOUT NAME SERVER…: asks each server, for A, AAAA and TXT, by UDP and
		// TCP. Without servers, those of resolv.conf.
		"dns": askDNS,
		// ifaces: the interfaces with their addresses.
		"ifaces": ifaces,
		// settle: returns once every IPv6 address may be used.
		"settle": func(ctx context.Context, c *Call) int { return c.done(Settle(ctx)) },
	})
}

func dial(ctx context.Context, c *Call) int {
	timeout, err := time.ParseDuration(c.arg(0))
	if err != nil {
		return c.done(err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	answers := make([]Answer, len(c.rest(2)))
	var wg sync.WaitGroup
	for i, target := range c.rest(2) {
		wg.Go(func() { answers[i] = try(ctx, target, c.arg(1)) })
	}
	wg.Wait()
	return c.json(answers)
}

// try repeats the attempt until it succeeds or ctx ends.
func try(ctx context.Context, target, token string) Answer {
	a := Answer{Target: target}
	network, addr, _ := strings.Cut(target, " ")
	for ctx.Err() == nil {
		data, err := attempt(ctx, network, addr, token)
		if err == nil {
			return Answer{Target: target, OK: true, Refused: a.Refused, Data: data}
		}
		if errors.Is(err, syscall.ECONNREFUSED) {
			a.Refused = true
		}
		// The first failure tells more than the last, which is the timeout.
		if a.Err == "" || ctx.Err() == nil {
			a.Err = err.Error()
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return a
}

func attempt(ctx context.Context, network, addr, token string) (string, error) {
	switch network {
	case "tcp":
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return "", err
		}
		defer func() { _ = conn.Close() }()
		return exchange(ctx, conn, []byte(token), 10*time.Second)
	case "udp":
		conn, err := new(net.Dialer).DialContext(ctx, "udp", addr)
		if err != nil {
			return "", err
		}
		defer func() { _ = conn.Close() }()
		return exchange(ctx, conn, []byte(token), 300*time.Millisecond)
	case "icmp":
		return ping(ctx, addr, token)
	}
	return "", fmt.Errorf("unknown network %q", network)
}

// exchange sends the token and returns what comes back.
func exchange(ctx context.Context, conn net.Conn, token []byte, patience time.Duration) (string, error) {
	deadline := time.Now().Add(patience)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := conn.Write(token); err != nil {
		return "", err
	}
	b := make([]byte, 2048)
	n, err := conn.Read(b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// ping sends an echo request that carries the token and waits for its reply.
func ping(ctx context.Context, addr, token string) (string, error) {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return "", err
	}
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if ip.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	dialled, err := new(net.Dialer).DialContext(ctx, network, addr)
	if err != nil {
		return "", err
	}
	conn := dialled.(*net.IPConn)
	defer func() { _ = conn.Close() }()
	id := uint16(os.Getpid())
	m := []byte{request, 0, 0, 0}
	m = binary.BigEndian.AppendUint16(m, id)
	m = append(binary.BigEndian.AppendUint16(m, 1), token...)
	if ip.Is4() {
		binary.BigEndian.PutUint16(m[2:], checksum(m))
	}
	deadline := time.Now().Add(300 * time.Millisecond)
	if err := conn.SetDeadline(deadline); err != nil {
		return "", err
	}
	if _, err := conn.Write(m); err != nil {
		return "", err
	}
	b := make([]byte, 2048)
	for {
		n, _, err := conn.ReadFrom(b) // without the IP header
		if err != nil {
			return "", err
		}
		if n >= 8 && b[0] == reply && bytes.HasPrefix(b[8:n], []byte(token)) {
			return string(b[8:n]), nil
		}
	}
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

func listen(ctx context.Context, c *Call) int {
	for _, target := range c.rest(0) {
		network, addr, _ := strings.Cut(target, " ")
		switch network {
		case "tcp":
			l, err := net.Listen("tcp", addr)
			if err != nil {
				return c.done(err)
			}
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go func() {
						_, _ = io.Copy(conn, conn)
						_ = conn.Close()
					}()
				}
			}()
		case "udp":
			p, err := net.ListenPacket("udp", addr)
			if err != nil {
				return c.done(err)
			}
			go func() {
				b := make([]byte, 65536)
				for {
					n, from, err := p.ReadFrom(b)
					if err != nil {
						return
					}
					_, _ = p.WriteTo(b[:n], from)
				}
			}()
		default:
			return c.usage("unknown network %q", network)
		}
	}
	_, _ = fmt.Fprintln(c.Stdout, "ready")
	return sleep(ctx, &Call{Args: []string{"sleep"}})
}

func record(_ context.Context, c *Call) int {
	network, addr, _ := strings.Cut(c.arg(0), " ")
	p, err := net.ListenPacket(network, addr)
	if err != nil {
		return c.done(err)
	}
	_, _ = fmt.Fprintln(c.Stdout, "ready")
	b := make([]byte, 65536)
	for {
		n, _, err := p.ReadFrom(b)
		if err != nil {
			return c.done(err)
		}
		_, _ = fmt.Fprintf(c.Stdout, "got %s\n", b[:n])
	}
}

func resolve(ctx context.Context, c *Call) int {
	timeout, err := time.ParseDuration(c.arg(0))
	if err != nil {
		return c.done(err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	results := make([]Resolved, len(c.rest(1)))
	var wg sync.WaitGroup
	for i, name := range c.rest(1) {
		wg.Go(func() {
			addrs, err := (&net.Resolver{PreferGo: true}).LookupNetIP(ctx, "ip", name)
			results[i] = Resolved{Name: name}
			for _, a := range addrs {
				results[i].Addrs = append(results[i].Addrs, a.Unmap())
			}
			if err != nil {
				results[i].Err = err.Error()
			}
		})
	}
	wg.Wait()
	return c.json(results)
}

func askDNS(ctx context.Context, c *Call) int {
	timeout, err := time.ParseDuration(c.arg(0))
	if err != nil {
		return c.done(err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	servers := c.rest(2)
	if len(servers) == 0 {
		servers = nameservers()
	}
	var (
		mu      sync.Mutex
		wg      sync.WaitGroup
		results = []Resolved{}
	)
	for _, server := range servers {
		for _, network := range []string{"udp", "tcp"} {
			for _, typ := range []uint16{dns.TypeA, dns.TypeAAAA, dns.TypeTXT} {
				wg.Go(func() {
					r := ask(ctx, network, server, c.arg(1), typ)
					mu.Lock()
					results = append(results, r)
					mu.Unlock()
				})
			}
		}
	}
	wg.Wait()
	return c.json(results)
}

func ask(ctx context.Context, network, server, name string, typ uint16) Resolved {
	r := Resolved{Server: network + " " + server, Name: name, RCode: -1}
	query := dns.Query(uint16(os.Getpid())^typ, name, typ)
	if network == "tcp" {
		query = append(binary.BigEndian.AppendUint16(nil, uint16(len(query))), query...)
	}
	for ctx.Err() == nil {
		conn, err := new(net.Dialer).DialContext(ctx, network, net.JoinHostPort(server, "53"))
		if err == nil {
			var data string
			data, err = exchange(ctx, conn, query, time.Second)
			_ = conn.Close()
			if network == "tcp" && len(data) > 2 {
				data = data[2:]
			}
			if err == nil {
				r.RCode, r.Addrs, err = dns.ParseReply([]byte(data))
			}
		}
		if err == nil {
			r.Err = ""
			return r
		}
		r.Err = err.Error()
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
	return r
}

// nameservers are those of resolv.conf, and what resolvers take if it names
// none.
func nameservers() []string {
	var servers []string
	b, _ := os.ReadFile("/etc/resolv.conf")
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
			servers = append(servers, f[1])
		}
	}
	if servers == nil {
		servers = []string{"127.0.0.1"}
	}
	return servers
}

func ifaces(_ context.Context, c *Call) int {
	links, err := net.Interfaces()
	if err != nil {
		return c.done(err)
	}
	list := []Interface{}
	for _, l := range links {
		i := Interface{Name: l.Name, MAC: l.HardwareAddr.String()}
		addrs, err := l.Addrs()
		if err != nil {
			return c.done(err)
		}
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				i.Addrs = append(i.Addrs, p)
			}
		}
		list = append(list, i)
	}
	return c.json(list)
}

func atoi(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
