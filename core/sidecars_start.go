package core

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/bottle-run/bottle/sidecar/delivery"
)

// egressParts is what a plan says about the way out, as the launch needs it.
type egressParts struct {
	// routes is whether there is an egress proxy in front of the firewall.
	routes bool
	// firewallImage and proxyImage replace the built-in image, if they are not empty.
	firewallImage, proxyImage string
	// hop is what the egress proxy shows to the firewall; empty without routes.
	hop string

	firewall func(l *launch) (delivery.Document, error)
	proxy    func(l *launch) (delivery.Document, error)
}

// foreign reports whether the firewall does not speak our protocol.
func (e *egressParts) foreign() bool { return e.firewall == nil }

// builtIn reports whether a role runs in our own image.
func (e *egressParts) builtIn(role string) bool {
	return role == RoleFirewall && e.firewallImage == "" || role == RoleEgressProxy && e.proxyImage == ""
}

// roles are the sidecars, in the order in which they become ready.
func (e *egressParts) roles() []string {
	if e.routes {
		return []string{RoleFirewall, RoleEgressProxy}
	}
	return []string{RoleFirewall}
}

// proxyURL is the proxy that the agent is told of.
func (e *egressParts) proxyURL() string {
	if e.routes {
		return "http://" + RoleEgressProxy + ":" + proxyPort
	}
	return "http://" + RoleFirewall + ":" + proxyPort
}

// newHop makes what only the egress proxy and the firewall of one bottle know.
func newHop() string {
	var b [32]byte
	_, _ = rand.Read(b[:]) // it never fails
	return hex.EncodeToString(b[:])
}

// startFirewall runs the firewall and waits until it is ready.
func (l *launch) startFirewall(ctx context.Context) (err error) {
	networks := []string{l.network.ID, l.egressNetwork.ID}
	l.firewall, err = l.runSidecar(ctx, stepFirewall, l.builtInSpec(RoleFirewall, networks...))
	if err != nil {
		return err
	}
	doc, err := l.egress.firewall(l)
	if err != nil {
		return err
	}
	return l.deliver(ctx, RoleFirewall, l.firewall.ID, doc)
}

// runEgressProxy runs the egress proxy, which has no way out but the firewall.
func (l *launch) runEgressProxy(ctx context.Context) (err error) {
	l.egressProxy, err = l.runSidecar(ctx, stepEgressProxyRun, l.builtInSpec(RoleEgressProxy, l.network.ID))
	return err
}

// configureEgressProxy gives the egress proxy what it needs and waits until it is ready.
func (l *launch) configureEgressProxy(ctx context.Context) error {
	doc, err := l.egress.proxy(l)
	if err != nil {
		return err
	}
	return l.deliver(ctx, RoleEgressProxy, l.egressProxy.ID, doc)
}

// noProxy is what is reached without the proxy.
const noProxy = "localhost,127.0.0.1,::1"

// proxyEnv tells the agent's programs of the way out, in both cases: curl ignores
// HTTP_PROXY for http:// (CVE-2016-5388), others know only the upper case. Without a way
// out it is empty.
func (l *launch) proxyEnv() map[string]string {
	if l.egress == nil {
		return nil
	}
	url := l.egress.proxyURL()
	return map[string]string{
		"HTTP_PROXY": url, "HTTPS_PROXY": url, "http_proxy": url, "https_proxy": url,
		"NO_PROXY": noProxy, "no_proxy": noProxy,
	}
}

// agentEnv is the environment of the agent's container.
func (l *launch) agentEnv() map[string]string {
	proxy := l.proxyEnv()
	if len(proxy) == 0 {
		return l.plan.Env
	}
	env := maps.Clone(l.plan.Env)
	if env == nil {
		env = map[string]string{}
	}
	for _, name := range slices.Sorted(maps.Keys(proxy)) {
		if own, ok := env[name]; ok && own != proxy[name] {
			l.report.note(stepAgent, fmt.Sprintf("%s is %s, not what the manifest says: there is no other way out", name, proxy[name]))
		}
		env[name] = proxy[name]
	}
	return env
}
