package e2e

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzRequestPath has a hostile client send bytes to the egress proxy, or into a tunnel
// through it. Whatever they are, what arrives beyond both sidecars is a request that the
// policy allows, with no credential of the client's and no known value in it, and there
// are no more requests than the client was answered.
func FuzzRequestPath(f *testing.F) {
	w := newWorld(f)
	for _, s := range []string{
		"GET http://allowed.test:PORT/a?b HTTP/1.1\r\nHost: allowed.test:PORT\r\nCookie: a=b\r\n\r\n",
		"GET http://plain.test:PORT/ HTTP/1.1\r\nHost: plain.test:PORT\r\nAuthorization: Bearer x\r\n\r\nGET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n",
		"POST http://allowed.test:PORT/ HTTP/1.1\r\nHost: allowed.test:PORT\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\nGET http://allowed.test:PORT/ HTTP/1.1\r\nHost: allowed.test:PORT\r\n\r\n",
		"POST http://allowed.test:PORT/ HTTP/1.1\r\nHost: allowed.test:PORT\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n",
		"POST http://plain.test:PORT/ HTTP/1.1\r\nHost: plain.test:PORT\r\nContent-Length: 21\r\n\r\n" + canary,
		"CONNECT allowed.test:PORT HTTP/1.1\r\nHost: allowed.test:PORT\r\n\r\nGET / HTTP/1.1\r\nHost: allowed.test:PORT\r\n\r\n",
		"GET http://allowed.test@evil.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n",
	} {
		f.Add(byte(0), []byte(s))
	}
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: HOST:PORT\r\n\r\n", "GET http://HOST:PORT/x/../y HTTP/1.1\r\nHost: HOST:PORT\r\n\r\n",
		"HEAD / HTTP/1.0\r\nHost: HOST:PORT\r\nConnection: keep-alive, x\r\nX: y\r\n\r\n", "GET /?q=" + canary + " HTTP/1.1\r\nHost: HOST:PORT\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: HOST:PORT\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n\x81\x85abcdhello",
		"PUT / HTTP/1.1\r\nHost: HOST:PORT\r\nExpect: 100-continue\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
	} {
		f.Add(byte(1), []byte(s))
		f.Add(byte(2), []byte(s))
	}
	hosts := []string{"allowed.test", "plain.test"}
	stripped := []string{"Authorization", "Cookie", "X-Api-Key", "Proxy-Authorization"}
	f.Fuzz(func(t *testing.T, way byte, data []byte) {
		host := hosts[way&1]
		data = bytes.ReplaceAll(bytes.ReplaceAll(data, []byte("PORT"), []byte(w.http)), []byte("HOST"), []byte(host))
		arrived, answers := w.attempt(t, way%3 > 0, host, data)
		// What an earlier input caused may arrive late, when its client is gone already: an
		// excess counts if it is there again when all is quiet.
		for range 2 {
			if len(arrived) <= answers+1 {
				break
			}
			for quiet := false; !quiet; {
				time.Sleep(200 * time.Millisecond)
				quiet = len(w.arrived()) == 0
			}
			arrived, answers = w.attempt(t, way%3 > 0, host, data)
		}
		if len(arrived) > answers+1 {
			t.Fatalf("%q: %d requests arrived, but there are %d answers", data, len(arrived), answers)
		}
		for _, s := range arrived {
			if name, port, _ := net.SplitHostPort(s.host); port != w.http || !slices.Contains(hosts, name) {
				t.Fatalf("%q: a request to %q arrived", data, s.host)
			}
			if !strings.HasPrefix(s.target, "/") && s.target != "*" {
				t.Fatalf("%q: the target %q arrived", data, s.target)
			}
			if strings.HasPrefix(s.host, "plain.test") { // which a route is about
				if strings.Contains(s.target, "/../") || strings.Contains(s.target, "/./") || strings.Contains(s.target, "\\") {
					t.Fatalf("%q: the target %q arrived", data, s.target)
				}
				for _, name := range stripped {
					if s.header.Get(name) != "" || s.trailer.Get(name) != "" {
						t.Fatalf("%q: %s arrived", data, name)
					}
				}
			}
			for _, h := range []http.Header{s.header, s.trailer} {
				for name, values := range h {
					if strings.Contains(name+strings.Join(values, "\n"), canary) {
						t.Fatalf("%q: a known value arrived in %s", data, name)
					}
				}
			}
			if strings.Contains(s.target, canary) || strings.Contains(s.body, canary) {
				t.Fatalf("%q: a known value arrived", data)
			}
		}
		if log := w.log.String(); log != "" {
			t.Fatalf("%q: the sidecars logged %s", data, log)
		}
	})
}

// attempt sends bytes to the egress proxy, or through a tunnel to a host. It returns what
// arrived beyond and how many answers began: one in the body of another counts too, and
// one more may have been cut off.
func (w *world) attempt(t *testing.T, tunnel bool, host string, data []byte) (arrived []seen, answers int) {
	w.arrived()
	c, err := net.Dial("tcp", w.egress)
	must(t, err)
	defer c.Close()
	must(t, c.SetDeadline(time.Now().Add(time.Minute)))
	br := bufio.NewReader(c)
	if tunnel {
		_, err := io.WriteString(c, "CONNECT "+host+":"+w.http+" HTTP/1.1\r\nHost: "+host+":"+w.http+"\r\n\r\n")
		must(t, err)
		resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
		must(t, err)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("CONNECT: %s", resp.Status)
		}
	}
	go func() {
		// The proxy may be done with it before all is written.
		_, _ = c.Write(data)
		_ = c.(*net.TCPConn).CloseWrite()
	}()
	answer, err := io.ReadAll(br)
	if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
		t.Fatalf("%q: the connection hangs", data)
	}
	return w.arrived(), bytes.Count(answer, []byte("HTTP/1."))
}
