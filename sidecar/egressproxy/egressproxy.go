// Package egressproxy stands between the agent and the firewall: an intercepting proxy
// that allows by host, port, method and path, and holds the credentials that the agent
// does not.
//
// # Promises
//
//   - A host that routes are about is reached through a route or not at all. Others are
//     passed on as the firewall's allowlist has them.
//   - Paths are matched, and forwarded, in their canonical form. What a service may take for
//     the method is matched too; what it may take for the host or the path is taken out.
//   - What the agent sends as a credential is taken out, whether or not the route injects
//     one, unless the route passes it. The route's own is put in, and masked in the
//     answer if it is echoed; cookies that the service sets for it are taken out.
//   - All of it goes to the firewall, to nobody else.
package egressproxy

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
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
	"github.com/bottle-run/bottle/sidecar/internal/deflate"
	"github.com/bottle-run/bottle/sidecar/internal/front"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/scan"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// EgressProxy is the sidecar. It is made without a configuration: the first Reload that
// succeeds gives it one, and only then can it serve.
type EgressProxy struct {
	*front.Service[*state]
}

// state is what a configuration and secrets make.
type state struct {
	front.Shared
	config *config.EgressProxy
	routes *policy.Routes
	allow  *policy.Allowlist
	set    secrets.Set
	masker *secrets.Masker // of what is presented upstream
}

// New makes an egress proxy that will read its configuration and secrets from files. Open
// opens the audit log of an agent.
func New(configPath, secretsPath string, log *slog.Logger, open func(agent string) *audit.Log) *EgressProxy {
	return &EgressProxy{front.NewService(log, open, func() (*state, error) { return load(configPath, secretsPath) })}
}

// Reload reads configuration and secrets, for the first time or again. On an error the
// old ones stay, if there are any. Either is logged.
func (e *EgressProxy) Reload() error { return e.Service.Reload(handler{e}) }

func load(configPath, secretsPath string) (*state, error) {
	c, err := config.ReadEgressProxy(configPath)
	if err != nil {
		return nil, err
	}
	st := &state{config: c, Shared: front.Shared{Config: c.Common}}
	if st.routes, err = policy.NewRoutes(c.Routes); err != nil {
		return nil, err
	}
	if st.allow, err = policy.NewAllowlist(c.AllowAll, c.Allow); err != nil {
		return nil, err
	}
	st.Hosts = append(st.routes.Hosts(), st.allow.Hosts()...)
	needed := append(st.routes.Secrets(), c.Secrets...)
	if c.FirewallSecret != "" {
		needed = append(needed, c.FirewallSecret)
	}
	if st.set, st.Absent, err = front.Secrets(secretsPath, needed); err != nil {
		return nil, err
	}
	var injected, known []secrets.Value
	for name, s := range st.set {
		known = append(known, s.Value)
		if slices.Contains(needed, name) {
			injected = append(injected, s.Value)
		}
	}
	// What the agent has itself is hidden in logs, not from the agent.
	st.masker = secrets.NewMasker(injected...)
	logged := secrets.NewMasker(known...)
	// Requests are scanned by the firewall; here only what is logged is.
	scanner, err := scan.New(scan.Options{}, st.set)
	if err != nil {
		return nil, err
	}
	st.Desk = front.Desk{Supervise: c.Supervise, Mask: func(s string) string { return scanner.Mask(logged, s) }}
	t := front.Transport{
		Dial:      (&net.Dialer{Timeout: 10 * time.Second, KeepAlive: time.Minute}).DialContext,
		Proxy:     &url.URL{Scheme: "http", Host: c.Firewall},
		OnConnect: onConnect,
	}
	if t.Roots, err = front.Roots(false, c.FirewallCA); err != nil {
		return nil, err
	}
	if c.FirewallSecret != "" {
		t.Proxy.User = url.UserPassword("bottle", string(st.set[c.FirewallSecret].Value))
	}
	st.Forward, st.Close = t.Forwarder(time.Duration(c.Limits.WithDefaults().IdleTimeout))
	return st, nil
}

// deniedError is the firewall's denial of a tunnel.
type deniedError struct{ rule string }

func (e *deniedError) Error() string { return "denied by the firewall: " + e.rule }

func onConnect(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if rule := resp.Header.Get(intercept.DenialHeader); rule != "" && resp.StatusCode >= 300 {
		return &deniedError{rule}
	}
	return nil
}

// Policy returns the configuration that is in force, nil if there is none.
func (e *EgressProxy) Policy() any { return e.Service.Policy(func(st *state) any { return st.config }) }

// Test says which rule decides a request, without sending it.
func (e *EgressProxy) Test(method, rawURL string) front.Verdict {
	return e.Service.Test(rawURL, func(st *state, at front.Place) front.Verdict {
		return at.Verdict(st.decide(at.Host, at.Port, strings.ToUpper(method), at.Target, func() []string { return nil }))
	})
}

// decide asks the routes about the hosts that they are about, the allowlist about the
// rest. Also gives the methods that a request names beside its own.
func (st *state) decide(host string, port uint16, method string, target policy.Target, also func() []string) policy.Decision {
	if st.routes.Governs(host, port) {
		return st.routes.Decide(host, port, method, target, also()...)
	}
	d := st.allow.Decide(host, port)
	if !d.Allow {
		d.Reason = fmt.Sprintf("no route leads to %s on port %d, and %s", host, port, d.Reason)
	}
	return d
}

