// Package front is what the firewall and the egress proxy have in common around the
// proxy that intercept is: answers and records, reloading, readiness.
package front

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/intercept"
	"github.com/bottle-run/bottle/sidecar/internal/upstream"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// Desk answers and records.
type Desk struct {
	Audit *audit.Log
	// Mask hides secrets in a text for logs and denials.
	Mask func(string) string
	// Supervise is the URL at which the agent may ask for more.
	Supervise string
}

// Record is the record of a request.
func (d Desk) Record(r *intercept.Request, path string) audit.Record {
	return audit.Record{
		Time: r.Start, Scheme: r.Scheme, Host: d.Mask(r.Addr), Port: r.Port, Method: r.Method, Path: d.path(path),
		Duration: float64(time.Since(r.Start).Microseconds()) / 1000,
	}
}

func (d Desk) path(path string) string {
	path, _, _ = strings.Cut(path, "?")
	if path == "" {
		return ""
	}
	return d.Mask(path)
}

// Deny answers a request with a denial and records it. Record may carry what was
// counted.
func (d Desk) Deny(w http.ResponseWriter, r *intercept.Request, path string, denial intercept.Denial, counted intercept.Result) {
	rec := d.Record(r, path)
	rec.Decision, rec.Rule, rec.Reason = audit.Deny, denial.Rule, d.Mask(denial.Reason)
	if denial.Status >= 500 {
		rec.Decision = audit.Error
	}
	denial.Reason = rec.Reason
	rec.BytesIn, rec.BytesOut = counted.BytesIn, counted.BytesOut
	rec.Status = counted.Status
	if rec.Status == 0 {
		rec.Status = denial.Write(w, r, rec.Path, d.Supervise)
	}
	rec.Duration = float64(time.Since(r.Start).Microseconds()) / 1000
	d.Audit.Record(rec)
	if counted.Status != 0 && counted.Status != http.StatusSwitchingProtocols {
		// Something was sent already: the client has to see that it is not whole.
		panic(http.ErrAbortHandler)
	}
}

// Done records a request that was allowed.
func (d Desk) Done(r *intercept.Request, path, rule string, res intercept.Result) {
	rec := d.Record(r, path)
	rec.Decision, rec.Rule, rec.Status, rec.BytesIn, rec.BytesOut = audit.Allow, rule, res.Status, res.BytesIn, res.BytesOut
	if res.Err != nil {
		rec.Decision, rec.Reason = audit.Error, d.Mask(res.Err.Error())
	}
	d.Audit.Record(rec)
	if res.Err != nil && res.Status != 0 && res.Status != http.StatusSwitchingProtocols {
		panic(http.ErrAbortHandler)
	}
}

// Secrets reads the secrets that were put, and says which of the needed ones are
// missing. That none were put yet is no error.
func Secrets(path string, needed []string) (set secrets.Set, absent []string, err error) {
	set, err = secrets.Load(path)
	if err != nil && !secrets.IsMissing(err) {
		return nil, nil, err
	}
	for _, name := range needed {
		if _, ok := set[name]; !ok && !slices.Contains(absent, name) {
			absent = append(absent, name)
		}
	}
	slices.Sort(absent)
	return set, absent, nil
}

// Waiting is the error of a sidecar without its secrets.
func Waiting(absent []string) error {
	if len(absent) == 0 {
		return nil
	}
	return fmt.Errorf("waiting for the secrets %s", strings.Join(absent, ", "))
}

// Proxy makes the server.
func Proxy(c config.Common, h intercept.Handler, log *slog.Logger) (*intercept.Server, error) {
	minter, err := intercept.LoadMinter(c.CACert, c.CAKey)
	if err != nil {
		return nil, err
	}
	l := c.Limits.WithDefaults()
	return &intercept.Server{Handler: h, Minter: minter, Log: log, Limits: intercept.Limits{
		Connections: l.Connections, HeaderBytes: l.HeaderBytes,
		HeaderTimeout: time.Duration(l.HeaderTimeout), IdleTimeout: time.Duration(l.IdleTimeout),
	}}, nil
}

// Fixed says whether a new configuration changes what needs a new start.
func Fixed(old, c config.Common) error {
	if old.Listen != c.Listen || old.CACert != c.CACert || old.CAKey != c.CAKey || old.Limits != c.Limits || old.Agent != c.Agent {
		return errors.New("agent, listen, ca_cert, ca_key and limits cannot change while the sidecar runs")
	}
	return nil
}

