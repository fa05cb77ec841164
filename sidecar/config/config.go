// Package config holds the configuration of the sidecars: JSON files that core renders
// and the sidecars read.
//
// Reading is strict: unknown, repeated and ill-typed members are errors, as is whatever
// the policy refuses. An [Error] says where in the file, and by which path, so that the
// place in the operator's manifest that it came from can be named. Configuration holds
// no secret, only names of secrets.
package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"time"

	"github.com/bottle-run/bottle/sidecar/policy"
)

// Firewall is the configuration of the firewall sidecar.
type Firewall struct {
	Common
	// AllowAll allows what Allow does not name.
	AllowAll bool          `json:"allow_all,omitempty"`
	Allow    []policy.Rule `json:"allow,omitempty"`
	Guard    Guard         `json:"guard"`
	Scan     Scan          `json:"scan"`
	Upstream Upstream      `json:"upstream"`
	// ClientSecret is the name of the secret that a client has to present, as the
	// password of its proxy authorization: with an egress proxy, nobody else on the
	// internal network may dial the firewall. Empty: everybody may.
	ClientSecret string `json:"client_secret,omitempty"`
}

// EgressProxy is the configuration of the egress proxy sidecar.
type EgressProxy struct {
	Common
	Routes []policy.Route `json:"routes"`
	// Allow is the firewall's allowlist, for hosts that no route is about: they are
	// passed on as they are, and the firewall decides.
	AllowAll bool          `json:"allow_all,omitempty"`
	Allow    []policy.Rule `json:"allow,omitempty"`
	// Firewall is the address of the firewall, HOST:PORT.
	Firewall string `json:"firewall"`
	// FirewallCA is the file of the authority that signs what the firewall presents.
	FirewallCA string `json:"firewall_ca"`
	// FirewallSecret is the name of the secret to present to the firewall.
	FirewallSecret string `json:"firewall_secret,omitempty"`
}

// Common is what both have.
type Common struct {
	// Agent is the name of the agent, for the audit log.
	Agent string `json:"agent"`
	// Listen is the address of the proxy. Default: ":8888".
	Listen string `json:"listen,omitempty"`
	// CACert and CAKey are the files of the authority to sign with.
	CACert string `json:"ca_cert"`
	CAKey  string `json:"ca_key"`
	// Supervise is the URL at which the agent may ask for more. Empty: it may not.
	Supervise string `json:"supervise,omitempty"`
	// Secrets are the names of the secrets without which the sidecar is not ready.
	Secrets []string `json:"secrets,omitempty"`
	Limits  Limits   `json:"limits"`
}

// Guard says what may be dialled.
type Guard struct {
	// AllowCIDRs are prefixes that may be dialled although they are not public.
	AllowCIDRs []netip.Prefix `json:"allow_cidrs,omitempty"`
	// DNS are servers to ask, as IP or IP:PORT, instead of the system's.
	DNS []string `json:"dns,omitempty"`
}

// Servers returns the DNS servers with their ports.
func (g Guard) Servers() ([]netip.AddrPort, error) {
	var servers []netip.AddrPort
	for i, s := range g.DNS {
		if addr, err := netip.ParseAddr(s); err == nil {
			servers = append(servers, netip.AddrPortFrom(addr, 53))
			continue
		}
		server, err := netip.ParseAddrPort(s)
		if err != nil {
			return nil, &policy.FieldError{Path: fmt.Sprintf("guard.dns[%d]", i), Err: fmt.Errorf("%q is no IP address, with or without a port", s)}
		}
		servers = append(servers, server)
	}
	return servers, nil
}

// Scan says what the scan for secrets looks for.
type Scan struct {
	// Off leaves out the rules; known values are looked for all the same.
	Off bool `json:"off,omitempty"`
	// Disable are ids of gitleaks' rules to leave out. Default: those that take ordinary
	// requests for secrets.
	Disable []string `json:"disable,omitempty"`
	// Exempt are exemptions by host.
	Exempt []Exemption `json:"exempt,omitempty"`
}

