package core

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/core/sidecarimage"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/delivery"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
)

// The supervise server, as the agent sees it.
const (
	// superviseURL is where it speaks MCP.
	superviseURL = "http://" + RoleSupervise + ":9100/"
	// PolicyFile is where the agent finds its policy, written by root and readable by all.
	PolicyFile = policyDir + "/policy.json"
	// policyDir is root's; of a bottle whose root is read-only it is a tmpfs of policySize bytes.
	policyDir  = inside.Dir + "/policy"
	policySize = 16 << 20
	// superviseServer is its name in the configuration of agents.
	superviseServer = "supervise"
	// PolicyVariable and SuperviseVariable hold them.
	PolicyVariable    = "BOTTLE_POLICY"
	SuperviseVariable = "BOTTLE_SUPERVISE"
)

// superviseConfig is the configuration of the supervise sidecar.
func (l *launch) superviseConfig() *config.Supervise {
	s := l.plan.Supervise
	c := &config.Supervise{
		Agent: l.plan.Agent, Kinds: s.Kinds, Secrets: s.Secrets, File: PolicyFile, Limits: s.Limits,
	}
	if c.Secrets == nil {
		c.Secrets = []string{}
	}
	var egress config.Policy
	if p := l.plan.Egress; p != nil {
		egress.AllowAll, egress.Allow, egress.Routes = p.AllowAll, p.Allow, p.Routes
		c.AllowCIDRs = p.AllowCIDRs(l.facts())
	}
	var gate *config.GitGate
	if l.plan.Git != nil {
		gate = l.plan.Git.Config(l.plan.Agent)
	}
	c.Policy = withGit(egress, gate)
	if slices.Contains(s.Kinds, config.ProposeDockerfile) {
		c.Policy.Dockerfile = l.dockerfile
	}
	return c
}

// withGit completes a policy by what a gate lets be pushed.
func withGit(p config.Policy, gate *config.GitGate) config.Policy {
	p.Git = nil
	if gate != nil {
		for _, r := range gate.Repositories {
			p.Git = append(p.Git, config.GitRule{Name: r.Name, URL: r.URL, Credential: r.Credential != nil, Push: r.Push})
		}
	}
	if p.Allow == nil {
		p.Allow = []policy.Rule{}
	}
	if p.Routes == nil {
		p.Routes = []policy.Route{}
	}
	return p
}

// startSupervise runs the supervise sidecar, which is on the internal network alone, and
// waits until it is ready.
func (l *launch) startSupervise(ctx context.Context) (err error) {
	spec := l.builtInSpec(RoleSupervise, l.network.ID)
	// Proposals are kept in the container, and outlive the process.
	spec.ReadOnly = false
	spec.Command = append(spec.Command, "--restart", "--state", sidecarimage.StateDir)
	encoded, err := json.Marshal(l.superviseConfig())
	if err != nil {
		return err
	}
	l.superviseBox, err = l.runReady(ctx, stepSupervise, spec, delivery.Document{Config: encoded})
	return err
}

// superviseEnv tells the agent's programs where to ask, and where their policy is.
func (l *launch) superviseEnv() map[string]string {
	if l.plan.Supervise == nil {
		return nil
	}
	return map[string]string{PolicyVariable: PolicyFile, SuperviseVariable: superviseURL}
}

// sharePolicy puts the agent's copy of its policy into its container, which was not made with
// it.
func (l *launch) sharePolicy(ctx context.Context) error {
	return sharePolicy(ctx, l.rt, l.container.ID, l.superviseConfig())
}

func sharePolicy(ctx context.Context, rt runtime.Runtime, container string, c *config.Supervise) error {
	text, err := policyText(c)
	if err != nil {
		return err
	}
	return share(ctx, rt, container, PolicyFile, text)
}

// policyText is what the agent's copy of its policy holds.
func policyText(c *config.Supervise) ([]byte, error) {
	text, err := json.MarshalIndent(change.ConfigurationOf(c), "", "  ")
	return append(text, '\n'), err
}

// policyFiles are in the agent's container before it starts: its copy of its policy, which a
// read-only root would keep from being renewed.
func (l *launch) policyFiles() ([]runtime.File, error) {
	if l.plan.Supervise == nil || l.plan.ReadOnly {
		return nil, nil
	}
	text, err := policyText(l.superviseConfig())
	return []runtime.File{{Path: PolicyFile, Mode: 0o644, Content: text}}, err
}