// Tunnel says whether a tunnel to a host is worth opening.
func (e *EgressProxy) Tunnel(host string, port uint16) *intercept.Denial {
	st := e.State()
	if st.routes.Governs(host, port) {
		return nil
	}
	if d := st.allow.Decide(host, port); !d.Allow {
		return denial(d)
	}
	return nil
}

func denial(d policy.Decision) *intercept.Denial {
	return &intercept.Denial{Rule: d.Rule, Reason: d.Reason, NextSteps: []string{"use a host, method and path that a route allows", "ask the operator to add a route to the bottle"}}
}

// handler is the egress proxy as intercept sees it.
type handler struct{ *EgressProxy }

// Serve decides about a request and forwards it.
func (h handler) Serve(w http.ResponseWriter, r *intercept.Request) {
	st := h.State()
	path := r.RawTarget
	deny := func(d intercept.Denial) { st.Desk.Deny(w, r, path, d, intercept.Result{}) }
	if !st.Ready(w, r) {
		return
	}
	target, err := policy.CanonicalTarget(r.RawTarget)
	if err != nil {
		deny(intercept.Denial{Rule: policy.RulePath, Reason: err.Error(), NextSteps: []string{"send the path in its plain form"}})
		return
	}
	path = target.Path
	d := st.decide(r.Addr, r.Port, r.Method, target, func() []string { return otherMethods(r.Header, target.Query) })
	if !d.Allow {
		deny(*denial(d))
		return
	}
	out, err := intercept.Outgoing(r, target.String())
	if err != nil {
		deny(intercept.Denial{Status: http.StatusBadRequest, Rule: "malformed", Reason: err.Error()})
		return
	}
	in := intercept.Inspection{}
	if d.Route != nil {
		stripAddresses(out.Header)
		st.credentials(out, d.Route, &in)
	}
	st.Finish(w, r, path, d.Rule, st.Forward.Forward(w, r, out, in), failed)
}

func failed(err error) intercept.Denial {
	var denied *deniedError
	var odd *encodingError
	switch {
	case errors.As(err, &denied):
		return intercept.Denial{Rule: denied.rule, Reason: err.Error(), NextSteps: []string{"ask the operator to add the host to the bottle's allowlist"}}
	case errors.As(err, &odd):
		return intercept.Denial{Status: http.StatusBadGateway, Rule: "response-encoding", Reason: err.Error()}
	case errors.Is(err, intercept.ErrIdle):
		return intercept.Denial{Status: http.StatusGatewayTimeout, Rule: "upstream", Reason: err.Error()}
	}
	return intercept.Denial{Status: http.StatusBadGateway, Rule: "upstream", Reason: fmt.Sprintf("the firewall was not reached, or not the host behind it: %v", err)}
}

// credentials replaces the agent's by the route's, and has it masked in the answer.
func (st *state) credentials(out *http.Request, route *policy.Route, in *intercept.Inspection) {
	if !route.PassCredentials {
		strip(out, route.Credential)
	}
	if route.Credential == nil {
		return
	}
	inject(out, route.Credential, st.set[route.Credential.Secret].Value)
	in.Mask = st.masker
	in.Answer = func(resp *http.Response) error {
		// A session is a credential too, and good for more than the route allows.
		resp.Header.Del("Set-Cookie")
		return readable(resp)
	}
	// What is compressed could not be masked.
	out.Header.Set("Accept-Encoding", "identity")
}

type encodingError struct{ encoding string }

func (e *encodingError) Error() string {
	return fmt.Sprintf("the answer is encoded as %q although it was asked for as it is, so credentials in it could not be masked", e.encoding)
}

// readable decompresses an answer that came compressed nevertheless.
func readable(resp *http.Response) error {
	encoding := strings.ToLower(strings.TrimSpace(strings.Join(resp.Header["Content-Encoding"], ",")))
	if encoding == "" || encoding == "identity" || resp.Request != nil && resp.Request.Method == http.MethodHead ||
		resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		return nil
	}
	var open func(io.Reader) (io.Reader, error)
	switch encoding {
	case "gzip", "x-gzip":
		open = func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }
	case "deflate":
		open = func(r io.Reader) (io.Reader, error) { return deflate.NewReader(bufio.NewReader(r)) }
	default:
		return &encodingError{encoding}
	}
	resp.Header.Del("Content-Encoding")
	resp.Header.Del("Content-Length")
	resp.ContentLength = -1
	resp.Body = &lazy{open: open, src: resp.Body}
	return nil
}

// lazy opens a decompressor at the first read: until then the answer's head can go on.
type lazy struct {
	open func(io.Reader) (io.Reader, error)
	src  io.ReadCloser
	r    io.Reader
}

func (l *lazy) Read(p []byte) (int, error) {
	if l.r == nil {
		r, err := l.open(l.src)
		if err != nil {
			return 0, fmt.Errorf("decompressing the answer: %w", err)
		}
		l.r = r
	}
	return l.r.Read(p)
}

func (l *lazy) Close() error { return l.src.Close() }
