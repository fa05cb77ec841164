package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/delivery"
	"github.com/bottle-run/bottle/sidecar/egressproxy"
	"github.com/bottle-run/bottle/sidecar/firewall"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// authority is a certificate authority of a test.
type authority struct {
	cert              *x509.Certificate
	key               *ecdsa.PrivateKey
	certFile, keyFile string
}

func newAuthority(t testing.TB, dir, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, MaxPathLenZero: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	a := &authority{key: key, certFile: filepath.Join(dir, name+".pem"), keyFile: filepath.Join(dir, name+".key")}
	a.cert, err = x509.ParseCertificate(der)
	must(t, err)
	keyDER, err := x509.MarshalECPrivateKey(key)
	must(t, err)
	must(t, os.WriteFile(a.certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(t, os.WriteFile(a.keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	return a
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) sign(t testing.TB, names ...string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: names,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The secrets of the world.
const (
	apiToken   = "tok-5f3a9c8b7d6e/+value"
	basicToken = "basic-1a2b3c4d5e6f"
	queryToken = "query+9z8y7x&6w5v"
	hopToken   = "hop-0011223344556677"
	canary     = "canary-aabbccddeeff00"
)

// world is a firewall, an egress proxy before it, and what is beyond.
type world struct {
	t            testing.TB
	dir          string
	agentCA      *authority
	firewallCA   *authority
	upstreamCA   *authority
	https, http  string // ports
	firewall     string // address
	egress       string
	fw           *firewall.Firewall
	ep           *egressproxy.EgressProxy
	fwLog, epLog *lines // audit logs
	log          *lines // errors of both

	mu     sync.Mutex
	seen   []seen
	handle map[string]http.HandlerFunc // by path
	names  map[string][]string
	asked  map[string]int
}

// seen is what arrived beyond the firewall.
type seen struct {
	host, method, target, proto string
	header                      http.Header
	trailer                     http.Header
	body                        string
}

// lines collects what is written.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

func (l *lines) records(t testing.TB) (records []audit.Record) {
	t.Helper()
	sc := bufio.NewScanner(strings.NewReader(l.String()))
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		var r audit.Record
		must(t, json.Unmarshal(sc.Bytes(), &r))
		records = append(records, r)
	}
	return records
}

var allNames = []string{"allowed.test", "api.test", "basic.test", "query.test", "plain.test", "other.test", "internal.test", "meta.test", "mixed.test", "rebind.test", "*.wild.test"}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), handle: map[string]http.HandlerFunc{}, asked: map[string]int{}, fwLog: &lines{}, epLog: &lines{}, log: &lines{}}
	w.names = map[string][]string{
		"internal.test": {"127.0.0.2"}, "meta.test": {"169.254.169.254"}, "mixed.test": {"127.0.0.1", "10.0.0.1"},
	}
	t.Cleanup(func() {
		if s := w.log.String(); strings.Contains(s, "panic") {
			t.Errorf("the sidecars logged: %s", s)
		}
	})
	w.agentCA, w.firewallCA, w.upstreamCA = newAuthority(t, w.dir, "agent"), newAuthority(t, w.dir, "firewall"), newAuthority(t, w.dir, "upstream")
	w.upstream()
	dns := w.dns()
	allow := []map[string]any{}
	for _, name := range allNames {
		if name != "other.test" {
			allow = append(allow, map[string]any{"host": name, "ports": []int{w.port(w.https), w.port(w.http)}})
		}
	}
	allow = append(allow, map[string]any{"host": "127.0.0.2", "ports": []int{w.port(w.https)}})
	must(t, os.MkdirAll(filepath.Join(w.dir, "fw"), 0o700))
	must(t, os.MkdirAll(filepath.Join(w.dir, "ep"), 0o700))
	w.write("fw/config.json", map[string]any{
		"agent": "coder", "listen": "127.0.0.1:0", "ca_cert": w.firewallCA.certFile, "ca_key": w.firewallCA.keyFile, "allow": allow,
		"guard":    map[string]any{"allow_cidrs": []string{"127.0.0.1/32"}, "dns": []string{dns}},
		"upstream": map[string]any{"ca_files": []string{w.upstreamCA.certFile}}, "client_secret": "hop", "supervise": "http://supervise:9100/",
	})
	port := w.port(w.https)
	cred := func(c map[string]any) map[string]any { return c }
	w.write("ep/config.json", map[string]any{
		"agent": "coder", "listen": "127.0.0.1:0", "ca_cert": w.agentCA.certFile, "ca_key": w.agentCA.keyFile, "supervise": "http://supervise:9100/",
		"firewall": w.startFirewall(), "firewall_ca": w.firewallCA.certFile, "firewall_secret": "hop",
		"allow": []map[string]any{{"host": "allowed.test", "ports": []int{port, w.port(w.http)}}, {"host": "*.wild.test", "ports": []int{port}}, {"host": "other.test", "ports": []int{port}},
			{"host": "internal.test", "ports": []int{port}}, {"host": "meta.test", "ports": []int{port}}, {"host": "mixed.test", "ports": []int{port}}, {"host": "rebind.test", "ports": []int{port}}, {"host": "127.0.0.2", "ports": []int{port}}},
		"routes": []map[string]any{
			{"id": "api", "host": "api.test", "ports": []int{port}, "paths": []string{"/public/**", "/one/*"}, "credential": cred(map[string]any{"secret": "api", "kind": "header"})},
			{"id": "basic", "host": "basic.test", "ports": []int{port}, "methods": []string{"GET"}, "credential": cred(map[string]any{"secret": "basic", "kind": "basic", "username": "me"})},
			{"id": "query", "host": "query.test", "ports": []int{port}, "credential": cred(map[string]any{"secret": "query", "kind": "query", "parameter": "key"})},
			{"id": "plain", "host": "plain.test", "ports": []int{port, w.port(w.http)}},
		},
	})
	w.putSecrets("fw", secrets.Secret{Name: "hop", Value: hopToken}, secrets.Secret{Name: "canary", Value: canary},
		secrets.Secret{Name: "api", Value: apiToken, Hosts: []string{"api.test"}}, secrets.Secret{Name: "basic", Value: basicToken, Hosts: []string{"basic.test"}},
		secrets.Secret{Name: "query", Value: queryToken, Hosts: []string{"query.test"}})
	must(t, w.fw.Reload())
	w.startEgress()
	return w
}

func (w *world) port(s string) int {
	n, err := strconv.Atoi(s)
	must(w.t, err)
	return n
}

func (w *world) write(name string, v any) {
	w.t.Helper()
	data, err := json.MarshalIndent(v, "", " ")
	must(w.t, err)
	must(w.t, os.WriteFile(filepath.Join(w.dir, name), data, 0o600))
}

func (w *world) putSecrets(dir string, list ...secrets.Secret) {
	w.t.Helper()
	data, err := json.Marshal(map[string]any{"secrets": list})
	must(w.t, err)
	_, err = secrets.Put(delivery.In(filepath.Join(w.dir, dir), delivery.Secrets), bytes.NewReader(data))
	must(w.t, err)
}

func (w *world) startFirewall() string {
	dir := filepath.Join(w.dir, "fw")
	fw := firewall.New(filepath.Join(dir, "config.json"), delivery.In(dir, delivery.Secrets), slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelError})),
		func(agent string) *audit.Log { return audit.New(w.fwLog, "firewall", agent) })
	must(w.t, fw.Reload())
	w.fw, w.firewall = fw, w.serve(fw)
	return w.firewall
}

