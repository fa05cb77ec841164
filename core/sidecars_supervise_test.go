package core_test

import (
	"archive/tar"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/sidecar/config"
)

const askingText = `
bottles:
  dev:
    image: img
    workspace: false
    supervise: {propose: [egress_allow, routes], mcp: [claude, cursor], limits: {pending: 3}}
    egress: {allow: [a.test]}
agents: {coder: {bottle: dev}}
`

func TestTheAgentMayAsk(t *testing.T) {
	b, s := sealedBench(t)
	bottle, err := b.launchSealed(t.Context(), askingText)
	if err != nil {
		t.Fatal(err)
	}
	// Routes may be proposed: there is an egress proxy although there is none yet.
	if got := slices.Sorted(slices.Values(s.ready)); !slices.Equal(got, []string{core.RoleEgressProxy, core.RoleFirewall, core.RoleSupervise}) {
		t.Errorf("ready: %q", got)
	}
	asked, err := b.Snapshot("bottle-coder.supervise")
	if err != nil {
		t.Fatal(err)
	}
	spec := asked.Spec
	if len(spec.Networks) != 1 || !slices.Equal(spec.Networks[0].Aliases, []string{core.RoleSupervise}) || spec.User != "65532:65532" || spec.ReadOnly ||
		!slices.Equal(spec.Command, []string{"supervise", "--stdin", "--restart", "--state", "/var/lib/bottle"}) || len(spec.Capabilities) != 0 || len(spec.Env) != 0 {
		t.Errorf("%+v", spec)
	}
	doc := s.put[core.RoleSupervise]
	var c config.Supervise
	if err := json.Unmarshal(doc.Config, &c); err != nil {
		t.Fatal(err)
	}
	if len(doc.Secrets) != 0 || doc.CAKey != "" || c.Agent != "coder" || !slices.Equal(c.Kinds, []string{"egress_allow", "routes"}) || c.Limits.Pending != 3 ||
		c.File != core.PolicyFile || len(c.Policy.Allow) != 1 || len(c.Policy.Routes) != 0 || len(c.AllowCIDRs) != 1 {
		t.Errorf("%s", doc.Config)
	}
	for _, role := range []string{core.RoleFirewall, core.RoleEgressProxy} {
		if !strings.Contains(string(s.put[role].Config), `"supervise":"http://supervise:9100/"`) {
			t.Errorf("the denials of the %s do not say where to ask: %s", role, s.put[role].Config)
		}
	}
	agent, err := b.Snapshot("bottle-coder")
	if err != nil {
		t.Fatal(err)
	}
	env := agent.Spec.Env
	if !strings.HasSuffix(env["NO_PROXY"], ",supervise") || env[core.SuperviseVariable] != "http://supervise:9100/" || env[core.PolicyVariable] != core.PolicyFile {
		t.Errorf("%v", env)
	}
	for file, holds := range map[string]string{
		core.PolicyFile:                `"host": "a.test"`,
		"/home/robot/.mcp.json":        `"url": "http://supervise:9100/"`,
		"/home/robot/.cursor/mcp.json": `"supervise"`,
	} {
		if text := readBack(t, bottle, file); !strings.Contains(text, holds) {
			t.Errorf("%s: %s", file, text)
		}
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.empty()
}

// readBack reads a file of a bottle.
func readBack(t *testing.T, b *core.Bottle, name string) string {
	t.Helper()
	archive, err := b.CopyFrom(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	tr := tar.NewReader(archive)
	if _, err := tr.Next(); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(tr)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestWhatCannotBeProposedIsRefusedWithItsPlace(t *testing.T) {
	for name, tc := range map[string]struct{ section, says string }{
		"nothing to propose": {"supervise: true", "there is nothing to propose"},
		"routes, no egress":  {"supervise: {propose: [routes]}", "routes: the bottle has no egress"},
		"git_push, no git":   {"egress: {}\n    supervise: {propose: [egress_allow, git_push]}", "git_push: the bottle has no git"},
		"another firewall":   {"egress: {}\n    firewall: {engine: pipelock, image: p}\n    supervise: true", "cannot be changed while it runs"},
		"a read-only bottle": {"egress: {}\n    read_only: true\n    supervise: {mcp: [claude]}", "mcp: the bottle is read_only"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			text := "bottles:\n  dev:\n    image: img\n    workspace: false\n    " + tc.section + "\nagents: {coder: {bottle: dev}}\n"
			_, _, err := core.NewPlan(b.manifest(text), b.host, core.Wishes{})
			if err == nil || !strings.Contains(err.Error(), tc.says) || core.KindOf(err) != core.KindInput {
				t.Errorf("got %v, want it to say %q", err, tc.says)
			}
		})
	}
}
