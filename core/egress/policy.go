package egress

import (
	"bytes"
	"net/netip"
	"slices"

	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
)

// Policy is what may leave a bottle and by which way. It is made by [New] and holds no
// secret, only names of secrets.
type Policy struct {
	// AllowAll allows every host that neither Allow nor Routes name.
	AllowAll bool          `json:"allow_all,omitempty"`
	Allow    []policy.Rule `json:"allow,omitempty"`
	// Routes name their tokens by the host's variables.
	Routes []policy.Route `json:"routes,omitempty"`
	// Image replaces the built-in egress proxy.
	Image    string   `json:"image,omitempty"`
	Firewall Firewall `json:"firewall"`
	// Proposed is whether routes may be added while the bottle runs, so that it has an
	// egress proxy although there is none yet.
	Proposed bool `json:"proposed,omitempty"`
	// SecretHosts says where the values of the agent's secret variables may go.
	SecretHosts map[string][]string `json:"secret_hosts,omitempty"`
}

// Firewall says by which way it leaves.
type Firewall struct {
	// Engine is manifest.FirewallBuiltin or manifest.FirewallPipelock.
	Engine string `json:"engine"`
	// Image replaces the built-in firewall.
	Image string `json:"image,omitempty"`
	Way
	Limits config.Limits `json:"limits"`
}

// Way is how the world is reached, whoever reaches it.
type Way struct {
	DNS        []string       `json:"dns,omitempty"`
	AllowCIDRs []netip.Prefix `json:"allow_cidrs,omitempty"`
	Proxy      *Proxy         `json:"proxy,omitempty"`
	// CAFiles are the absolute paths of further roots; see [Way.Corporate].
	CAFiles []string    `json:"ca_files,omitempty"`
	Scan    config.Scan `json:"scan"`

	corporate []ca.File
}

// Proxy is a proxy between the firewall and the world.
type Proxy struct {
	URL  string `json:"url"`
	User string `json:"user,omitempty"`
	// Password is the name of the host's variable that holds it.
	Password string `json:"password,omitempty"`
}

// HasRoutes reports whether there is an egress proxy in front of the firewall.
func (p *Policy) HasRoutes() bool { return len(p.Routes) > 0 || p.Proposed }

// Corporate returns the further roots, as they were when the policy was made.
func (p *Policy) Corporate() []ca.File { return p.Firewall.Corporate() }

// CorporatePEM returns the same as one file.
func (p *Policy) CorporatePEM() []byte { return p.Firewall.CorporatePEM() }

// Corporate returns the further roots, as they were when the way was made.
func (w *Way) Corporate() []ca.File { return w.corporate }

// CorporatePEM returns the same as one file.
func (w *Way) CorporatePEM() []byte {
	var all bytes.Buffer
	for _, f := range w.corporate {
		all.Write(f.Data)
		if n := len(f.Data); n > 0 && f.Data[n-1] != '\n' {
			all.WriteByte('\n')
		}
	}
	return all.Bytes()
}

// Tokens returns the names of the host's variables that the sidecars need, sorted.
func (p *Policy) Tokens() []string {
	var names []string
	for _, r := range p.Routes {
		if r.Credential != nil {
			names = append(names, r.Credential.Secret)
		}
	}
	if p.Firewall.Proxy != nil && p.Firewall.Proxy.Password != "" {
		names = append(names, p.Firewall.Proxy.Password)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
