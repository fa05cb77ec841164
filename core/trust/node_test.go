package trust

import (
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bottle-run/bottle/internal/needs"
)

// nodeWorld is a proxy that knows hosts which nobody else does, and these hosts.
type nodeWorld struct {
	plain, secure *httptest.Server
	proxy         *httptest.Server

	goOn, hangs, gone chan struct{}
}

func newNodeWorld(t *testing.T) *nodeWorld {
	w := &nodeWorld{goOn: make(chan struct{}), hangs: make(chan struct{}), gone: make(chan struct{})}
	w.plain, w.secure = httptest.NewServer(http.HandlerFunc(w.origin)), httptest.NewTLSServer(http.HandlerFunc(w.origin))
	w.proxy = httptest.NewServer(http.HandlerFunc(w.forward))
	for _, s := range []*httptest.Server{w.plain, w.secure, w.proxy} {
		t.Cleanup(s.CloseClientConnections)
		t.Cleanup(s.Close)
	}
	return w
}

// viaHeader tells the origin by which request something came through the proxy.
const viaHeader = "X-Test-Proxied"

// connected remembers which connections to the origin a tunnel made.
var connected sync.Map

func (w *nodeWorld) forward(rw http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect && strings.HasPrefix(r.Host, "refused."):
		http.Error(rw, "ask the operator", http.StatusForbidden)
	case r.Method == http.MethodConnect:
		up, err := net.Dial("tcp", w.secure.Listener.Addr().String())
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadGateway)
			return
		}
		connected.Store(up.LocalAddr().String(), "CONNECT "+r.RequestURI)
		down, buffered, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			_ = up.Close()
			return
		}
		_, _ = io.WriteString(down, "HTTP/1.1 200 OK\r\n\r\n")
		early, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
		_, _ = up.Write(early)
		relay(up, down)
	default:
		target, err := url.Parse(r.RequestURI)
		if err != nil || !target.IsAbs() {
			http.Error(rw, "not for a proxy", http.StatusBadRequest)
			return
		}
		(&httputil.ReverseProxy{
			Rewrite: func(p *httputil.ProxyRequest) {
				p.Out.URL.Host = w.plain.Listener.Addr().String()
				p.Out.Header.Set(viaHeader, r.RequestURI)
			},
			FlushInterval: -1,
			ErrorHandler:  func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
			ErrorLog:      log.New(io.Discard, "", 0),
		}).ServeHTTP(rw, r)
	}
}

func relay(up, down net.Conn) {
	go func() {
		_, _ = io.Copy(up, down)
		_ = up.Close()
	}()
	_, _ = io.Copy(down, up)
	_ = down.Close()
}

func (w *nodeWorld) origin(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("X-Origin", "yes")
	control := http.NewResponseController(rw)
	switch r.URL.Path {
	case "/stream":
		_, _ = io.WriteString(rw, "first")
		_ = control.Flush()
		<-w.goOn
		_, _ = io.WriteString(rw, "second")
	case "/go":
		w.goOn <- struct{}{}
	case "/hang":
		w.hangs <- struct{}{}
		<-r.Context().Done()
		close(w.gone)
	case "/hangs":
		<-w.hangs
	case "/hung":
		<-w.gone
		_, _ = io.WriteString(rw, "gone")
	case "/large":
		block := make([]byte, 1<<20)
		for range 32 {
			_, _ = rw.Write(block)
		}
	case "/redirect":
		http.Redirect(rw, r, "https://secure.test/redirected", http.StatusFound)
	case "/cut", "/nothing":
		conn, _, err := control.Hijack()
		if err != nil {
			return
		}
		if r.URL.Path == "/cut" {
			_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all of it")
		}
		_ = conn.Close()
	case "/upgrade":
		conn, _, err := control.Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n")
		_, _ = io.Copy(conn, conn)
		_ = conn.Close()
	default:
		size, _ := io.Copy(io.Discard, r.Body)
		via := r.Header.Get(viaHeader)
		if v, ok := connected.Load(r.RemoteAddr); ok {
			via = v.(string)
		}
		_ = json.NewEncoder(rw).Encode(map[string]any{
			"proxied": via, "target": r.RequestURI, "host": r.Host, "tls": r.TLS != nil, "list": r.Header.Get("X-List"), "size": size,
			"length": r.ContentLength, "type": r.Header.Get("Content-Type"),
		})
	}
}

// node runs a program with the preload, and returns what it says.
func node(t *testing.T, env []string, args ...string) string {
	t.Helper()
	program := os.Getenv("BOTTLE_TEST_NODE")
	if program == "" {
		program = needs.Program(t, "node", "nodejs")
	}
	preload := filepath.Join(t.TempDir(), NodeFile)
	if err := os.WriteFile(preload, NodeProxy, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "NODE_OPTIONS=--require=" + preload}, env...)
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%q: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestNodeGoesThroughTheProxy(t *testing.T) {
	w := newNodeWorld(t)
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, PEM([]*x509.Certificate{w.secure.Certificate()}), 0o600); err != nil {
		t.Fatal(err)
	}
	out := node(t, []string{
		"NODE_USE_ENV_PROXY=1", "http_proxy=" + w.proxy.URL, "https_proxy=" + w.proxy.URL, "NO_PROXY=localhost,127.0.0.1,::1",
		// The test's certificate is for another name.
		"NODE_TLS_REJECT_UNAUTHORIZED=0", "NODE_NO_WARNINGS=1", "NODE_EXTRA_CA_CERTS=" + roots, "ORIGIN=" + w.plain.URL,
	}, "testdata/node-proxy.test.js")
	t.Log(out)
}

func TestNodeIsLeftAloneIfItIsNotToldToUseTheProxy(t *testing.T) {
	const script = `console.log(require("http").globalAgent.constructor.name, globalThis[Symbol.for("undici.globalDispatcher.1")])`
	for _, env := range [][]string{
		nil,
		{"http_proxy=http://127.0.0.1:1"},
		{"NODE_USE_ENV_PROXY=0", "http_proxy=http://127.0.0.1:1"},
		{"NODE_USE_ENV_PROXY=1"},
		{"NODE_USE_ENV_PROXY=1", "http_proxy=socks5://127.0.0.1:1", "https_proxy=::"},
	} {
		if got := node(t, env, "-e", script); got != "Agent undefined\n" {
			t.Errorf("%q: %s", env, got)
		}
	}
	if got := node(t, []string{"NODE_USE_ENV_PROXY=1", "HTTPS_PROXY=127.0.0.1:1"}, "-e", fmt.Sprintf("%s; process.exit(0)", script)); strings.HasPrefix(got, "Agent") {
		t.Errorf("with a proxy: %s", got)
	}
}
