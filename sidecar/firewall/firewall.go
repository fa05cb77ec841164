// Package firewall is the last hop on the way out of a bottle: an intercepting proxy
// with an allowlist of hosts, a guard against addresses that are not public, and a scan
// of everything that leaves for secrets.
//
// # Promises
//
//   - What the allowlist does not name is not dialled, nor resolved.
//   - What is dialled is an address that was checked, see netguard.
//   - URL, headers, bodies and the frames of WebSockets are scanned before they are
//     passed on, see scan.
//   - A new configuration replaces the old one between two requests, or not at all.
package firewall

import (
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/intercept"
	"github.com/bottle-run/bottle/sidecar/internal/front"
	"github.com/bottle-run/bottle/sidecar/netguard"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/scan"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// Firewall is the sidecar. It is made without a configuration: the first Reload that
// succeeds gives it one, and only then can it serve.
type Firewall struct {
	*front.Service[*state]
}

// state is what a configuration and secrets make.
type state struct {
	front.Shared
	config  *config.Firewall
	allow   *policy.Allowlist
	scanner *scan.Scanner
	guard   *netguard.Guard
	proxied bool   // an upstream proxy resolves and dials
	client  string // what clients have to present, "" if nothing
}

// New makes a firewall that will read its configuration and secrets from files. Open
// opens the audit log of an agent.
func New(configPath, secretsPath string, log *slog.Logger, open func(agent string) *audit.Log) *Firewall {
	return &Firewall{front.NewService(log, open, func() (*state, error) { return load(configPath, secretsPath) })}
}

// Reload reads configuration and secrets, for the first time or again. On an error the
// old ones stay, if there are any. Either is logged.
func (f *Firewall) Reload() error { return f.Service.Reload(handler{f}) }

func load(configPath, secretsPath string) (*state, error) {
	c, err := config.ReadFirewall(configPath)
	if err != nil {
		return nil, err
	}
	needed := slices.Clone(c.Secrets)
	for _, name := range []string{c.ClientSecret, c.Upstream.ProxySecret} {
		if name != "" {
			needed = append(needed, name)
		}
	}
	set, absent, err := front.Secrets(secretsPath, needed)
	if err != nil {
		return nil, err
	}
	st := &state{config: c, Shared: front.Shared{Config: c.Common, Absent: absent}}
	if st.allow, err = policy.NewAllowlist(c.AllowAll, c.Allow); err != nil {
		return nil, err
	}
	st.Hosts = st.allow.Hosts()
	if st.scanner, err = scan.New(c.Scan, set); err != nil {
		return nil, err
	}
	var values []secrets.Value
	for _, s := range set {
		values = append(values, s.Value)
	}
	masker := secrets.NewMasker(values...)
	st.Desk = front.Desk{Supervise: c.Supervise, Mask: func(s string) string { return st.scanner.Mask(masker, s) }}
	if c.ClientSecret != "" {
		st.client = string(set[c.ClientSecret].Value)
	}
	servers, err := c.Guard.Servers()
	if err != nil {
		return nil, err
	}
	st.guard = &netguard.Guard{Allow: c.Guard.AllowCIDRs, Dialer: net.Dialer{Timeout: 30 * time.Second, KeepAlive: time.Minute}}
	if len(servers) > 0 {
		st.guard.Resolver = netguard.DNS(servers)
	}
	t := front.Transport{Dial: st.guard.DialContext}
	if t.Roots, err = front.Roots(true, c.Upstream.CAFiles...); err != nil {
		return nil, err
	}
	if t.Proxy, err = c.Upstream.ProxyURL(); err != nil {
		return nil, err
	}
	if t.Proxy != nil {
		st.proxied = true
		if c.Upstream.ProxySecret != "" {
			t.Proxy.User = url.UserPassword(c.Upstream.ProxyUser, string(set[c.Upstream.ProxySecret].Value))
		}
		t.Dial = st.guard.Dialer.DialContext // the operator says where the proxy is
	}
	st.Forward, st.Close = t.Forwarder(time.Duration(c.Limits.WithDefaults().IdleTimeout))
	return st, nil
}

// Policy returns the configuration that is in force, nil if there is none.
func (f *Firewall) Policy() any { return f.Service.Policy(func(st *state) any { return st.config }) }

// Test says which rule decides a request, without sending it.
func (f *Firewall) Test(_, rawURL string) front.Verdict {
	return f.Service.Test(rawURL, func(st *state, at front.Place) front.Verdict {
		return at.Verdict(st.allow.Decide(at.Host, at.Port))
	})
}

// Tunnel says whether a tunnel to a host is worth opening.
func (f *Firewall) Tunnel(host string, port uint16) *intercept.Denial {
	if d := f.State().allow.Decide(host, port); !d.Allow {
		return denial(d)
	}
	return nil
}

func denial(d policy.Decision) *intercept.Denial {
	return &intercept.Denial{Rule: d.Rule, Reason: d.Reason, NextSteps: []string{"use a host that is allowed", "ask the operator to add the host to the bottle's allowlist"}}
}

// handler is the firewall as intercept sees it.
type handler struct{ *Firewall }

// authorised reports whether a client may use the firewall.
func (st *state) authorised(r *intercept.Request) bool {
	if st.config.ClientSecret == "" {
		return true
	}
	scheme, value, _ := strings.Cut(r.ProxyAuthorization, " ")
	raw, err := base64.StdEncoding.DecodeString(value)
	_, password, ok := strings.Cut(string(raw), ":")
	return err == nil && ok && strings.EqualFold(scheme, "basic") && st.client != "" &&
		subtle.ConstantTimeCompare([]byte(password), []byte(st.client)) == 1
}

// Serve decides about a request and forwards it.
func (h handler) Serve(w http.ResponseWriter, r *intercept.Request) {
	st := h.State()
	path := r.RawTarget
	deny := func(d intercept.Denial) { st.Desk.Deny(w, r, path, d, intercept.Result{}) }
	if !st.Ready(w, r) {
		return
	}
	if !st.authorised(r) {
		deny(intercept.Denial{Rule: "not-the-egress-proxy", Reason: "this firewall answers to the egress proxy alone", NextSteps: []string{"use the proxy that HTTPS_PROXY names"}})
		return
	}
	d := st.allow.Decide(r.Addr, r.Port)
	if !d.Allow {
		deny(*denial(d))
		return
	}
	out, err := intercept.Outgoing(r, r.RawTarget)
	if err != nil {
		deny(intercept.Denial{Status: http.StatusBadRequest, Rule: "malformed", Reason: err.Error()})
		return
	}
	if found := st.scanHead(r, out); found != nil {
		deny(leak(found))
		return
	}
	if st.proxied {
		if _, err := st.guard.Resolve(r.Context(), r.Addr); errors.Is(err, netguard.ErrForbidden) {
			deny(ssrf(err))
			return
		}
	}
	body, err := st.body(r, out)
	if err != nil {
		deny(leak(err))
		return
	}
	in := intercept.Inspection{}
	if intercept.IsWebSocket(r.Request) {
		frames := st.scanner.Stream(r.Addr)
		in.Frames = func(p []byte) error {
			if _, found := frames.Feed(p); found != nil {
				return found
			}
			return nil
		}
	}
	res := st.Forward.Forward(w, r, out, in)
	var found *scan.Finding
	switch {
	case body != nil && body.Finding() != nil:
		st.Desk.Deny(w, r, path, leak(body.Finding()), res)
	case errors.As(res.Err, &found):
		st.Desk.Deny(w, r, path, leak(found), res)
	case errors.Is(res.Err, netguard.ErrForbidden):
		st.Desk.Deny(w, r, path, ssrf(res.Err), res)
	default:
		st.Finish(w, r, path, d.Rule, res, failed)
	}
}

// scanHead scans the address, the target and the headers of a request.
func (st *state) scanHead(r *intercept.Request, out *http.Request) *scan.Finding {
	var b strings.Builder
	b.WriteString(r.Method + " " + r.Addr + "\n" + r.RawTarget + "\n")
	b.WriteString(fields(out.Header))
	return st.scanner.Text(r.Addr, b.String())
}

func fields(h http.Header) string {
	var b strings.Builder
	for name, values := range h {
		for _, v := range values {
			b.WriteString(name + ": " + v + "\n")
		}
	}
	return b.String()
}

// body puts the scan in front of a request's body, if it has one.
func (st *state) body(r *intercept.Request, out *http.Request) (*scan.Body, error) {
	if out.Body == nil || out.Body == http.NoBody {
		return nil, nil
	}
	body, err := st.scanner.Body(r.Addr, strings.Join(r.Header["Content-Encoding"], ","), out.Body)
	if err != nil {
		return nil, err
	}
	body.AtEnd = func() *scan.Finding { return st.scanner.Text(r.Addr, fields(r.Trailer)) }
	out.Body = body
	return body, nil
}

func leak(err error) intercept.Denial {
	var found *scan.Finding
	if !errors.As(err, &found) {
		return intercept.Denial{Rule: "scan", Reason: err.Error()}
	}
	return intercept.Denial{Rule: found.Rule, Reason: found.Reason, NextSteps: []string{
		"take the secret out of the request: the bottle adds credentials itself where a route says so",
		"if it is none, ask the operator for an exemption of this rule for the host",
	}}
}

func ssrf(err error) intercept.Denial {
	d := intercept.Denial{Rule: "ssrf", Reason: "the host leads to an address that may not be dialled", NextSteps: []string{"ask the operator to allow the address range, if it is meant to be reached"}}
	var fe *netguard.ForbiddenError
	if errors.As(err, &fe) {
		d.Reason = fe.Error()
	}
	return d
}

func failed(err error) intercept.Denial {
	d := intercept.Denial{Status: http.StatusBadGateway, Rule: "upstream", Reason: fmt.Sprintf("the host was not reached: %v", err)}
	if errors.Is(err, intercept.ErrIdle) {
		d.Status, d.Reason = http.StatusGatewayTimeout, err.Error()
	}
	return d
}
