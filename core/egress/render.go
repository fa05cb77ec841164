package egress

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/delivery"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// The firewall's name and the port of both proxies on the internal network.
const (
	FirewallAddress = "firewall:8888"
	listen          = ":8888"
)

// HopSecret is the name of what the egress proxy presents to the firewall. No variable
// can have it.
const HopSecret = "bottle-hop"

// Facts are what a launch knows and a plan does not.
type Facts struct {
	// Agent is its name, for the audit log.
	Agent string
	// Subnet is that of the internal network.
	Subnet netip.Prefix
	// Supervise is the URL at which the agent may ask for more; empty if it may not.
	Supervise string
}

func (p *Policy) common(f Facts) config.Common {
	return config.Common{
		Agent: f.Agent, Listen: listen, Supervise: f.Supervise, Limits: p.Firewall.Limits,
		CACert: delivery.Path(delivery.CACert), CAKey: delivery.Path(delivery.CAKey),
	}
}

// FirewallConfig renders the configuration of the built-in firewall.
func (p *Policy) FirewallConfig(f Facts) *config.Firewall {
	c := &config.Firewall{Common: p.common(f), Scan: p.Firewall.Scan}
	c.Guard.DNS = p.Firewall.DNS
	c.Guard.AllowCIDRs = p.AllowCIDRs(f)
	if u := p.Firewall.Proxy; u != nil {
		c.Upstream.Proxy, c.Upstream.ProxyUser, c.Upstream.ProxySecret = u.URL, u.User, u.Password
	}
	if len(p.Firewall.corporate) > 0 {
		c.Upstream.CAFiles = []string{delivery.Path(delivery.CorporateRoots)}
	}
	p.ApplyFirewall(c)
	return c
}

// AllowCIDRs are the addresses that are not public and may be reached all the same.
func (p *Policy) AllowCIDRs(f Facts) []netip.Prefix {
	list := slices.Clone(p.Firewall.AllowCIDRs)
	if f.Subnet.IsValid() {
		list = append(list, f.Subnet.Masked())
	}
	return list
}

// EgressProxyConfig renders the configuration of the built-in egress proxy.
func (p *Policy) EgressProxyConfig(f Facts) *config.EgressProxy {
	c := &config.EgressProxy{Common: p.common(f), Firewall: FirewallAddress, FirewallCA: delivery.Path(delivery.FirewallCA)}
	if p.Firewall.Engine == manifest.FirewallBuiltin {
		c.FirewallSecret = HopSecret
	}
	p.ApplyEgressProxy(c)
	return c
}

// ApplyFirewall sets what the manifest's section egress decides in a configuration that
// is otherwise kept: what can change while a bottle runs.
func (p *Policy) ApplyFirewall(c *config.Firewall) {
	c.AllowAll, c.Allow = p.AllowAll, slices.Clone(p.Allow)
	for _, r := range p.Routes {
		// What the egress proxy sends on has to be allowed here too.
		host, ports, err := r.Address()
		if err != nil {
			continue // New has refused it
		}
		rule := policy.Rule{ID: r.ID, Host: host.String(), Ports: ports}
		if rule.ID == "" {
			rule.ID = "route:" + host.String()
		}
		c.Allow = append(c.Allow, rule)
	}
	if p.HasRoutes() {
		c.ClientSecret = HopSecret
	}
}

// ApplyEgressProxy is as [Policy.ApplyFirewall], for the egress proxy.
func (p *Policy) ApplyEgressProxy(c *config.EgressProxy) {
	c.AllowAll, c.Allow, c.Routes = p.AllowAll, slices.Clone(p.Allow), slices.Clone(p.Routes)
	if c.Routes == nil {
		c.Routes = []policy.Route{}
	}
}

// Values are the secrets of a launch.
type Values struct {
	// Variables are the agent's.
	Variables map[string]string
	// Tokens are the sidecars'.
	Tokens map[string]string
	// Elsewhere are what other sidecars present, which no request may carry.
	Elsewhere map[string]string
	// Hop is what the egress proxy presents to the firewall; empty without routes.
	Hop string
}

// FirewallSecrets returns what the firewall has to know: what it presents itself, and what
// it looks for in what leaves, with the hosts to which that may go.
func (p *Policy) FirewallSecrets(v Values) []secrets.Secret {
	hosts := TokenHosts(p.Routes)
	var list []secrets.Secret
	for _, name := range p.Tokens() {
		list = append(list, secrets.Secret{Name: name, Value: secrets.Value(v.Tokens[name]), Hosts: hosts[name]})
	}
	for name, value := range v.Elsewhere {
		if len(value) >= secrets.MinLength && !named(list, name) {
			list = append(list, secrets.Secret{Name: name, Value: secrets.Value(value)})
		}
	}
	list = p.withVariables(list, v)
	if v.Hop != "" {
		list = append(list, secrets.Secret{Name: HopSecret, Value: secrets.Value(v.Hop)})
	}
	return sorted(list)
}

// withVariables adds the agent's own, but for those that are no secrets.
func (p *Policy) withVariables(list []secrets.Secret, v Values) []secrets.Secret {
	for name, value := range v.Variables {
		if value = strings.TrimRight(value, "\r\n"); len(value) < secrets.MinLength || strings.ContainsRune(value, 0) {
			continue // found by chance
		}
		hosts := p.SecretHosts[name]
		if slices.Contains(hosts, anywhere) {
			continue
		}
		if named(list, name) {
			name = "variable:" + name // a token has the name
		}
		list = append(list, secrets.Secret{Name: name, Value: secrets.Value(value), Hosts: hosts})
	}
	return list
}

func named(list []secrets.Secret, name string) bool {
	return slices.ContainsFunc(list, func(s secrets.Secret) bool { return s.Name == name })
}

// EgressProxySecrets returns what the egress proxy has to know: the tokens of the routes,
// what it presents to the firewall, and the agent's variables, which are to be in no log.
func (p *Policy) EgressProxySecrets(v Values) []secrets.Secret {
	var list []secrets.Secret
	for name, hosts := range TokenHosts(p.Routes) {
		list = append(list, secrets.Secret{Name: name, Value: secrets.Value(v.Tokens[name]), Hosts: hosts})
	}
	list = p.withVariables(list, v)
	if v.Hop != "" && p.Firewall.Engine == manifest.FirewallBuiltin {
		list = append(list, secrets.Secret{Name: HopSecret, Value: secrets.Value(v.Hop)})
	}
	return sorted(list)
}

// TokenHosts are the hosts to which routes lead that inject each token.
func TokenHosts(routes []policy.Route) map[string][]string {
	hosts := map[string][]string{}
	for _, r := range routes {
		if r.Credential == nil {
			continue
		}
		name := r.Credential.Secret
		if host, _, err := r.Address(); err == nil && !slices.Contains(hosts[name], host.String()) {
			hosts[name] = append(hosts[name], host.String())
		}
	}
	return hosts
}

func sorted(list []secrets.Secret) []secrets.Secret {
	slices.SortFunc(list, func(a, b secrets.Secret) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
