package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// origin is a TLS server, and how it was used.
type origin struct {
	server *httptest.Server
	roots  *x509.CertPool
	dialed atomic.Int32
}

func newOrigin(t *testing.T, h http.HandlerFunc) *origin {
	o := &origin{server: httptest.NewTLSServer(h), roots: x509.NewCertPool()}
	t.Cleanup(o.server.Close)
	o.roots.AddCert(o.server.Certificate())
	return o
}

func (o *origin) transport(t *testing.T) *Transport {
	tr := &Transport{TLS: &tls.Config{RootCAs: o.roots}, Other: refuse{}, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		o.dialed.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}}
	t.Cleanup(tr.Close)
	return tr
}

type refuse struct{}

var errOther = errors.New("left to the other transport")

func (refuse) RoundTrip(*http.Request) (*http.Response, error) { return nil, errOther }

func send(t *testing.T, tr *Transport, method, url string) (*http.Response, string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/chunked":
			w.Header().Set("Trailer", "X-Sum")
			fmt.Fprint(w, "one")
			w.(http.Flusher).Flush()
			fmt.Fprint(w, "two")
			w.Header().Set("X-Sum", "2")
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/interim":
			w.WriteHeader(http.StatusEarlyHints)
			fmt.Fprint(w, "late")
		case "/close":
			w.Header().Set("Connection", "close")
			fmt.Fprint(w, "bye")
		default:
			fmt.Fprint(w, r.Method+" "+r.RequestURI+" "+r.Header.Get("Accept-Encoding"))
		}
	})
	tr := o.transport(t)
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/a?b=c", "GET /a?b=c "}, {"GET", "/chunked", "onetwo"}, {"HEAD", "/a", ""}, {"GET", "/none", ""}, {"GET", "/interim", "late"}, {"POST", "/p", "POST /p "}, {"GET", "/close", "bye"},
	} {
		resp, got, err := send(t, tr, c.method, o.server.URL+c.path)
		if err != nil || got != c.want {
			t.Fatalf("%s %s: %q, %v", c.method, c.path, got, err)
		}
		if c.path == "/chunked" && resp.Trailer.Get("X-Sum") != "2" {
			t.Errorf("trailer: %v", resp.Trailer)
		}
	}
	if n := o.dialed.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
	if _, _, err := send(t, tr, "GET", o.server.URL+"/"); err != nil || o.dialed.Load() != 2 {
		t.Errorf("after an answer that closes: %v, %d connections", err, o.dialed.Load())
	}
	// One that was closed while it was idle is not used.
	o.server.CloseClientConnections()
	if _, _, err := send(t, tr, "POST", o.server.URL+"/"); err != nil || o.dialed.Load() != 3 {
		t.Errorf("after the server closed: %v, %d connections", err, o.dialed.Load())
	}
	tr.Close()
	if _, _, err := send(t, tr, "GET", o.server.URL+"/"); err != nil || o.dialed.Load() != 4 {
		t.Errorf("after Close: %v, %d connections", err, o.dialed.Load())
	}
	if tr.count != 0 || len(tr.idle) != 0 {
		t.Errorf("%d connections are kept after Close", tr.count)
	}
}

func TestAnAnswerThatWasNotReadLeavesNothingBehind(t *testing.T) {
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, strings.Repeat(r.URL.Path, 100))
	})
	tr := o.transport(t)
	for i := range 3 {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", fmt.Sprintf("%s/%d", o.server.URL, i), nil)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 2)
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != fmt.Sprintf("/%d", i) {
			t.Errorf("%q, %v", b, err)
		}
		resp.Body.Close()
		if n, err := resp.Body.Read(b); n != 0 || err == nil {
			t.Errorf("after Close %d bytes, %v", n, err)
		}
	}
	if n := o.dialed.Load(); n != 3 {
		t.Errorf("%d connections for 3 answers that were not read", n)
	}
}

func TestTheContextEndsARequest(t *testing.T) {
	begun := make(chan struct{}, 2)
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/body" {
			fmt.Fprint(w, "begun")
			w.(http.Flusher).Flush()
		}
		begun <- struct{}{}
		<-r.Context().Done()
	})
	tr := o.transport(t)
	reason := errors.New("the reason")
	for _, path := range []string{"/head", "/body"} {
		ctx, cancel := context.WithCancelCause(t.Context())
		defer cancel(nil)
		if path == "/head" {
			go func() {
				<-begun
				cancel(reason)
			}()
		}
		req, _ := http.NewRequestWithContext(ctx, "GET", o.server.URL+path, nil)
		resp, err := tr.RoundTrip(req)
		if path == "/head" {
			if !errors.Is(err, reason) {
				t.Errorf("%v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		// Not before what was sent is here: a context that has ended may win over it.
		b := make([]byte, len("begun"))
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "begun" {
			t.Errorf("%q, %v", b, err)
		}
		cancel(reason)
		if n, err := resp.Body.Read(b); n != 0 || !errors.Is(err, reason) {
			t.Errorf("after the end of the context %d bytes, %v", n, err)
		}
		if n, err := resp.Body.Read(b); n != 0 || !errors.Is(err, reason) {
			t.Errorf("a second read after it gives %d bytes, %v", n, err)
		}
		resp.Body.Close()
	}
	if tr.count != 0 {
		t.Errorf("%d connections are kept", tr.count)
	}
}

// raw is a TLS server that answers each request on its n-th connection with what answer
// returns, and closes when that is empty.
func raw(t *testing.T, o *origin, answer func(connection, request int) string) string {
	ln, err := tls.Listen("tcp", "127.0.0.1:0", o.server.TLS)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for n := 0; ; n++ {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for i := 0; ; i++ {
					if _, err := http.ReadRequest(br); err != nil {
						return
					}
					text := answer(n, i)
					if _, err := io.WriteString(c, text); err != nil || text == "" {
						return
					}
				}
			}()
		}
	}()
	return "https://" + ln.Addr().String()
}

