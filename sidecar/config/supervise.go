package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/sidecar/gitgate/ref"
	"github.com/bottle-run/bottle/sidecar/policy"
)

// The kinds of changes that an agent may propose.
const (
	ProposeAllow      = "egress_allow"
	ProposeRoutes     = "routes"
	ProposeGitPush    = "git_push"
	ProposeDockerfile = "dockerfile"
)

// ProposalKinds are all of them.
func ProposalKinds() []string {
	return []string{ProposeAllow, ProposeRoutes, ProposeGitPush, ProposeDockerfile}
}

// Supervise is the configuration of the supervise sidecar.
type Supervise struct {
	// Agent is the name of the agent, for the audit log.
	Agent string `json:"agent"`
	// Listen is the address of the server. Default: ":9100".
	Listen string `json:"listen,omitempty"`
	// Policy is what is in force.
	Policy Policy `json:"policy"`
	// Kinds are the kinds of changes that may be proposed. Nil: all.
	Kinds []string `json:"kinds,omitempty"`
	// Secrets are the names of the secrets that the agent may propose to attach to a
	// route. Others can only be named by the operator.
	Secrets []string `json:"secrets,omitempty"`
	// AllowCIDRs are those of the firewall's guard: addresses that are not public and may
	// be proposed all the same.
	AllowCIDRs []netip.Prefix `json:"allow_cidrs,omitempty"`
	// File is where the agent finds its policy, for the texts that it is shown.
	File   string          `json:"file,omitempty"`
	Limits SuperviseLimits `json:"limits"`
}

// Policy is what an agent may do. It holds no secret, and the agent may read it.
type Policy struct {
	AllowAll bool           `json:"allow_all,omitempty"`
	Allow    []policy.Rule  `json:"allow"`
	Routes   []policy.Route `json:"routes"`
	Git      []GitRule      `json:"git,omitempty"`
	// Dockerfile is the text that the agent's image is built from at the next start of
	// the bottle. Empty if it is not built.
	Dockerfile string `json:"dockerfile,omitempty"`
}

// GitRule is a repository of the git gate.
type GitRule struct {
	Name string `json:"name"`
	URL  string `json:"url"`
	// Credential is whether the gate presents one to the upstream.
	Credential bool     `json:"credential,omitempty"`
	Push       *GitPush `json:"push,omitempty"`
}

// SuperviseLimits bound what the agent may use. Zero means the default.
type SuperviseLimits struct {
	// Pending is how many proposals may wait for an answer. Default: 16.
	Pending int `json:"pending,omitempty"`
	// PerMinute is how many proposals may be made in a minute, those that are refused
	// too. Default: 10.
	PerMinute int `json:"per_minute,omitempty"`
	// Kept is how many answered proposals can be asked about. Default: 100.
	Kept int `json:"kept,omitempty"`
	// Connections at a time. Default: 64.
	Connections int `json:"connections,omitempty"`
	// Waits is how many calls may wait for an answer at a time. Default: 32.
	Waits int `json:"waits,omitempty"`
}

// WithDefaults returns the limits with defaults filled in.
func (l SuperviseLimits) WithDefaults() SuperviseLimits {
	setDefault(&l.Pending, 16)
	setDefault(&l.PerMinute, 10)
	setDefault(&l.Kept, 100)
	setDefault(&l.Connections, 64)
	setDefault(&l.Waits, 32)
	return l
}

// ReadSupervise reads and validates the file of a supervise sidecar.
func ReadSupervise(path string) (*Supervise, error) {
	c := &Supervise{}
	return c, readFile(path, c, c.Validate)
}

// Validate checks everything that can be checked without other files. Its errors are of
// type [*policy.FieldError].
func (c *Supervise) Validate() error {
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			return &policy.FieldError{Path: "listen", Err: fmt.Errorf("%q is not HOST:PORT", c.Listen)}
		}
	}
	for i, kind := range c.Kinds {
		if !slices.Contains(ProposalKinds(), kind) {
			return &policy.FieldError{Path: fmt.Sprintf("kinds[%d]", i), Err: fmt.Errorf("%q is none of %s", kind, strings.Join(ProposalKinds(), ", "))}
		}
	}
	l := c.Limits
	if l.Pending < 0 || l.PerMinute < 0 || l.Kept < 0 || l.Connections < 0 || l.Waits < 0 {
		return &policy.FieldError{Path: "limits", Err: errors.New("a limit is negative")}
	}
	if err := c.Policy.Validate(); err != nil {
		return within("policy.", err)
	}
	return nil
}

// Validate checks a policy as the sidecars that enforce it do. Its errors are of type
// [*policy.FieldError].
func (p *Policy) Validate() error {
	if _, err := policy.NewAllowlist(p.AllowAll, p.Allow); err != nil {
		return within("allow", err)
	}
	if _, err := policy.NewRoutes(p.Routes); err != nil {
		return within("routes", err)
	}
	names := map[string]bool{}
	for i, r := range p.Git {
		at := fmt.Sprintf("git[%d].", i)
		if err := CheckGitName(r.Name); err != nil {
			return &policy.FieldError{Path: at + "name", Err: err}
		}
		if names[r.Name] {
			return &policy.FieldError{Path: at + "name", Err: fmt.Errorf("there is another repository %q", r.Name)}
		}
		names[r.Name] = true
		if r.Push != nil {
			if err := r.Push.Validate(); err != nil {
				return within(at+"push.", err)
			}
		}
	}
	return nil
}

// Validate checks the patterns. Its errors are of type [*policy.FieldError].
func (p *GitPush) Validate() error {
	for _, list := range []struct {
		field    string
		patterns []string
	}{{"branches", p.Branches}, {"tags", p.Tags}, {"notes", p.Notes}} {
		for i, s := range list.patterns {
			if _, err := ref.ParsePattern(s); err != nil {
				return &policy.FieldError{Path: fmt.Sprintf("%s[%d]", list.field, i), Err: err}
			}
		}
	}
	return nil
}