func (w *world) startEgress() {
	dir := filepath.Join(w.dir, "ep")
	ep := egressproxy.New(filepath.Join(dir, "config.json"), delivery.In(dir, delivery.Secrets), slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelError})),
		func(agent string) *audit.Log { return audit.New(w.epLog, "egress-proxy", agent) })
	must(w.t, ep.Reload())
	w.ep, w.egress = ep, w.serve(ep)
	if ep.Health() == nil {
		w.t.Error("ready without secrets")
	}
	w.putEgressSecrets()
	must(w.t, ep.Reload())
	must(w.t, ep.Health())
}

// restartEgress starts another, with the secrets that were put.
func (w *world) restartEgress() {
	must(w.t, os.Remove(filepath.Join(w.dir, "ep", "secrets")))
	w.startEgress()
}

// read returns a configuration.
func (w *world) read(name string) map[string]any {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.dir, name))
	must(w.t, err)
	var v map[string]any
	must(w.t, json.Unmarshal(data, &v))
	return v
}

func (w *world) putEgressSecrets() {
	w.t.Helper()
	w.putSecrets("ep", secrets.Secret{Name: "hop", Value: hopToken}, secrets.Secret{Name: "api", Value: apiToken},
		secrets.Secret{Name: "basic", Value: basicToken}, secrets.Secret{Name: "query", Value: queryToken}, secrets.Secret{Name: "canary", Value: canary})
}

type served interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

