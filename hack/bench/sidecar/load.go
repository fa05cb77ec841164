package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// route is the way to the origin.
type route struct {
	address string // of the origin
	proxy   string // "" for none
	roots   *x509.CertPool
}

// conn is one connection to the origin.
type conn struct {
	tls *tls.Conn
	br  *bufio.Reader
	raw string // a small request
	r   *route
}

func (r *route) dial() (*conn, error) {
	first := r.address
	if r.proxy != "" {
		first = r.proxy
	}
	c, err := net.Dial("tcp", first)
	if err != nil {
		return nil, err
	}
	if r.proxy != "" {
		if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", r.address, r.address); err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodConnect})
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("CONNECT: %s", resp.Status)
		}
	}
	host, _, err := net.SplitHostPort(r.address)
	if err != nil {
		return nil, err
	}
	tc := tls.Client(c, &tls.Config{RootCAs: r.roots, ServerName: host, NextProtos: []string{"http/1.1"}})
	if err := tc.Handshake(); err != nil {
		c.Close()
		return nil, fmt.Errorf("TLS: %w", err)
	}
	return &conn{tls: tc, br: bufio.NewReaderSize(tc, 64<<10), r: r, raw: request("/small/path?with=a&query=1", r.address)}, nil
}

func request(path, host string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Language: en\r\nX-Request-Id: 7f3d2c1b\r\n\r\n"
}

// exchange sends a request and reads the whole answer.
func (c *conn) exchange(raw string) (int64, error) {
	if _, err := io.WriteString(c.tls, raw); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(c.br, nil)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("the answer is %s", resp.Status)
	}
	return n, err
}

// requested is what came of a load.
type requested struct {
	count float64
	rate  float64 // per second
	p50   float64 // µs
}

// requests sends small requests over so many connections for a while. They are open
// before it begins.
func (r *route) requests(connections int, span time.Duration) (requested, error) {
	conns := make([]*conn, connections)
	for i := range conns {
		c, err := r.dial()
		if err != nil {
			return requested{}, err
		}
		defer c.tls.Close()
		if _, err := c.exchange(c.raw); err != nil {
			return requested{}, err
		}
		conns[i] = c
	}
	took := make([][]time.Duration, connections)
	errs := make([]error, connections)
	begin := time.Now()
	var wg sync.WaitGroup
	for i, c := range conns {
		wg.Go(func() {
			for start := time.Now(); start.Sub(begin) < span; {
				if _, err := c.exchange(c.raw); err != nil {
					errs[i] = err
					return
				}
				now := time.Now()
				took[i] = append(took[i], now.Sub(start))
				start = now
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(begin)
	var all []time.Duration
	for i := range took {
		if errs[i] != nil {
			return requested{}, errs[i]
		}
		all = append(all, took[i]...)
	}
	return requested{float64(len(all)), float64(len(all)) / elapsed.Seconds(), float64(percentile(all, 0.5).Nanoseconds()) / 1000}, nil
}

// download loads one body and returns the rate in MiB per second.
func (r *route) download(size int64) (float64, error) {
	c, err := r.dial()
	if err != nil {
		return 0, err
	}
	defer c.tls.Close()
	begin := time.Now()
	n, err := c.exchange(request(fmt.Sprintf("/bytes/%d", size), r.address))
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes came of %d", n, size)
	}
	return float64(size) / (1 << 20) / time.Since(begin).Seconds(), err
}