// Exemption lets through what rules find on its way to a host.
type Exemption struct {
	// Host is a pattern as the policy reads it.
	Host string `json:"host"`
	// Rules are ids of gitleaks' rules. Empty means all of them. Known values are
	// never exempt: they have their own hosts.
	Rules []string `json:"rules,omitempty"`
}

// Check says whether the patterns can be read. Its errors are of type
// [*policy.FieldError].
func (s Scan) Check() error {
	for i, e := range s.Exempt {
		if _, err := policy.ParseHostPattern(e.Host); err != nil {
			return &policy.FieldError{Path: fmt.Sprintf("exempt[%d].host", i), Err: err}
		}
	}
	return nil
}

// Upstream is how the world is reached.
type Upstream struct {
	// Proxy is the URL of a proxy between the firewall and the world, without
	// credentials: http://proxy.corp.example:3128.
	Proxy string `json:"proxy,omitempty"`
	// ProxyUser and ProxySecret, the name of a secret, are credentials for it.
	ProxyUser   string `json:"proxy_user,omitempty"`
	ProxySecret string `json:"proxy_secret,omitempty"`
	// CAFiles are files of roots beside the system's.
	CAFiles []string `json:"ca_files,omitempty"`
}

// ProxyURL returns the URL of the upstream proxy, nil if there is none.
func (u Upstream) ProxyURL() (*url.URL, error) {
	fail := func(field, format string, args ...any) (*url.URL, error) {
		return nil, &policy.FieldError{Path: "upstream." + field, Err: fmt.Errorf(format, args...)}
	}
	if u.Proxy == "" {
		if u.ProxySecret != "" || u.ProxyUser != "" {
			return fail("proxy_secret", "there is no proxy that the credentials could be for")
		}
		return nil, nil
	}
	p, err := url.Parse(u.Proxy)
	switch {
	case err != nil || p.Host == "" || p.Scheme != "http" && p.Scheme != "https":
		return fail("proxy", "it is no URL of an HTTP proxy, such as http://proxy.example:3128")
	case p.User != nil:
		return fail("proxy", "the URL holds credentials: name a secret in proxy_secret instead")
	case p.Path != "" && p.Path != "/" || p.RawQuery != "" || p.Fragment != "":
		return fail("proxy", "the URL of a proxy has no path")
	case u.ProxySecret == "" && u.ProxyUser != "":
		return fail("proxy_user", "there is no proxy_secret that goes with the user")
	}
	return p, nil
}

// Limits bound what a client may use. Zero means the default.
type Limits struct {
	// Connections at a time. Default: 1024.
	Connections int `json:"connections,omitempty"`
	// HeaderBytes of one request. Default: 64 KiB.
	HeaderBytes int `json:"header_bytes,omitempty"`
	// HeaderTimeout is how long the head of a request, or a TLS handshake, may take.
	// Default: 30s.
	HeaderTimeout Duration `json:"header_timeout,omitempty"`
	// IdleTimeout is how long nothing may move, in neither direction. There is no limit
	// to how long something moves. Default: 15m.
	IdleTimeout Duration `json:"idle_timeout,omitempty"`
}

// Duration is a [time.Duration] written as "30s".
type Duration time.Duration

// UnmarshalText reads a duration, which may not be negative.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is no duration, such as 30s or 5m", b)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes a duration.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// WithDefaults returns the limits with defaults filled in.
func (l Limits) WithDefaults() Limits {
	if l.Connections == 0 {
		l.Connections = 1024
	}
	if l.HeaderBytes == 0 {
		l.HeaderBytes = 64 << 10
	}
	if l.HeaderTimeout == 0 {
		l.HeaderTimeout = Duration(30 * time.Second)
	}
	if l.IdleTimeout == 0 {
		l.IdleTimeout = Duration(15 * time.Minute)
	}
	return l
}
