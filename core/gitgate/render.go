package gitgate

import (
	"cmp"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/delivery"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// QuarantineDir is where the gate keeps packs while it looks at them: a tmpfs of its
// container, of [Policy.QuarantineBytes].
const QuarantineDir = "/run/quarantine"

// quarantineRest is the room beside packs, in bytes.
const quarantineRest = 1 << 20

// QuarantineBytes is the size of the quarantine.
func (p *Policy) QuarantineBytes() int64 {
	return int64(p.Limits.Pushes)*p.Limits.PackBytes + quarantineRest
}

// Config renders the gate's configuration. Agent is the agent's name, for the audit log.
func (p *Policy) Config(agent string) *config.GitGate {
	c := &config.GitGate{Agent: agent, Scan: p.Way.Scan, Quarantine: QuarantineDir, Limits: p.Limits}
	// Not the bottle's own networks: nothing of the gate's is there.
	c.Guard = config.Guard{DNS: p.Way.DNS, AllowCIDRs: p.Way.AllowCIDRs}
	if u := p.Way.Proxy; u != nil {
		c.Upstream.Proxy, c.Upstream.ProxyUser, c.Upstream.ProxySecret = u.URL, u.User, u.Password
	}
	if len(p.Way.Corporate()) > 0 {
		c.Upstream.CAFiles = []string{delivery.Path(delivery.CorporateRoots)}
	}
	for _, r := range p.Repositories {
		c.Repositories = append(c.Repositories, r.render())
	}
	return c
}

func (r *Repository) render() config.GitRepository {
	return config.GitRepository{Name: r.Name, URL: r.URL, Credential: r.Credential, KnownHosts: r.hosts, Push: r.Push, AnyObject: r.AnyObject}
}

// Values are the secrets of a launch.
type Values struct {
	// Variables are the agent's, which no push may hold unless they are open.
	Variables map[string]string
	// Tokens are those of all sidecars, by name. The gate presents some of them, and no
	// push may hold any.
	Tokens map[string]string
}

// Secrets returns what the gate has to know: what it presents, and what it looks for in what
// is pushed.
func (p *Policy) Secrets(v Values) []secrets.Secret {
	needed := p.Tokens()
	for name := range p.Keys() {
		needed = append(needed, KeySecret(name))
	}
	if u := p.Way.Proxy; u != nil && u.Password != "" {
		needed = append(needed, u.Password)
	}
	var list []secrets.Secret
	for name, value := range v.Tokens {
		if slices.Contains(needed, name) || len(value) >= secrets.MinLength {
			list = append(list, secrets.Secret{Name: name, Value: secrets.Value(value)})
		}
	}
	for name, value := range v.Variables {
		if value = strings.TrimRight(value, "\r\n"); len(value) < secrets.MinLength || strings.ContainsRune(value, 0) {
			continue // found by chance
		}
		if slices.Contains(p.Open, name) {
			continue
		}
		if slices.ContainsFunc(list, func(s secrets.Secret) bool { return s.Name == name }) {
			name = "variable:" + name // a token has the name
		}
		list = append(list, secrets.Secret{Name: name, Value: secrets.Value(value)})
	}
	slices.SortFunc(list, func(a, b secrets.Secret) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