const fine = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestOnlyWhatIsSafeIsSentAgain(t *testing.T) {
	for method, want := range map[string]bool{"GET": true, "DELETE": false} {
		o := newOrigin(t, nil)
		address := raw(t, o, func(connection, request int) string {
			if connection == 0 && request == 1 {
				return ""
			}
			return fine
		})
		tr := o.transport(t)
		if _, _, err := send(t, tr, "GET", address); err != nil {
			t.Fatal(err)
		}
		if _, _, err := send(t, tr, method, address); (err == nil) != want {
			t.Errorf("%s: %v", method, err)
		}
	}
	// On a new connection nothing is.
	o := newOrigin(t, nil)
	tr := o.transport(t)
	if _, _, err := send(t, tr, "GET", raw(t, o, func(int, int) string { return "" })); err == nil || o.dialed.Load() != 1 {
		t.Errorf("%v, %d connections", err, o.dialed.Load())
	}
}

func TestOddAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer, want string
		again        bool // the connection is used again
	}{
		"a long head":              {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHead) + "\r\nContent-Length: 0\r\n\r\n", "longer than", false},
		"an upgrade":               {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "switched", false},
		"interim answers for ever": {strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", maxInterim+1), "interim", false},
		"no HTTP":                  {"hello\r\n\r\n", "head of the answer", false},
		"more than was asked for":  {fine + fine, "", false},
		"HTTP/1.0":                 {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "", false},
		"a short body":             {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "invalid", false},
		"a good one":               {fine, "", true},
	} {
		o := newOrigin(t, nil)
		tr := o.transport(t)
		_, _, err := send(t, tr, "GET", raw(t, o, func(int, int) string { return c.answer }))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v", name, err)
		}
		if (tr.count == 1) != c.again {
			t.Errorf("%s: %d connections are kept", name, tr.count)
		}
	}
}

func TestTheProxy(t *testing.T) {
	o := newOrigin(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "through") })
	var asked atomic.Value
	status := atomic.Int32{}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Store(r.Method + " " + r.RequestURI + " " + r.Header.Get("Proxy-Authorization") + r.Header.Get("User-Agent"))
		if s := int(status.Load()); s != http.StatusOK {
			w.Header().Set("X-Why", "because")
			w.WriteHeader(s)
			return
		}
		up, err := net.Dial("tcp", o.server.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer up.Close()
		c, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { _, _ = io.Copy(up, c) }()
		_, _ = io.Copy(c, up)
	}))
	defer proxy.Close()
	tr := o.transport(t)
	tr.Proxy, _ = url.Parse(proxy.URL)
	tr.Proxy.User = url.UserPassword("me", "secret")
	status.Store(http.StatusOK)
	host := "https://example.com" // a name of httptest's certificate
	if _, got, err := send(t, tr, "GET", host); err != nil || got != "through" || asked.Load() != "CONNECT example.com:443 Basic bWU6c2VjcmV0" {
		t.Errorf("%q, %v, asked %q", got, err, asked.Load())
	}
	status.Store(http.StatusForbidden)
	if _, _, err := send(t, tr, "GET", host+":444"); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("%v", err)
	}
	judged := errors.New("judged")
	tr.OnConnect = func(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
		if resp.Header.Get("X-Why") == "because" {
			return judged
		}
		return nil
	}
	if _, _, err := send(t, tr, "GET", host+":445"); !errors.Is(err, judged) {
		t.Errorf("%v", err)
	}
	if _, _, err := send(t, tr, "GET", host); err != nil {
		t.Errorf("the tunnel that is open: %v", err)
	}
}

func TestWhatDoesNotFitGoesElsewhere(t *testing.T) {
	o := newOrigin(t, nil)
	tr := o.transport(t)
	for name, change := range map[string]func(*http.Request){
		"a body":         func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("x")); r.ContentLength = 1 },
		"unknown length": func(r *http.Request) { r.Body = io.NopCloser(strings.NewReader("x")); r.ContentLength = -1 },
		"http":           func(r *http.Request) { r.URL.Scheme = "http" },
		"an upgrade":     func(r *http.Request) { r.Header.Set("Upgrade", "websocket") },
		"expect":         func(r *http.Request) { r.Header.Set("Expect", "100-continue") },
		"trailers":       func(r *http.Request) { r.Trailer = http.Header{"X": {"y"}} },
	} {
		req, _ := http.NewRequestWithContext(t.Context(), "POST", o.server.URL, nil)
		change(req)
		if _, err := tr.RoundTrip(req); !errors.Is(err, errOther) {
			t.Errorf("%s: %v", name, err)
		}
	}
	bad := &Transport{TLS: &tls.Config{RootCAs: x509.NewCertPool()}, Dial: (&net.Dialer{}).DialContext}
	if _, _, err := send(t, bad, "GET", o.server.URL); err == nil {
		t.Error("a certificate of nobody was taken")
	}
}

func TestManyAtATime(t *testing.T) {
	o := newOrigin(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.URL.Path) })
	tr := o.transport(t)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 50 {
				path := fmt.Sprintf("/%d/%d", i, j)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				req, _ := http.NewRequestWithContext(ctx, "GET", o.server.URL+path, nil)
				resp, err := tr.RoundTrip(req)
				if err != nil {
					t.Error(err)
					cancel()
					return
				}
				if j%7 == 6 {
					cancel() // while the answer is read
				}
				b, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err == nil && string(b) != path {
					t.Errorf("%s was answered with %q", path, b)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if tr.count > 16 {
		t.Errorf("%d connections are kept", tr.count)
	}
}
