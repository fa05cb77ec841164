package egress

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/bottle-run/bottle/sidecar/policy"
)

// Places in the container of a pipelock.
const (
	pipelockConfig = "/etc/pipelock/pipelock.yaml"
	pipelockCert   = "/etc/pipelock/ca.pem"
	pipelockKey    = "/etc/pipelock/ca-key.pem"
)

// maxTunnel is as long as pipelock lets one tunnel live, in seconds: it knows a total
// limit only, and a day is none in practice.
const maxTunnel = 24 * 60 * 60

// pipelock refuses what pipelock cannot be told: it would not be enforced.
func (b *builder) pipelock() {
	refuse := func(given bool, keys []string, why string) {
		if given {
			b.Fail(keys, "%s: %s", lastWord(keys), why)
		}
	}
	f := b.Firewall
	e := b.Egress
	refuse(len(e.Routes) > 0, key("egress", "routes"), "pipelock cannot tell the egress proxy from the agent, which could go past the routes: use the built-in firewall")
	refuse(e.AllowAll, key("egress", "allow_all"), "pipelock is run with its allowlist alone: name the hosts, or use the built-in firewall")
	refuse(len(e.Allow) == 0 && !e.AllowAll, key("egress"), "pipelock needs at least one host to allow: name one in allow, or leave egress out")
	hosts := map[string]bool{}
	for _, a := range e.Allow {
		if h, err := policy.ParseHostPattern(a.Host); err == nil {
			hosts[h.String()] = true
		}
	}
	for i, a := range e.Allow {
		at := key("egress", "allow", i)
		h, err := policy.ParseHostPattern(a.Host)
		refuse(len(a.Ports) > 0, append(slices.Clone(at), "ports"), "pipelock does not look at ports: leave them out, or use the built-in firewall")
		if _, withPort := policy.NewAllowlist(false, []policy.Rule{{Host: a.Host}}); err != nil {
			refuse(withPort == nil, append(slices.Clone(at), "host"), "pipelock does not look at ports: leave it out, or use the built-in firewall")
			continue
		}
		apex, wild := strings.CutPrefix(h.String(), "*.")
		refuse(wild && !hosts[apex], append(slices.Clone(at), "host"), fmt.Sprintf("pipelock takes %s for %s as well: name that too if it is meant", h, apex))
	}
	refuse(len(f.DNS) > 0, key("firewall", "dns"), "pipelock asks the container's own servers alone")
	refuse(f.Proxy != nil, key("firewall", "proxy"), "pipelock knows no upstream proxy")
	refuse(len(f.CAFiles) > 0, key("firewall", "ca_files"), "pipelock trusts the roots of its image alone: add them there")
	refuse(len(f.Scan.Disable) > 0, key("firewall", "scan", "disable"), "these are rules of the built-in firewall, and pipelock has its own")
	refuse(len(f.Scan.Exempt) > 0, key("firewall", "scan", "exempt"), "these are rules of the built-in firewall, and pipelock has its own")
	refuse(f.Limits.Connections > 0, key("firewall", "limits", "connections"), "pipelock has no such limit")
	refuse(f.Limits.HeaderBytes > 0, key("firewall", "limits", "header_bytes"), "pipelock has no such limit")
	refuse(f.Limits.HeaderTimeout > 0, key("firewall", "limits", "header_timeout"), "pipelock has no such limit")
	refuse(len(b.SecretHosts) > 0, key("secret_hosts"), "pipelock is not told the bottle's secrets, so it looks for none of them: leave it out, or use the built-in firewall")
}

// Foreign is a firewall that does not speak our protocol: how its container is started,
// and how to see that it is ready.
type Foreign struct {
	// Command is given to the image's entrypoint.
	Command []string
	// Files are put in before it starts. They hold the authority's key.
	Files []ForeignFile
	// Health is the path that answers 200 when it is ready, on the proxy's port.
	Health string
}

// ForeignFile is one file.
type ForeignFile struct {
	Path    string
	Mode    uint32
	Content []byte
}

