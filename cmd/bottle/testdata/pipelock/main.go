// Command pipelock stands in for a firewall by image: it reads the YAML that bottle
// renders for pipelock, as strictly as that does, and behaves as an allowlist proxy with
// TLS interception. It shows that what is rendered arrives, and is of use; it is no
// firewall: it does not check the certificates of upstreams.
package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// config is written down again and not taken from core/egress, which renders it: a key
// that is misspelt there has to be refused here.
type config struct {
	Version       int      `yaml:"version"`
	Mode          string   `yaml:"mode"`
	Enforce       bool     `yaml:"enforce"`
	ExplainBlocks bool     `yaml:"explain_blocks"`
	APIAllowlist  []string `yaml:"api_allowlist"`
	FetchProxy    struct {
		Listen string `yaml:"listen"`
	} `yaml:"fetch_proxy"`
	ForwardProxy struct {
		Enabled            bool `yaml:"enabled"`
		MaxTunnelSeconds   int  `yaml:"max_tunnel_seconds"`
		IdleTimeoutSeconds int  `yaml:"idle_timeout_seconds"`
		SNIVerification    bool `yaml:"sni_verification"`
	} `yaml:"forward_proxy"`
	TLSInterception struct {
		Enabled bool   `yaml:"enabled"`
		CACert  string `yaml:"ca_cert"`
		CAKey   string `yaml:"ca_key"`
	} `yaml:"tls_interception"`
	SSRF struct {
		IPAllowlist []netip.Prefix `yaml:"ip_allowlist"`
	} `yaml:"ssrf"`
	RequestBodyScanning struct {
		Enabled     bool   `yaml:"enabled"`
		Action      string `yaml:"action"`
		ScanHeaders bool   `yaml:"scan_headers"`
	} `yaml:"request_body_scanning"`
	DLP struct {
		ScanEnv         bool `yaml:"scan_env"`
		IncludeDefaults bool `yaml:"include_defaults"`
	} `yaml:"dlp"`
}

type proxy struct {
	config
	authority *x509.Certificate
	key       *ecdsa.PrivateKey
	upstream  *http.Transport
}

func main() {
	log.SetFlags(0)
	p, err := load(os.Args)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal((&http.Server{Addr: p.FetchProxy.Listen, Handler: p, ReadHeaderTimeout: 30 * time.Second}).ListenAndServe())
}

// private reads a file that nobody else may read.
func private(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm() != 0o600 {
		return nil, fmt.Errorf("%s has mode %v, not 0600", path, info.Mode())
	}
	return os.ReadFile(path)
}

func load(args []string) (*proxy, error) {
	if len(args) != 4 || args[1] != "run" || args[2] != "--config" {
		return nil, fmt.Errorf("usage: pipelock run --config FILE, not %q", args)
	}
	text, err := private(args[3])
	if err != nil {
		return nil, err
	}
	p := &proxy{}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&p.config); err != nil {
		return nil, err
	}
	if p.Version != 1 || p.Mode != "strict" || !p.Enforce || !p.ForwardProxy.Enabled || !p.TLSInterception.Enabled || len(p.APIAllowlist) == 0 {
		return nil, fmt.Errorf("this configuration is of no use: %+v", p.config)
	}
	cert, err := private(p.TLSInterception.CACert)
	if err != nil {
		return nil, err
	}
	key, err := private(p.TLSInterception.CAKey)
	if err != nil {
		return nil, err
	}
	certBlock, _ := pem.Decode(cert)
	keyBlock, _ := pem.Decode(key)
	if certBlock == nil || keyBlock == nil || keyBlock.Type != "EC PRIVATE KEY" {
		return nil, errors.New("the key is not in an EC PRIVATE KEY block")
	}
	if p.authority, err = x509.ParseCertificate(certBlock.Bytes); err != nil {
		return nil, err
	}
	if p.key, err = x509.ParseECPrivateKey(keyBlock.Bytes); err != nil {
		return nil, err
	}
	p.upstream = &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}} //nolint:gosec // see the top
	return p, nil
}

// allowed is what pipelock documents: a wildcard matches the name itself too.
func (p *proxy) allowed(host string) bool {
	for _, a := range p.APIAllowlist {
		apex, wild := strings.CutPrefix(a, "*.")
		if strings.EqualFold(host, apex) || wild && strings.HasSuffix(strings.ToLower(host), "."+apex) {
			addr, err := netip.ParseAddr(host)
			if err != nil {
				return true
			}
			for _, prefix := range p.SSRF.IPAllowlist {
				if prefix.Contains(addr) {
					return true
				}
			}
		}
	}
	return false
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodConnect:
		p.connect(w, r)
	case r.URL.IsAbs():
		p.forward(w, r, "http")
	case r.URL.Path == "/health":
		_, _ = io.WriteString(w, "{}\n")
	default:
		http.NotFound(w, r)
	}
}

func (p *proxy) block(w http.ResponseWriter, host, why string) {
	line, _ := json.Marshal(map[string]string{"event": "blocked", "host": host, "reason": why})
	fmt.Println(string(line))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusForbidden)
	_, _ = fmt.Fprintf(w, "{\"blocked\": %q}\n", why)
}

func (p *proxy) forward(w http.ResponseWriter, r *http.Request, scheme string) {
	host := r.URL.Hostname()
	if !p.allowed(host) {
		p.block(w, host, "allowlist")
		return
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return
	}
	if p.RequestBodyScanning.Enabled && p.DLP.IncludeDefaults && bytes.Contains(body, []byte("ghp_")) {
		p.block(w, host, "dlp")
		return
	}
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Scheme, out.Body = "", scheme, io.NopCloser(bytes.NewReader(body))
	out.Header.Del("Proxy-Connection")
	resp, err := p.upstream.RoundTrip(out)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = resp.Body.Close() }()
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(resp.StatusCode)
	_, _ = io.Copy(w, resp.Body)
}

// connect opens a tunnel up: what is in it is served as if it had come in the clear.
func (p *proxy) connect(w http.ResponseWriter, r *http.Request) {
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil || !p.allowed(host) {
		p.block(w, r.Host, "allowlist")
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
	leaf, err := p.leaf(host)
	if err != nil {
		return
	}
	secure := tls.Server(&buffered{conn, rw.Reader}, &tls.Config{Certificates: []tls.Certificate{leaf}, MinVersion: tls.VersionTLS12})
	in := bufio.NewReader(secure)
	for {
		req, err := http.ReadRequest(in)
		if err != nil {
			return
		}
		req.URL.Host, req.URL.Scheme = r.Host, "https"
		answer := &recorder{header: http.Header{}}
		if req.Host != host && req.Host != r.Host {
			p.block(answer, req.Host, "authority")
		} else {
			p.forward(answer, req, "https")
		}
		resp := &http.Response{StatusCode: answer.status, ProtoMajor: 1, ProtoMinor: 1, Header: answer.header, ContentLength: int64(answer.body.Len()), Body: io.NopCloser(&answer.body)}
		if resp.Write(secure) != nil {
			return
		}
	}
}

func (p *proxy) leaf(host string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.authority, &key.PublicKey, p.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// buffered is a connection of which something was read already.
type buffered struct {
	net.Conn
	r *bufio.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

// recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(p []byte) (int, error) { return r.body.Write(p) }
