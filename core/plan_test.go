package core_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/manifest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestPlansReadAsTheyShould(t *testing.T) {
	b := wholeBench(t)
	b.env["GH_TOKEN"], b.env["PROXY_PASSWORD"] = "gh-token-value", "proxy-password-value"
	for name, wishes := range map[string]core.Wishes{
		"whole":  {},
		"egress": {Name: "mine"},
		"git":    {Name: "mine"},
		"wishes": {Name: "mine", Command: []string{"sh", "-c", "echo hi"}, Workspace: ptr(""), Env: []string{"OPEN=changed", "TOKEN"}, NoCache: true},
	} {
		manifest := wholeText
		switch name {
		case "egress":
			manifest = egressText
		case "git":
			manifest = planGitText
		}
		plan, secrets := b.plan(manifest, wishes)
		var text bytes.Buffer
		if err := plan.WriteText(&text); err != nil {
			t.Fatal(err)
		}
		text.WriteString("\n")
		enc := json.NewEncoder(&text)
		enc.SetIndent("", "  ")
		if err := enc.Encode(plan); err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintf(&text, "%v %+v %#v\n", secrets, secrets, secrets)
		for _, value := range b.env {
			if strings.Contains(text.String(), value) {
				t.Errorf("%s: a value is shown", name)
			}
		}
		got := strings.ReplaceAll(text.String(), b.dir, "/project")
		golden := filepath.Join("testdata", "plan-"+name+".golden")
		if *update {
			must(t, os.MkdirAll("testdata", 0o755))
			must(t, os.WriteFile(golden, []byte(got), 0o644))
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got; -update rewrites it)\n%s", name, diff)
		}
	}
}

const egressText = `
bottles:
  b:
    image: img
    workspace: false
    egress:
      allow: [example.com, "*.example.org:8443", {host: x.example, ports: [443, 8443]}]
      routes:
        - {id: gh, host: api.github.example, methods: [GET, POST], paths: ["/repos/me/**"], credential: {token: GH_TOKEN, kind: header}}
        - {host: free.example, pass_credentials: true}
    firewall:
      dns: [198.51.100.53]
      allow_cidrs: [198.51.100.0/24]
      proxy: {url: "http://proxy.example:3128", user: me, password: PROXY_PASSWORD}
    secret_hosts: {TOKEN: [api.example]}
    forward: [TOKEN]
agents:
  a: {bottle: b}
`

const planGitText = `
bottles:
  b:
    image: img
    workspace: false
    git:
      web: {url: "https://code.example/team/web.git", credential: {token: GH_TOKEN, username: me}, push: {branches: ["agent/**"], tags: [v*], force: true, delete: true}}
      lib: {url: "git://code.example/lib.git"}
    firewall: {dns: [198.51.100.53], proxy: {url: "http://proxy.example:3128"}}
    secret_hosts: {TOKEN: ["*"]}
    forward: [TOKEN]
agents:
  a: {bottle: b}
`

func TestWhatMayNotLeaveIsRefusedWithItsPlace(t *testing.T) {
	b := newBench(t, map[string]string{"corp.pem": "no certificate\n"})
	b.env["SHARED"] = "a value of both"
	const head = "bottles:\n  b: {image: img, workspace: false, "
	for name, test := range map[string]struct{ text, want string }{
		"an unset token":    {"egress: {routes: [{host: x.test, credential: {token: NOPE}}]}}\n", "bottle.yaml:2:90: token: the variable NOPE is not set: export it"},
		"a wildcard":        {"egress: {allow: [\"*\"]}}\n", "bottle.yaml:2:54: host: pattern"},
		"corporate roots":   {"egress: {}, firewall: {ca_files: corp.pem}}\n", "corp.pem:1: there is no PEM certificate in it"},
		"given to agents":   {"forward: [SHARED], egress: {routes: [{host: x.test, credential: {token: SHARED}}]}}\n", "the agent gets the value of SHARED"},
		"several at once":   {"egress: {allow: [\"*\", \"a b\"]}}\n", "bottle.yaml:2:59: host: "},
		"no way out at all": {"firewall: {dns: [198.51.100.53]}}\n", "bottle.yaml:2:47: firewall has no meaning without egress"},
	} {
		m, err := manifest.Parse(filepath.Join(b.dir, "bottle.yaml"), []byte(head+test.text+"agents:\n  a: {bottle: b}\n"))
		if err == nil {
			_, _, err = core.NewPlan(m, b.host, core.Wishes{})
		}
		if core.KindOf(err) != core.KindInput || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v; want %q", name, err, test.want)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func TestAPlanTouchesNothing(t *testing.T) {
	b := wholeBench(t)
	before := listing(t, b.dir)
	b.plan(wholeText, core.Wishes{})
	if after := listing(t, b.dir); after != before {
		t.Errorf("from\n%s\nto\n%s", before, after)
	}
	if calls := b.Calls(); len(calls) != 0 {
		t.Errorf("the engine was asked: %v", calls)
	}
}

func listing(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	must(t, filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		b.WriteString(name + " " + info.Mode().String() + " " + info.ModTime().String() + "\n")
		return err
	}))
	return b.String()
}