// The YAML of pipelock, version 1 of its schema, as far as it is used. pipelock refuses
// keys that it does not know: no more is written than is needed.
type pipelockFile struct {
	Version       int      `yaml:"version"`
	Mode          string   `yaml:"mode"`
	Enforce       bool     `yaml:"enforce"`
	ExplainBlocks bool     `yaml:"explain_blocks"`
	APIAllowlist  []string `yaml:"api_allowlist"`
	FetchProxy    struct {
		Listen string `yaml:"listen"`
	} `yaml:"fetch_proxy"`
	ForwardProxy struct {
		Enabled            bool  `yaml:"enabled"`
		MaxTunnelSeconds   int64 `yaml:"max_tunnel_seconds"`
		IdleTimeoutSeconds int64 `yaml:"idle_timeout_seconds"`
		SNIVerification    bool  `yaml:"sni_verification"`
	} `yaml:"forward_proxy"`
	TLSInterception struct {
		Enabled bool   `yaml:"enabled"`
		CACert  string `yaml:"ca_cert"`
		CAKey   string `yaml:"ca_key"`
	} `yaml:"tls_interception"`
	SSRF struct {
		IPAllowlist []string `yaml:"ip_allowlist"`
	} `yaml:"ssrf"`
	RequestBodyScanning struct {
		Enabled     bool   `yaml:"enabled"`
		Action      string `yaml:"action"`
		ScanHeaders bool   `yaml:"scan_headers"`
	} `yaml:"request_body_scanning"`
	DLP struct {
		// ScanEnv would look for the values of the container's own variables, which are
		// not the agent's.
		ScanEnv         bool `yaml:"scan_env"`
		IncludeDefaults bool `yaml:"include_defaults"`
	} `yaml:"dlp"`
}

// Pipelock renders what a pipelock needs. Cert and key are those of the authority that
// signs what the agent is presented with; pipelock takes an EC PRIVATE KEY block alone.
//
// What is not said is pipelock's default: its own rules, rate limits and bounds apply.
// Hosts may be reached on every port, and wildcards match the name below which they are.
func (p *Policy) Pipelock(f Facts, cert, key []byte) (Foreign, error) {
	var c pipelockFile
	c.Version, c.Mode, c.Enforce, c.ExplainBlocks = 1, "strict", true, true
	c.APIAllowlist = []string{}
	for _, a := range p.Allow {
		h, err := policy.ParseHostPattern(a.Host)
		if err != nil {
			return Foreign{}, fmt.Errorf("rendering the configuration of pipelock: %w", err)
		}
		c.APIAllowlist = append(c.APIAllowlist, h.String())
	}
	c.FetchProxy.Listen = "0.0.0.0" + listen
	idle := time.Duration(p.Firewall.Limits.WithDefaults().IdleTimeout)
	c.ForwardProxy.Enabled, c.ForwardProxy.SNIVerification = true, true
	c.ForwardProxy.MaxTunnelSeconds, c.ForwardProxy.IdleTimeoutSeconds = maxTunnel, max(1, int64(idle/time.Second))
	c.TLSInterception.Enabled, c.TLSInterception.CACert, c.TLSInterception.CAKey = true, pipelockCert, pipelockKey
	c.SSRF.IPAllowlist = []string{}
	for _, prefix := range p.Firewall.AllowCIDRs {
		c.SSRF.IPAllowlist = append(c.SSRF.IPAllowlist, prefix.String())
	}
	if f.Subnet.IsValid() {
		c.SSRF.IPAllowlist = append(c.SSRF.IPAllowlist, f.Subnet.Masked().String())
	}
	scan := !p.Firewall.Scan.Off
	c.RequestBodyScanning.Enabled, c.RequestBodyScanning.Action, c.RequestBodyScanning.ScanHeaders = scan, "block", scan
	c.DLP.IncludeDefaults = scan
	var text bytes.Buffer
	enc := yaml.NewEncoder(&text)
	enc.SetIndent(2)
	if err := enc.Encode(c); err != nil {
		return Foreign{}, fmt.Errorf("rendering the configuration of pipelock: %w", err)
	}
	return Foreign{
		Command: []string{"run", "--config", pipelockConfig},
		Health:  "/health",
		Files: []ForeignFile{
			{Path: pipelockConfig, Mode: 0o600, Content: text.Bytes()},
			{Path: pipelockCert, Mode: 0o600, Content: cert},
			{Path: pipelockKey, Mode: 0o600, Content: key},
		},
	}, nil
}