// Transport says how upstreams are reached.
type Transport struct {
	Dial  func(ctx context.Context, network, addr string) (net.Conn, error)
	Roots *x509.CertPool
	// Proxy is the URL of a proxy in between, with credentials.
	Proxy *url.URL
	// OnConnect judges the answer of the proxy to a CONNECT.
	OnConnect func(ctx context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error
}

// Forwarder makes a forwarder, and what lets go of its idle connections.
func (t Transport) Forwarder(idle time.Duration) (*intercept.Forwarder, func()) {
	config := func() *tls.Config {
		return &tls.Config{
			RootCAs: t.Roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(256),
			DynamicRecordSizingDisabled: true, // it only costs system calls here
		}
	}
	one := func(http2 bool) *http.Transport {
		tr := &http.Transport{
			DialContext:            t.Dial,
			TLSClientConfig:        config(),
			DisableCompression:     true,
			MaxIdleConns:           256,
			MaxIdleConnsPerHost:    64,
			IdleConnTimeout:        90 * time.Second,
			TLSHandshakeTimeout:    15 * time.Second,
			ExpectContinueTimeout:  10 * time.Second,
			MaxResponseHeaderBytes: 256 << 10,
			OnProxyConnectResponse: t.OnConnect,
			Protocols:              &http.Protocols{},
		}
		tr.Protocols.SetHTTP1(true)
		tr.Protocols.SetHTTP2(http2)
		if t.Proxy != nil {
			tr.Proxy = http.ProxyURL(t.Proxy)
		}
		return tr
	}
	other, h2 := one(false), one(true)
	h1 := &upstream.Transport{Dial: t.Dial, TLS: config(), Proxy: t.Proxy, OnConnect: t.OnConnect, Other: other}
	return &intercept.Forwarder{H1: h1, H2: h2, Idle: idle}, func() {
		h1.Close()
		other.CloseIdleConnections()
		h2.CloseIdleConnections()
	}
}

// Roots reads the system's roots and those of files. The system's alone are nil, which stands
// for them in a [tls.Config]: they are read when the first certificate is to be verified.
func Roots(system bool, files ...string) (*x509.CertPool, error) {
	if system && len(files) == 0 {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if system {
		// A host without a store has none: the files are then all there is.
		if p, err := x509.SystemCertPool(); err == nil {
			pool = p
		}
	}
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("reading roots: %w", err)
		}
		if !pool.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("reading roots: there is no certificate in PEM in %s", f)
		}
	}
	return pool, nil
}

// Verdict is what a test of the policy says.
type Verdict struct {
	Decision string `json:"decision"`
	Rule     string `json:"rule"`
	Reason   string `json:"reason,omitempty"`
	Host     string `json:"host,omitempty"`
	Port     uint16 `json:"port,omitempty"`
	Path     string `json:"path,omitempty"`
	Inject   string `json:"inject,omitempty"` // the name of the secret
}

// Place is where a request would go.
type Place struct {
	Host   string // canonical
	Port   uint16
	Target policy.Target
}

// Verdict turns a decision about a request to the place into a verdict.
func (p Place) Verdict(d policy.Decision) Verdict {
	v := Verdict{Decision: audit.Deny, Rule: d.Rule, Reason: d.Reason, Host: p.Host, Port: p.Port, Path: p.Target.String()}
	if d.Allow {
		v.Decision = audit.Allow
		if d.Route != nil && d.Route.Credential != nil {
			v.Inject = d.Route.Credential.Secret
		}
	}
	return v
}

// Address splits a URL for a test of the policy.
func Address(raw string) (Place, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if scheme = strings.ToLower(scheme); !ok || scheme != "http" && scheme != "https" {
		return Place{}, fmt.Errorf("%q is no http or https URL", raw)
	}
	authority, path := rest, "/"
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		authority, path = rest[:i], rest[i:]
		if path[0] == '?' {
			path = "/" + path
		}
	}
	host, port, err := policy.ParseAuthority(authority, policy.DefaultPort(scheme))
	if err != nil {
		return Place{}, err
	}
	target, err := policy.CanonicalTarget(path)
	return Place{Host: host, Port: port, Target: target}, err
}

// JSON renders what the operator asked for.
func JSON(v any) []byte {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return []byte("{}\n")
	}
	return append(data, '\n')
}