func TestLaterSourcesOfVariablesWin(t *testing.T) {
	b := newBench(t, map[string]string{"one.env": "A=one\nB=one\nC=one\n", "two.env": "B=two\nC=two\nD=two\n"})
	b.env["F"] = "forwarded"
	text := `
bottles:
  b: {image: img, workspace: false, env_file: [one.env, two.env], env: {C: bottle, E: bottle, G: bottle}, forward: [F]}
agents:
  a: {bottle: b, env: {E: agent, F: agent}}
`
	plan, secrets := b.plan(text, core.Wishes{Env: []string{"G=wish"}})
	bottle, err := core.Launch(t.Context(), b.rt, plan, core.LaunchOptions{Secrets: secrets})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"A": "one", "B": "two", "C": "bottle", "D": "two", "E": "agent", "F": "forwarded", "G": "wish"} {
		var out bytes.Buffer
		if _, err := bottle.Exec(t.Context(), core.ExecOptions{Command: []string{"getenv", name}, Stdout: &out}); err != nil || out.String() != want {
			t.Errorf("%s is %q, want %q (%v)", name, out.String(), want, err)
		}
	}
	if diff := cmp.Diff(map[string]string{"C": "bottle", "E": "agent"}, plan.Env); diff != "" {
		t.Errorf("what the engine is told (-want +got)\n%s", diff)
	}
	must(t, bottle.Close(t.Context()))
}

func TestASecretWithoutItsValueStopsTheLaunch(t *testing.T) {
	b := wholeBench(t)
	plan, _ := b.plan(wholeText, core.Wishes{})
	_, err := core.Launch(t.Context(), b.rt, plan, core.LaunchOptions{})
	if core.KindOf(err) != core.KindInput || !strings.Contains(err.Error(), "there is no value for the variable") {
		t.Errorf("got %v", err)
	}
	b.empty()
}

func TestNamesOfBottles(t *testing.T) {
	for agent, want := range map[string]string{
		"claude": "claude", "My_Agent.2": "my-agent-2", "---": "agent", "Ünïcode": "n-code", strings.Repeat("x", 63): strings.Repeat("x", 37),
		strings.Repeat("x", 36) + "-y": strings.Repeat("x", 36),
	} {
		b := newBench(t, nil)
		text := "bottles:\n  b: {image: img, workspace: false}\nagents:\n  a: {bottle: b}\n"
		m := b.manifest(text)
		m.Agents[agent] = m.Agents["a"]
		delete(m.Agents, "a")
		plan, _, err := core.NewPlan(m, b.host, core.Wishes{})
		if err != nil || plan.Name.Base != want || core.CheckName(want+"-99") != nil && len(want) < 38 {
			t.Errorf("%q becomes %q, want %q (%v)", agent, plan.Name.Base, want, err)
		}
	}
	for _, name := range []string{"a", "a-b", "0", strings.Repeat("x", 40)} {
		if err := core.CheckName(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "-a", "a-", "A", "a_b", "a.b", "a/b", strings.Repeat("x", 41)} {
		if core.CheckName(name) == nil {
			t.Errorf("%q passes as a name", name)
		}
	}
}

func TestUnusablePlansAreRefused(t *testing.T) {
	b := newBench(t, map[string]string{"dir/x": "", "file": ""})
	for name, test := range map[string]struct {
		text   string
		wishes core.Wishes
		want   string
	}{
		"two files in one place": {
			"bottles:\n  b: {image: img, workspace: false}\nagents:\n  a: {bottle: b, gitconfig: {user.name: x}, files: [{content: x, target: ~/.gitconfig}]}\n",
			core.Wishes{}, "puts both a gitconfig and a file at ~/.gitconfig",
		},
		"a mode for a directory": {
			"bottles:\n  b: {image: img, workspace: false}\nagents:\n  a: {bottle: b, files: [{source: dir, target: /x, mode: \"0644\"}]}\n",
			core.Wishes{}, "bottle.yaml:4:58: mode: ",
		},
		"a workspace that is a file": {
			"bottles:\n  b: {image: img, workspace: file}\nagents:\n  a: {bottle: b}\n", core.Wishes{}, "bottle.yaml:2:30: workspace: ",
		},
		"a workspace in a read-only bottle": {
			"bottles:\n  b: {image: img, workspace: false, read_only: true}\nagents:\n  a: {bottle: b}\n", core.Wishes{Workspace: ptr("dir")}, "read_only",
		},
		"a Dockerfile that is a directory": {
			"bottles:\n  b: {dockerfile: dir, workspace: false}\nagents:\n  a: {bottle: b}\n", core.Wishes{}, "bottle.yaml:2:19: dockerfile: ",
		},
	} {
		_, _, err := core.NewPlan(b.manifest(test.text), b.host, test.wishes)
		if core.KindOf(err) != core.KindInput || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v; want %q", name, err, test.want)
		}
	}
}
