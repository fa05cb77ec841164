package core

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/sidecar/delivery"
)

// wayOut is what the launch's sidecars have in common. It is made before the first step.
type wayOut struct {
	policy *egress.Policy
	// values are the secrets that the sidecars know.
	values egress.Values
}

// newWayOut returns nil for a plan without a way out.
func newWayOut(plan Plan, secrets Secrets) *wayOut {
	if plan.Egress == nil {
		return nil
	}
	w := &wayOut{policy: plan.Egress, values: egress.Values{Variables: secrets.values, Tokens: secrets.tokens}}
	if plan.Git != nil {
		w.values.Elsewhere = map[string]string{}
		for _, name := range plan.Git.Tokens() {
			w.values.Elsewhere[name] = secrets.tokens[name]
		}
	}
	if plan.Egress.HasRoutes() {
		w.values.Hop = newHop()
	}
	return w
}

// routes reports whether there is an egress proxy in front of the firewall.
func (w *wayOut) routes() bool { return w.policy.HasRoutes() }

// foreign reports whether the firewall does not speak our protocol.
func (w *wayOut) foreign() bool { return w.policy.Firewall.Engine == manifest.FirewallPipelock }

// image is the reference of a role's image; empty means the built-in one.
func (w *wayOut) image(role string) string {
	if role == RoleFirewall {
		return w.policy.Firewall.Image
	}
	return w.policy.Image
}

// roles are the sidecars, in the order in which they become ready.
func (w *wayOut) roles() []string {
	if w.routes() {
		return []string{RoleFirewall, RoleEgressProxy}
	}
	return []string{RoleFirewall}
}

// proxyURL is the proxy that the agent is told of.
func (w *wayOut) proxyURL() string {
	roles := w.roles()
	return "http://" + roles[len(roles)-1] + ":" + proxyPort
}

// newHop makes what only the egress proxy and the firewall of one bottle know.
func newHop() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// facts are what a plan does not know.
func (l *launch) facts() egress.Facts {
	f := egress.Facts{Agent: l.plan.Agent, Subnet: l.network.Subnet}
	if l.plan.Supervise != nil {
		f.Supervise = superviseURL
	}
	return f
}

// startFirewall runs the firewall and waits until it is ready.
func (l *launch) startFirewall(ctx context.Context) (err error) {
	if l.egress.foreign() {
		return l.startForeignFirewall(ctx)
	}
	config, err := json.Marshal(l.egress.policy.FirewallConfig(l.facts()))
	if err != nil {
		return err
	}
	// What it presents to the egress proxy is signed by one authority, what the agent is
	// presented with by another.
	authority := l.pair.Agent
	if l.egress.routes() {
		authority = l.pair.Firewall
	}
	l.firewall, err = l.runReady(ctx, stepFirewall, l.builtInSpec(RoleFirewall, l.network.ID, l.egressNetwork.ID), delivery.Document{
		Config: config, CACert: string(authority.CertPEM), CAKey: string(authority.KeyPEM),
		CorporateRoots: string(l.egress.policy.CorporatePEM()), Secrets: l.egress.policy.FirewallSecrets(l.egress.values),
	})
	return err
}

// startEgressProxy runs the egress proxy, which has no way out but the firewall, and waits
// until it is ready.
func (l *launch) startEgressProxy(ctx context.Context) (err error) {
	config, err := json.Marshal(l.egress.policy.EgressProxyConfig(l.facts()))
	if err != nil {
		return err
	}
	l.egressProxy, err = l.runReady(ctx, stepEgressProxy, l.builtInSpec(RoleEgressProxy, l.network.ID), delivery.Document{
		Config: config, CACert: string(l.pair.Agent.CertPEM), CAKey: string(l.pair.Agent.KeyPEM),
		FirewallCA: string(l.pair.Firewall.CertPEM), Secrets: l.egress.policy.EgressProxySecrets(l.egress.values),
	})
	return err
}

// noProxy is what is reached without the proxy.
func (l *launch) noProxy() string {
	hosts := []string{"localhost", "127.0.0.1", "::1"}
	if l.plan.Git != nil {
		hosts = append(hosts, RoleGitGate)
	}
	if l.plan.Supervise != nil {
		hosts = append(hosts, RoleSupervise)
	}
	return strings.Join(hosts, ",")
}

// proxyEnv tells the agent's programs of the way out, in both cases: curl ignores
// HTTP_PROXY for http:// (CVE-2016-5388), others know only the upper case. Without a way
// out it is empty.
func (l *launch) proxyEnv() map[string]string {
	if l.egress == nil {
		return nil
	}
	url, noProxy := l.egress.proxyURL(), l.noProxy()
	return map[string]string{
		"HTTP_PROXY": url, "HTTPS_PROXY": url, "http_proxy": url, "https_proxy": url,
		"NO_PROXY": noProxy, "no_proxy": noProxy,
	}
}

// agentEnv is the environment of the agent's container: the plan's, the way out, what makes
// the agent's tools trust it, and what makes its git use the git gate.
func (l *launch) agentEnv() (map[string]string, error) {
	proxy := l.proxyEnv()
	git, err := l.gitEnv()
	ask := l.superviseEnv()
	if err != nil || len(proxy)+len(git)+len(ask) == 0 {
		return l.plan.Env, err
	}
	env := maps.Clone(l.plan.Env)
	if env == nil {
		env = map[string]string{}
	}
	maps.Copy(env, git)
	maps.Copy(env, ask)
	for _, name := range slices.Sorted(maps.Keys(proxy)) {
		if own, ok := env[name]; ok && own != proxy[name] {
			l.report.note(stepAgent, fmt.Sprintf("%s is %s, not what the manifest says: there is no other way out", name, proxy[name]))
		}
		env[name] = proxy[name]
	}
	var trusted map[string]string // nil without a way out
	trusted, l.secretEnv = l.trustEnv()
	maps.Copy(env, trusted)
	return env, nil
}
