package manifest

import (
	"reflect"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/bottle-run/bottle/core/mcp"
	"github.com/bottle-run/bottle/sidecar/config"
)

// Supervise lets the agent propose changes of its limits, which a human decides about.
type Supervise struct {
	// Off is set by supervise: false.
	Off     bool            `yaml:"-"`
	Propose []string        `yaml:"propose" doc:"What the agent may propose to change: egress_allow, routes, git_push, dockerfile. Default: what the bottle has of it; routes named here start an egress proxy although there is no route yet."`
	MCP     []string        `yaml:"mcp" doc:"Programs in whose configuration the server is registered: claude, codex, cursor, gemini, opencode, vscode. Default: claude."`
	Image   string          `yaml:"image" doc:"Reference of an image to run instead of the built-in server."`
	Limits  SuperviseLimits `yaml:"limits" doc:"Bounds on what the agent may propose."`
}

// SuperviseLimits bound proposals. Zero means the default.
type SuperviseLimits struct {
	Pending   int64 `yaml:"pending" doc:"Proposals that may wait for an answer. Default: 16." min:"1"`
	PerMinute int64 `yaml:"per_minute" doc:"Proposals that may be made in a minute. Default: 10." min:"1"`
}

// mostProposals bounds both limits.
const mostProposals = 1000

// Proposable are the kinds of changes that a manifest may name.
func Proposable() []string {
	return config.ProposalKinds()
}

// fromNode reads true and false as well as a mapping.
func (s *Supervise) fromNode(d *decoder, n *yaml.Node, path, what string) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!bool" {
		s.Off = n.Value != "true"
		return
	}
	if n.Kind != yaml.MappingNode {
		d.add(pos(n), "%s: want true, false or a mapping, got %s", what, describe(n))
		return
	}
	d.decodeStruct(n, reflect.ValueOf(s).Elem(), path, what)
}

// validateSupervise reports what the shape alone does not.
func (d *decoder) validateSupervise(b Bottle, at string) {
	s := b.Supervise
	if s == nil || s.Off {
		return
	}
	at += "/supervise"
	if d.given(at+"/propose") && len(s.Propose) == 0 {
		d.add(d.positions[at+"/propose"], "propose is empty: name what may be proposed, or leave supervise out")
	}
	d.listOf(at+"/propose", "propose", s.Propose, Proposable())
	d.listOf(at+"/mcp", "mcp", s.MCP, mcp.Names())
	d.notEmpty(at+"/image", "image", s.Image)
	for key, value := range map[string]int64{"pending": s.Limits.Pending, "per_minute": s.Limits.PerMinute} {
		if value > mostProposals {
			d.add(d.positions[at+"/limits/"+key], "%s: want at most %d", key, mostProposals)
		}
	}
}

// listOf reports words of a list that are unknown or named twice.
func (d *decoder) listOf(at, what string, list, known []string) {
	seen := map[string]bool{}
	for i, word := range list {
		p := d.positions[at+"/"+strconv.Itoa(i)]
		switch {
		case !slices.Contains(known, word):
			d.add(p, "%s: %q is not known: %s", what, word, choice(word, known))
		case seen[word]:
			d.add(p, "%s: %s is named twice", what, word)
		}
		seen[word] = true
	}
}