func (w *world) serve(s served) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(w.t, err)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			w.t.Error(err)
		}
		if err := <-ended; err != nil {
			w.t.Error(err)
		}
	})
	return ln.Addr().String()
}

// upstream starts the servers beyond.
func (w *world) upstream() {
	handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if h := w.handle[r.URL.Path]; h != nil {
			w.note(r, "")
			h(rw, r)
			return
		}
		body, _ := io.ReadAll(r.Body)
		w.note(r, string(body))
		fmt.Fprintf(rw, "hello from %s", r.Host)
	})
	start := func(tlsConfig *tls.Config) string {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		must(w.t, err)
		s := &http.Server{Handler: handler, TLSConfig: tlsConfig, ErrorLog: log.New(io.Discard, "", 0)}
		go func() {
			if tlsConfig != nil {
				_ = s.ServeTLS(ln, "", "")
			} else {
				_ = s.Serve(ln)
			}
		}()
		w.t.Cleanup(func() { _ = s.Close() })
		_, port, err := net.SplitHostPort(ln.Addr().String())
		must(w.t, err)
		return port
	}
	w.https = start(&tls.Config{Certificates: []tls.Certificate{w.upstreamCA.sign(w.t, allNames...)}})
	w.http = start(nil)
}

func (w *world) note(r *http.Request, body string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, seen{host: r.Host, method: r.Method, target: r.RequestURI, proto: r.Proto, header: r.Header.Clone(), trailer: r.Trailer.Clone(), body: body})
}

// arrived returns what arrived since the last call.
func (w *world) arrived() []seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.seen
	w.seen = nil
	return s
}

// dns starts a server that knows the names of the world: 127.0.0.1 unless told otherwise.
func (w *world) dns() string {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(w.t, err)
	w.t.Cleanup(func() { _ = pc.Close() })
	go func() {
		buf := make([]byte, 1500)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
			if q.Type == dnsmessage.TypeA {
				for _, a := range w.resolve(strings.TrimSuffix(q.Name.String(), ".")) {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
						Body:   &dnsmessage.AResource{A: netip.MustParseAddr(a).As4()},
					})
				}
			}
			if out, err := m.Pack(); err == nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	}()
	return pc.LocalAddr().String()
}

func (w *world) resolve(name string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[name]++
	if name == "rebind.test" && w.asked[name] > 1 {
		return []string{"127.0.0.2"}
	}
	if a, ok := w.names[name]; ok {
		return a
	}
	return []string{"127.0.0.1"}
}

// client returns a client as the agent has one.
func (w *world) client(http2 bool) *http.Client {
	tr := &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: w.egress}),
		TLSClientConfig: &tls.Config{RootCAs: w.agentCA.pool()}, Protocols: &http.Protocols{},
		DisableCompression: true, ExpectContinueTimeout: 5 * time.Second,
	}
	tr.Protocols.SetHTTP1(!http2)
	tr.Protocols.SetHTTP2(http2)
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 5 * time.Minute, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// tunnel opens a CONNECT to an authority at a proxy, which has to agree.
func (w *world) tunnel(proxy, authority, extra string) net.Conn {
	w.t.Helper()
	c, resp, _ := w.connect(proxy, authority, extra)
	if resp.StatusCode != http.StatusOK {
		w.t.Fatalf("CONNECT %s: %s", authority, resp.Status)
	}
	return c
}

// connect sends a CONNECT to a proxy.
func (w *world) connect(proxy, authority, extra string) (net.Conn, *http.Response, string) {
	w.t.Helper()
	c := w.dial(proxy)
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", authority, authority, extra)
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, &http.Request{Method: http.MethodConnect})
	must(w.t, err)
	if resp.StatusCode == http.StatusOK {
		if br.Buffered() > 0 {
			w.t.Fatal("something follows the answer to a CONNECT")
		}
		return c, resp, ""
	}
	body, err := io.ReadAll(io.LimitReader(br, resp.ContentLength))
	must(w.t, err)
	return c, resp, string(body)
}

func (w *world) dial(addr string) net.Conn {
	w.t.Helper()
	c, err := net.Dial("tcp", addr)
	must(w.t, err)
	must(w.t, c.SetDeadline(time.Now().Add(time.Minute)))
	w.t.Cleanup(func() { c.Close() })
	return c
}

// tls begins TLS within a connection, without looking at the certificate.
func (w *world) tls(c net.Conn, sni string, protos ...string) *tls.Conn {
	w.t.Helper()
	tc := tls.Client(c, &tls.Config{ServerName: sni, InsecureSkipVerify: true, NextProtos: protos})
	must(w.t, tc.Handshake())
	return tc
}
