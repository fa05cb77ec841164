package core

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/core/mcp"
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
	PolicyFile = inside.Tmpfs + "/policy.json"
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

// sharePolicy puts the agent's copy of its policy into its container.
func (l *launch) sharePolicy(ctx context.Context) error {
	return sharePolicy(ctx, l.rt, l.container.ID, l.superviseConfig())
}

func sharePolicy(ctx context.Context, rt runtime.Runtime, container string, c *config.Supervise) error {
	text, err := json.MarshalIndent(change.ConfigurationOf(c), "", "  ")
	if err != nil {
		return err
	}
	return share(ctx, rt, container, PolicyFile, append(text, '\n'))
}

// registerSupervise adds the server to the configuration files of agents: to what the image,
// the workspace or the manifest's files have put there.
func (l *launch) registerSupervise(ctx context.Context) error {
	var files []File
	for _, name := range l.plan.Supervise.MCP {
		target := l.mcpTarget(mcp.Path(name))
		existing, err := readFile(ctx, l.rt, l.container.ID, target)
		if err == nil {
			if existing, err = mcp.Register(name, existing, superviseServer, superviseURL); err != nil {
				err = &oddFileError{err.Error()}
			}
		}
		var odd *oddFileError
		if err != nil && !errors.As(err, &odd) {
			return err
		}
		if err != nil {
			l.report.note(stepRegister, fmt.Sprintf("the supervise server is not registered for %s: %v", name, err))
			continue
		}
		files = append(files, File{Target: target, Mode: 0o644, Content: string(existing)})
	}
	var where []string
	for _, f := range files {
		where = append(where, f.Target)
	}
	l.report.result(stepRegister, strings.Join(where, ", "))
	return place(ctx, l.rt, l.container.ID, fileItems(files, nil, l.user), l.user)
}

// mcpTarget is where a configuration file lies: in the directory that the agent works in, or
// in its home.
func (l *launch) mcpTarget(file string) string {
	rest, ok := strings.CutPrefix(file, mcp.Workspace)
	if !ok {
		return expandHome(file, l.user.Home)
	}
	for _, dir := range []string{l.plan.Workspace.Target, l.plan.WorkDir, l.image.Config.WorkDir} {
		if path.IsAbs(dir) && path.Clean(dir) != "/" {
			return path.Join(dir, rest)
		}
	}
	return path.Join(l.user.Home, rest)
}

// oddFileError is something in the place of a file that bottle does not write to.
type oddFileError struct{ what string }

func (e *oddFileError) Error() string { return e.what }

// readFile reads a small file of a container; one that is not there is empty.
func readFile(ctx context.Context, rt runtime.Runtime, container, name string) ([]byte, error) {
	archive, err := rt.CopyFrom(ctx, container, name)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = archive.Close() }() // it was only read
	tr := tar.NewReader(archive)
	h, err := tr.Next()
	switch {
	case err != nil:
		return nil, err
	case h.Typeflag != tar.TypeReg:
		return nil, &oddFileError{name + " is no regular file"}
	case h.Size > mcp.MaxFile:
		return nil, &oddFileError{fmt.Sprintf("%s has more than %d bytes", name, mcp.MaxFile)}
	}
	var b bytes.Buffer
	_, err = io.Copy(&b, tr)
	return b.Bytes(), err
}
