package core

import (
	"maps"
	"os"
	"slices"
	"strconv"

	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
)

// Supervise is what the agent may propose, and how.
type Supervise struct {
	// Kinds are those of package config.
	Kinds []string `json:"kinds"`
	// Secrets are names of tokens that it may propose to attach to a route.
	Secrets []string `json:"secrets,omitempty"`
	// MCP are programs in whose configuration the server is registered, see package mcp.
	MCP []string `json:"mcp,omitempty"`
	// Image replaces the built-in server.
	Image  string                 `json:"image,omitempty"`
	Limits config.SuperviseLimits `json:"limits"`
}

// defaultMCP is registered where the manifest names no program.
const defaultMCP = "claude"

// supervise makes what the agent may propose: by default what there is something of.
func (p *planner) supervise() {
	s := p.bottle.Supervise
	if s == nil || s.Off {
		return
	}
	plan := Supervise{
		MCP: s.MCP, Image: s.Image,
		Limits: config.SuperviseLimits{Pending: int(s.Limits.Pending), PerMinute: int(s.Limits.PerMinute)},
	}
	if plan.MCP == nil && !p.bottle.ReadOnly {
		plan.MCP = []string{defaultMCP}
	}
	if len(plan.MCP) > 0 && p.bottle.ReadOnly {
		p.atBottle([]string{"supervise", "mcp"}, "mcp: the bottle is read_only: there is no place for a configuration, so write mcp: []")
	}
	policy, git := p.plan.Egress, p.plan.Git
	if policy != nil && policy.Firewall.Engine != manifest.FirewallBuiltin {
		p.atBottle([]string{"supervise"}, "supervise: the policy of a firewall of engine %s cannot be changed while it runs: leave one of them out", policy.Firewall.Engine)
	}
	for _, kind := range manifest.Proposable() {
		at, asked := []string{"supervise", "propose"}, s.Propose == nil
		if i := slices.Index(s.Propose, kind); i >= 0 {
			at, asked = append(at, strconv.Itoa(i)), true
		}
		if !asked {
			continue
		}
		switch {
		case kind == config.ProposeGitPush && git == nil:
			p.unproposable(at, s, "%s: the bottle has no git", kind)
		case kind == config.ProposeDockerfile && p.plan.Image.Build == nil:
			p.unproposable(at, s, "%s: the bottle has no dockerfile: its image is a reference", kind)
		case kind == config.ProposeDockerfile && tooLong(p.plan.Image.Build.Dockerfile):
			p.unproposable(at, s, "%s: the Dockerfile has more than %d bytes", kind, change.MaxDockerfile)
		case (kind == config.ProposeAllow || kind == config.ProposeRoutes) && policy == nil:
			p.unproposable(at, s, "%s: the bottle has no egress: write egress: {} for one that allows nothing yet", kind)
		case kind == config.ProposeRoutes && s.Propose == nil && !policy.HasRoutes():
			// There is no egress proxy, and nobody has asked for one.
		default:
			if kind == config.ProposeRoutes {
				policy.Proposed = true
			}
			plan.Kinds = append(plan.Kinds, kind)
		}
	}
	if len(plan.Kinds) == 0 {
		p.atBottle([]string{"supervise"}, "supervise: there is nothing to propose: the bottle has neither egress nor git, and no dockerfile")
	}
	if policy != nil {
		plan.Secrets = slices.Sorted(maps.Keys(egress.TokenHosts(policy.Routes)))
	}
	p.plan.Supervise = &plan
}

// tooLong reports whether a Dockerfile is too long to be proposed against. One that is not
// there is reported elsewhere.
func tooLong(file string) bool {
	info, err := os.Stat(file)
	return err == nil && info.Size() > change.MaxDockerfile
}

// unproposable reports what the manifest names; by default it is left out.
func (p *planner) unproposable(at []string, s *manifest.Supervise, format string, args ...any) {
	if s.Propose != nil {
		p.atBottle(at, "propose: "+format, args...)
	}
}
