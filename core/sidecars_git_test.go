package core_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/gitgate"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/delivery"
)

const gitText = `
bottles:
  dev:
    image: img
    workspace: false
    forward: [CANARY]
    env: {OPEN: visible}
    git:
      web: {url: "https://code.test/web.git", credential: {token: TOKEN}, push: {branches: ["agent/**"]}}
agents: {coder: {bottle: dev}}
`

func valuesOf(d delivery.Document) map[string]string {
	m := map[string]string{}
	for _, secret := range d.Secrets {
		m[secret.Name] = string(secret.Value)
	}
	return m
}

func TestGitAloneNeedsTheGateAlone(t *testing.T) {
	b, s := sealedBench(t)
	bottle, err := b.launchSealed(t.Context(), gitText)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(s.ready, []string{core.RoleGitGate}) {
		t.Errorf("ready: %q", s.ready)
	}
	gate, err := b.Snapshot("bottle-coder.git-gate")
	if err != nil {
		t.Fatal(err)
	}
	spec := gate.Spec
	quarantine := slices.IndexFunc(spec.Tmpfs, func(m runtime.Tmpfs) bool { return m.Target == gitgate.QuarantineDir })
	if !spec.ReadOnly || spec.User != "65532:65532" || len(spec.Networks) != 2 || !slices.Equal(spec.Networks[0].Aliases, []string{gitgate.Host}) || len(spec.Networks[1].Aliases) != 0 ||
		len(spec.Files) != 0 || len(spec.Env) != 0 || spec.AutoRemove || len(spec.Capabilities) != 0 || !slices.Equal(spec.Command, []string{"git-gate", "--stdin"}) {
		t.Errorf("%+v", spec)
	}
	if quarantine < 0 || spec.Tmpfs[quarantine].Size != 257<<20 || spec.Limits.Memory != 512<<20+257<<20 {
		t.Errorf("the quarantine does not fit: %+v, %+v", spec.Tmpfs, spec.Limits)
	}
	doc := s.put[core.RoleGitGate]
	if got := valuesOf(doc); got["TOKEN"] != "token-value-kestrel" || got["CANARY"] != "canary-value-kestrel" || len(got) != 2 || doc.CAKey != "" {
		t.Errorf("%d secrets, authority %v", len(got), doc.CAKey != "")
	}
	var c config.GitGate
	if err := json.Unmarshal(doc.Config, &c); err != nil || c.Agent != "coder" || c.Quarantine != gitgate.QuarantineDir || len(c.Repositories) != 1 {
		t.Errorf("%v: %s", err, doc.Config)
	}
	// The subnet of the bottle is not among what the gate may dial.
	if len(c.Guard.AllowCIDRs) != 0 {
		t.Errorf("the gate may dial %v", c.Guard.AllowCIDRs)
	}
	agent, err := b.Snapshot("bottle-coder")
	if err != nil {
		t.Fatal(err)
	}
	env := agent.Spec.Env
	if env["GIT_CONFIG_COUNT"] == "" || env["GIT_CONFIG_KEY_0"] != "protocol.git.allow" || env["OPEN"] != "visible" || env["http_proxy"] != "" || env["SSL_CERT_FILE"] != "" || len(agent.Spec.Files) != 1 {
		t.Errorf("the agent: %v, %d files", env, len(agent.Spec.Files))
	}
	if agent.Spec.Labels[core.LabelSidecars] != core.RoleGitGate || len(agent.Spec.Networks) != 1 {
		t.Errorf("%+v", agent.Spec)
	}
	for _, e := range b.events {
		if strings.Contains(e.Text+e.Error, "kestrel") {
			t.Errorf("a secret is told: %+v", e)
		}
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.empty()
}

func TestGitGoesWithAWayOut(t *testing.T) {
	b, s := sealedBench(t)
	b.env["ROUTE_TOKEN"] = "route-token-kestrel"
	bottle, err := b.launchSealed(t.Context(), strings.Replace(gitText, "    git:\n", "    egress:\n      allow: [code.test]\n      routes: [{host: api.test, credential: {token: ROUTE_TOKEN}}]\n    firewall: {dns: [198.51.100.53]}\n    git:\n", 1))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(s.ready)
	if !slices.Equal(s.ready, []string{core.RoleEgressProxy, core.RoleFirewall, core.RoleGitGate}) {
		t.Errorf("ready: %q", s.ready)
	}
	// What one presents nobody may send through another; each gets what it presents itself.
	gate, firewall, proxy := valuesOf(s.put[core.RoleGitGate]), valuesOf(s.put[core.RoleFirewall]), valuesOf(s.put[core.RoleEgressProxy])
	if gate["TOKEN"] == "" || gate["ROUTE_TOKEN"] == "" || gate["CANARY"] == "" || firewall["TOKEN"] == "" || firewall["ROUTE_TOKEN"] == "" || proxy["TOKEN"] != "" || proxy["ROUTE_TOKEN"] == "" {
		t.Errorf("gate %v, firewall %v, egress proxy %v", len(gate), len(firewall), len(proxy))
	}
	for _, secret := range s.put[core.RoleFirewall].Secrets {
		if secret.Name == "TOKEN" && len(secret.Hosts) > 0 {
			t.Errorf("the credential of git may go to %q", secret.Hosts)
		}
	}
	if !strings.Contains(string(s.put[core.RoleGitGate].Config), "198.51.100.53") {
		t.Errorf("the gate does not know the DNS server: %s", s.put[core.RoleGitGate].Config)
	}
	agent, err := b.Snapshot("bottle-coder")
	if err != nil {
		t.Fatal(err)
	}
	env := agent.Spec.Env
	if env["no_proxy"] != "localhost,127.0.0.1,::1,git-gate" || env["NO_PROXY"] != env["no_proxy"] || env["http_proxy"] == "" || env["GIT_CONFIG_COUNT"] == "" ||
		agent.Spec.Labels[core.LabelSidecars] != "firewall,egress-proxy,git-gate" {
		t.Errorf("%v, %v", env, agent.Spec.Labels)
	}
	// The operator is told that there is a way past the gate.
	if !slices.ContainsFunc(b.events, func(e core.Event) bool { return strings.Contains(e.Text, "egress allows its host code.test as well") }) {
		t.Error("nobody is told of the way past the gate")
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.empty()
}

func TestAGateThatIsNotReadyIsTheLaunchsError(t *testing.T) {
	b, s := sealedBench(t)
	s.refuse[core.RoleGitGate] = "repositories[0].url: no"
	_, err := b.launchSealed(t.Context(), gitText)
	if err == nil || !strings.Contains(err.Error(), "the git gate is not ready") || !strings.Contains(err.Error(), "repositories[0].url: no") {
		t.Errorf("%v", err)
	}
	b.empty()
}

func TestSettingsOfTheImageAreGoneOnFrom(t *testing.T) {
	b, _ := sealedBench(t)
	image := func(count string) {
		b.AddImage("img", runtime.ImageConfig{User: "robot", Env: []string{"PATH=/bin", "GIT_CONFIG_COUNT=" + count, "GIT_CONFIG_KEY_0=user.name", "GIT_CONFIG_VALUE_0=x"}, Cmd: []string{"/bin/agent"}}, nil,
			map[string]string{"/etc/passwd": passwd, "/bin/agent": "", "/home/robot/.keep": ""})
	}
	image("1")
	bottle, err := b.launchSealed(t.Context(), gitText)
	if err != nil {
		t.Fatal(err)
	}
	agent, err := b.Snapshot("bottle-coder")
	if err != nil {
		t.Fatal(err)
	}
	if env := agent.Spec.Env; env["GIT_CONFIG_KEY_1"] != "protocol.git.allow" || env["GIT_CONFIG_KEY_0"] != "" {
		t.Errorf("%v", env)
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, _ = sealedBench(t)
	image("many")
	if _, err := b.launchSealed(t.Context(), gitText); err == nil || !strings.Contains(err.Error(), `the image sets GIT_CONFIG_COUNT to "many"`) {
		t.Errorf("%v", err)
	}
	b.empty()
}

// sshBench is a bench with a key and known hosts, and a manifest that names them.
func sshBench(t *testing.T) *bench {
	t.Helper()
	b, _ := sealedBench(t)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	block, err := ssh.MarshalPrivateKey(private, "")
	must(t, err)
	key, err := ssh.NewPublicKey(public)
	must(t, err)
	b.write("work/keys/deploy", string(pem.EncodeToMemory(block)))
	must(t, os.Chmod(filepath.Join(b.dir, "work/keys/deploy"), 0o600))
	b.write("known", knownhosts.Line([]string{"shell.test"}, key)+"\n")
	return b
}

const sshText = `
bottles:
  dev:
    image: img
    workspace: WORKSPACE
    git:
      shell: {url: "git@shell.test:r", ssh_key: work/keys/deploy, known_hosts: known}
agents: {coder: {bottle: dev FILES}}
`

func TestTheAgentGetsNoKey(t *testing.T) {
	text := func(workspace, files string) string {
		return strings.NewReplacer("WORKSPACE", workspace, " FILES", files).Replace(sshText)
	}
	b := sshBench(t)
	_, err := b.launchSealed(t.Context(), text("work", ""))
	if core.KindOf(err) != core.KindInput || !strings.Contains(err.Error(), "/work/keys/deploy, the key of the repository shell, in its copy of ") {
		t.Errorf("in the workspace: %v", err)
	}
	b.empty()
	_, err = b.launchSealed(t.Context(), text("false", ", files: [{source: work/keys, target: /keys}]"))
	if core.KindOf(err) != core.KindInput || !strings.Contains(err.Error(), "keep it elsewhere") {
		t.Errorf("in a directory of files: %v", err)
	}
	b.empty()
	// By whatever name.
	must(t, os.Link(filepath.Join(b.dir, "work/keys/deploy"), filepath.Join(b.dir, "linked")))
	_, _, err = core.NewPlan(b.manifest(text("false", ", files: [{source: linked, target: /key}]")), b.host, core.Wishes{})
	if err == nil || !strings.Contains(err.Error(), "source: this is the key of the repository shell") {
		t.Errorf("as a file: %v", err)
	}
	b.write("work/.bottleignore", "keys\n")
	bottle, err := b.launchSealed(t.Context(), text("work", ""))
	if err != nil {
		t.Fatal(err)
	}
	if err := bottle.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.empty()
}

func TestWhatWouldTakeTheGatesPlaceIsRefused(t *testing.T) {
	b, _ := sealedBench(t)
	for name, test := range map[string]struct {
		wish string
		want string
	}{
		"settings":  {"GIT_CONFIG_KEY_0=x", "bottle.yaml:9:7: git: the agent's variable GIT_CONFIG_KEY_0 would take the place"},
		"count":     {"GIT_CONFIG_COUNT=0", "the agent's variable GIT_CONFIG_COUNT"},
		"protocols": {"GIT_ALLOW_PROTOCOL=https:ssh", "GIT_ALLOW_PROTOCOL leaves out git"},
		"fine":      {"GIT_ALLOW_PROTOCOL=https:git", ""},
		"the token": {"COPY=token-value-kestrel", "the agent gets the value of TOKEN as its variable COPY"},
	} {
		_, _, err := core.NewPlan(b.manifest(gitText), b.host, core.Wishes{Env: []string{test.wish}})
		if test.want == "" && err != nil || test.want != "" && (core.KindOf(err) != core.KindInput || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v; want %q", name, err, test.want)
		}
	}
	// What is wrong with the way is told once, whoever goes it.
	for _, with := range []string{"", "    egress: {}\n"} {
		m, err := manifest.Parse(filepath.Join(b.dir, "bottle.yaml"), []byte(strings.Replace(gitText, "    git:\n", with+"    firewall: {dns: [x]}\n    git:\n", 1)))
		must(t, err)
		if _, _, err := core.NewPlan(m, b.host, core.Wishes{}); err == nil || strings.Count(err.Error(), "is no IP address") != 1 {
			t.Errorf("with %q: %v", with, err)
		}
	}
}
