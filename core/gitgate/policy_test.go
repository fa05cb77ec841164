package gitgate_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/core/gitgate"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/sidecar/config"
)

// bench makes policies of texts: the bottle's keys below "b:".
type bench struct {
	t         *testing.T
	dir       string
	env       map[string]string
	variables map[string]string
}

func newBench(t *testing.T) *bench {
	b := &bench{t: t, dir: t.TempDir(), env: map[string]string{"TOKEN": "token-value-1\n", "EMPTY": "", "SHARED": "shared-value"}, variables: map[string]string{}}
	key, other := b.key("key"), b.key("other")
	b.write("known", knownhosts.Line([]string{"shell.example"}, key)+"\n# a comment\n\n"+knownhosts.Line([]string{"else.example"}, other)+"\n", 0o644)
	b.write("hashed", knownhosts.Line([]string{knownhosts.HashHostname("shell.example")}, key)+"\n"+knownhosts.Line([]string{knownhosts.HashHostname("[shell.example]:2222")}, other)+"\n", 0o644)
	b.write("wild", "@cert-authority "+knownhosts.Line([]string{"*.example"}, key)+"\n", 0o644)
	b.write("broken", knownhosts.Line([]string{"shell.example"}, key)+"\nshell.example ssh-ed25519 nonsense\n", 0o644)
	b.write("text", "no key\n", 0o600)
	b.write("open", b.read("key"), 0o644)
	text, err := locked()
	if err != nil {
		t.Fatal(err)
	}
	b.write("key-locked", string(text), 0o600)
	return b
}

func (b *bench) write(name, text string, mode os.FileMode) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), mode); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) read(name string) string {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(b.dir, name))
	if err != nil {
		b.t.Fatal(err)
	}
	return string(data)
}

// locked is a key with a passphrase. Making one takes its time.
var locked = sync.OnceValues(func() ([]byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("x"))
	return pem.EncodeToMemory(block), err
})

// key makes a private key.
func (b *bench) key(name string) ssh.PublicKey {
	b.t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		b.t.Fatal(err)
	}
	b.write(name, string(pem.EncodeToMemory(block)), 0o600)
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		b.t.Fatal(err)
	}
	return key
}

func (b *bench) make(text string) (*gitgate.Policy, map[string]string, []string) {
	b.t.Helper()
	whole := "bottles:\n  b:\n    image: i\n" + text + "agents:\n  a: {bottle: b}\n"
	m, err := manifest.Parse("m", []byte(whole))
	if err != nil {
		b.t.Fatalf("%v\n%s", err, whole)
	}
	var errs []string
	fail := func(keys []string, format string, args ...any) {
		errs = append(errs, m.Errorf(append([]string{"bottles", "b"}, keys...), format, args...).Error())
	}
	lookup := func(name string) (string, bool) { v, ok := b.env[name]; return v, ok }
	path := func(s string) string { return filepath.Join(b.dir, s) }
	bottle := m.Bottles["b"]
	src := gitgate.Source{Git: bottle.Git, Gate: bottle.GitGate, SecretHosts: bottle.SecretHosts, Variables: b.variables, LookupEnv: lookup, Path: path, Fail: fail}
	other := egress.Source{Egress: bottle.Egress, Firewall: bottle.Firewall, SecretHosts: bottle.SecretHosts, LookupEnv: lookup, Path: path, Fail: fail, FailFile: func(err error) { errs = append(errs, err.Error()) }}
	if bottle.Egress != nil {
		src.Egress, _ = egress.New(other)
		src.Way = src.Egress.Firewall.Way
	} else {
		src.Way, _ = egress.NewWay(other)
	}
	p, secrets := gitgate.New(src)
	return p, secrets, errs
}

func (b *bench) good(text string) (*gitgate.Policy, map[string]string) {
	b.t.Helper()
	p, secrets, errs := b.make(text)
	if len(errs) > 0 {
		b.t.Fatal(strings.Join(errs, "\n"))
	}
	return p, secrets
}

const whole = `    git:
      web:
        url: https://code.example/team/web.git
        credential: {token: TOKEN, username: robot}
        push: {branches: ["agent/**"], tags: [v*], notes: ["**"], force: true, delete: true}
        any_object: true
      shell: {url: "git@shell.example:team/shell", ssh_key: key, known_hosts: [known, wild]}
      bearer: {url: "https://other.example:8443/x", credential: {token: TOKEN, kind: bearer}}
      open: {url: "https://code.example/team/open"}
    git_gate: {image: my-gate, limits: {pack: 32MiB, inflated: 1GiB, objects: 1000, refs: 7}}
    firewall:
      dns: [198.51.100.53]
      allow_cidrs: [198.51.100.0/24]
      proxy: {url: "http://proxy.example:3128", user: me, password: TOKEN}
      scan: {exempt: [{host: code.example, rules: [x]}]}
    secret_hosts: {OPEN: ["*"]}
`

func TestTheGateIsToldWhatTheManifestSays(t *testing.T) {
	b := newBench(t)
	p, secrets := b.good(whole)
	c := p.Config("coder")
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	known := strings.Split(b.read("known"), "\n")[0]
	wild := strings.TrimSpace(b.read("wild"))
	want := &config.GitGate{
		Agent: "coder",
		Repositories: []config.GitRepository{
			{Name: "bearer", URL: "https://other.example:8443/x", Credential: &config.GitCredential{Secret: "TOKEN", Kind: "bearer"}},
			{Name: "open", URL: "https://code.example/team/open"},
			{Name: "shell", URL: "git@shell.example:team/shell", Credential: &config.GitCredential{Secret: "ssh-key:shell", Kind: "ssh-key"}, KnownHosts: []string{known, wild}},
			{
				Name: "web", URL: "https://code.example/team/web.git", Credential: &config.GitCredential{Secret: "TOKEN", Kind: "basic", Username: "robot"}, AnyObject: true,
				Push: &config.GitPush{Branches: []string{"agent/**"}, Tags: []string{"v*"}, Notes: []string{"**"}, Force: true, Delete: true},
			},
		},
		Guard:    config.Guard{DNS: []string{"198.51.100.53"}, AllowCIDRs: p.Way.AllowCIDRs},
		Upstream: config.Upstream{Proxy: "http://proxy.example:3128", ProxyUser: "me", ProxySecret: "TOKEN"},
		Scan:     config.Scan{Exempt: []config.Exemption{{Host: "code.example", Rules: []string{"x"}}}}, Quarantine: gitgate.QuarantineDir,
		Limits: config.GitLimits{Pushes: 2, PackBytes: 32 << 20, InflatedBytes: 1 << 30, Objects: 1000, Refs: 7},
	}
	encode := func(v any) string {
		text, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if diff := cmp.Diff(encode(want), encode(c)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	key := base64.StdEncoding.EncodeToString([]byte(b.read("key")))
	if diff := cmp.Diff(map[string]string{"TOKEN": "token-value-1", "ssh-key:shell": key}, secrets); diff != "" {
		t.Error(diff)
	}
	if text := encode(p) + encode(c); strings.Contains(text, "token-value") || strings.Contains(text, key) || strings.Contains(text, "PRIVATE") {
		t.Errorf("a secret is in the plan or in a configuration: %s", text)
	}
	if p.Image != "my-gate" || p.QuarantineBytes() != 65<<20 || !slices.Equal(p.Tokens(), []string{"TOKEN"}) || !maps.Equal(p.Keys(), map[string]string{"shell": filepath.Join(b.dir, "key")}) || len(p.Settings()) == 0 {
		t.Errorf("%+v", p)
	}
	got := map[string]string{}
	for _, s := range p.Secrets(gitgate.Values{
		Variables: map[string]string{"OPEN": "open-value-1", "CANARY": "canary-value\n", "SHORT": "abc", "TOKEN": "another-value"},
		Tokens:    map[string]string{"TOKEN": "token-value-1", "ssh-key:shell": key, "ROUTE": "value-of-a-route", "TINY": "x"},
	}) {
		got[s.Name] = string(s.Value)
	}
	if diff := cmp.Diff(map[string]string{"TOKEN": "token-value-1", "ssh-key:shell": key, "ROUTE": "value-of-a-route", "CANARY": "canary-value", "variable:TOKEN": "another-value"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestWhatIsNotGivenHasADefault(t *testing.T) {
	p, _ := newBench(t).good("    git: {r: {url: \"https://code.example/r\"}}\n")
	c := p.Config("a")
	if c.Repositories[0].Push != nil || c.Limits.PackBytes != gitgate.DefaultPack || p.QuarantineBytes() != gitgate.Pushes*gitgate.DefaultPack+1<<20 || len(p.Notes) > 0 {
		t.Errorf("%+v, %+v", c, p)
	}
}

func TestKnownHostsAreThoseOfTheServer(t *testing.T) {
	b := newBench(t)
	for name, test := range map[string]struct {
		url, file string
		lines     int
	}{
		"plain":         {"git@shell.example:r", "known", 1},
		"hashed":        {"ssh://shell.example/r", "hashed", 1},
		"hashed, port":  {"ssh://shell.example:2222/r", "hashed", 1},
		"a pattern":     {"ssh://any.example/r", "wild", 1},
		"upper case":    {"ssh://SHELL.example/r", "known", 1},
		"another":       {"ssh://none.test/r", "known", 0},
		"another port":  {"ssh://shell.example:2222/r", "known", 0},
		"of the file's": {"ssh://else.example/r", "known", 1},
	} {
		p, _, errs := b.make(fmt.Sprintf("    git: {r: {url: %q, ssh_key: key, known_hosts: %s}}\n", test.url, test.file))
		if test.lines == 0 {
			if len(errs) != 1 || !strings.Contains(errs[0], "known_hosts: no line names ") {
				t.Errorf("%s: %q", name, errs)
			}
			continue
		}
		if len(errs) > 0 || len(p.Config("a").Repositories[0].KnownHosts) != test.lines {
			t.Errorf("%s: %q, %+v", name, errs, p)
		}
	}
}

func TestMistakesHaveTheirPlace(t *testing.T) {
	const shell = "url: \"git@shell.example:r\", "
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"a file":             {"    git: {r: {url: \"file:///srv/r.git\"}}\n", []string{`m:4:20: url: "file:///srv/r.git" is a directory of this host, which the gate's container does not have`}},
		"http":               {"    git: {r: {url: \"http://code.example/r\"}}\n", []string{"m:4:20: url: http is not encrypted: use https"}},
		"another transport":  {"    git: {r: {url: \"ext::sh -c id\"}}\n", []string{"m:4:20: url: "}},
		"a password in it":   {"    git: {r: {url: \"https://me:pw@code.example/r\"}}\n", []string{"m:4:20: url: the URL holds a password"}},
		"a bad name":         {"    git: {r.git: {url: \"https://code.example/r\"}}\n", []string{`m:4:18: git: "r.git": a name begins`}},
		"an unset variable":  {"    git: {r: {url: \"https://code.example/r\", credential: {token: NONE}}}\n", []string{"m:4:66: token: the variable NONE is not set: export it"}},
		"an empty one":       {"    git: {r: {url: \"https://code.example/r\", credential: {token: EMPTY}}}\n", []string{"m:4:66: token: the variable EMPTY is empty"}},
		"the agent's":        {"    git: {r: {url: \"https://code.example/r\", credential: {token: SHARED}}}\n", []string{"m:4:66: token: the agent gets the value of SHARED as its variable OWN"}},
		"a colon":            {"    git: {r: {url: \"https://code.example/r\", credential: {token: TOKEN, username: \"a:b\"}}}\n", []string{"m:4:83: username: it holds a colon"}},
		"a key over https":   {"    git: {r: {url: \"https://code.example/r\", ssh_key: key}}\n", []string{"m:4:55: ssh_key: it goes with a URL over ssh, and this one is over https"}},
		"a token over ssh":   {"    git: {r: {" + shell + "credential: {token: TOKEN}}}\n", []string{"m:4:55: credential: it goes with a URL over https, and this one is over ssh: ssh takes a key"}},
		"a token over git":   {"    git: {r: {url: \"git://code.example/r\", credential: {token: TOKEN}}}\n", []string{"m:4:56: credential: it goes with a URL over https, and this one is over git: git:// takes none"}},
		"no key":             {"    git: {r: {" + shell + "known_hosts: known}}\n", []string{"m:4:14: ssh_key is missing"}},
		"no known hosts":     {"    git: {r: {" + shell + "ssh_key: key}}\n", []string{"m:4:14: known_hosts is missing"}},
		"an open key":        {"    git: {r: {" + shell + "ssh_key: open, known_hosts: known}}\n", []string{"m:4:52: ssh_key: others can read or write DIR/open (0644): chmod 600 DIR/open"}},
		"a locked key":       {"    git: {r: {" + shell + "ssh_key: key-locked, known_hosts: known}}\n", []string{"m:4:52: ssh_key: DIR/key-locked has a passphrase"}},
		"no key in it":       {"    git: {r: {" + shell + "ssh_key: text, known_hosts: known}}\n", []string{"m:4:52: ssh_key: DIR/text is no private key"}},
		"no such file":       {"    git: {r: {" + shell + "ssh_key: none, known_hosts: none}}\n", []string{"m:4:52: ssh_key: DIR/none: no such file", "m:4:71: known_hosts: DIR/none: no such file"}},
		"broken known hosts": {"    git: {r: {" + shell + "ssh_key: key, known_hosts: [known, broken]}}\n", []string{"m:4:78: known_hosts: DIR/broken:2: this is no line"}},
		"a pattern":          {"    git: {r: {url: \"https://code.example/r\", push: {branches: [ok, refs/heads/x], tags: [\"a b\"]}}}\n", []string{`m:4:68: branches: pattern "refs/heads/x"`, `m:4:90: tags: pattern "a b"`}},
		"one URL twice":      {"    git:\n      a: {url: \"https://code.example/r\"}\n      b: {url: \"https://code.example/r.git\"}\n", []string{"m:6:16: url: the repositories a and b both stand for "}},
		"names that run on":  {"    git:\n      a: {url: \"https://code.example/r\"}\n      a.gitx: {url: \"https://code.example/x\"}\n", []string{"m:6:15: git: the names a and a.gitx could be taken for one another"}},
		"past the gate": {
			"    git: {r: {url: \"https://code.example/r.git\"}}\n    egress: {routes: [{id: all, host: code.example, credential: {token: TOKEN}}]}\n",
			[]string{"m:4:20: url: the route all presents TOKEN to pushes to the repository r that go past the gate"},
		},
		"past it without .git": {
			"    git: {r: {url: \"https://code.example/r.git\"}}\n    egress: {routes: [{id: all, host: code.example, paths: [\"/r/**\"], credential: {token: TOKEN}}]}\n",
			[]string{"m:4:20: url: the route all presents TOKEN"},
		},
		"past ssh": {
			"    git: {r: {" + shell + "ssh_key: key, known_hosts: known}}\n    egress: {routes: [{id: all, host: shell.example, methods: [POST], credential: {token: TOKEN}}]}\n",
			[]string{"m:4:20: url: the route all presents TOKEN"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.variables["OWN"] = "shared-value"
			_, _, errs := b.make(test.text)
			ok := len(errs) == len(test.want)
			for i := range min(len(errs), len(test.want)) {
				ok = ok && strings.HasPrefix(strings.ReplaceAll(errs[i], b.dir, "DIR"), test.want[i])
			}
			if !ok {
				t.Errorf("for\n%s\ngot  %s\nwant %s", test.text, strings.Join(errs, "\n     "), strings.Join(test.want, "\n     "))
			}
		})
	}
}

func TestTheAgentsCopyOfAKeyIsRefused(t *testing.T) {
	b := newBench(t)
	b.variables["KEY"] = strings.TrimSpace(b.read("key"))
	_, _, errs := b.make("    git: {r: {url: \"git@shell.example:r\", ssh_key: key, known_hosts: known}}\n")
	if len(errs) != 1 || !strings.Contains(errs[0], "as its variable KEY") || strings.Contains(errs[0], "PRIVATE") {
		t.Errorf("%q", errs)
	}
}

func TestWaysPastTheGateAreTold(t *testing.T) {
	const repo = "    git: {r: {url: \"https://code.example/r.git\"}}\n"
	for name, test := range map[string]struct{ egress, want string }{
		"nothing":            {"    egress: {}\n", ""},
		"another host":       {"    egress: {allow: [other.example]}\n", ""},
		"another port":       {"    egress: {allow: [\"code.example:8443\"]}\n", ""},
		"the host":           {"    egress: {allow: [code.example]}\n", "egress allows its host code.example as well (allow:code.example)"},
		"every host":         {"    egress: {allow_all: true}\n", "egress allows its host code.example as well (allow-all)"},
		"reading alone":      {"    egress: {routes: [{host: code.example, methods: [GET], credential: {token: TOKEN}}]}\n", ""},
		"other repositories": {"    egress: {routes: [{host: code.example, paths: [\"/x/**\"], credential: {token: TOKEN}}]}\n", ""},
		"the agent's own":    {"    egress: {routes: [{id: own, host: code.example, pass_credentials: true}]}\n", "the route own lets the agent push past the gate"},
	} {
		p, _ := newBench(t).good(repo + test.egress)
		if got := strings.Join(p.Notes, "\n"); test.want == "" && got != "" || !strings.Contains(got, test.want) {
			t.Errorf("%s: %q, want %q", name, got, test.want)
		}
	}
	if p, _ := newBench(t).good("    git: {r: {url: \"git://code.example/r.git\"}}\n"); len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "neither encrypted nor authenticated") {
		t.Errorf("%q", p.Notes)
	}
}

func TestAChangeIsOfWhatMayBePushed(t *testing.T) {
	b := newBench(t)
	p, _ := b.good(whole)
	live := p.Config("coder")
	text, err := gitgate.Section(live)
	if err != nil {
		t.Fatal(err)
	}
	change := func(text string) (*config.GitGate, []string) {
		section, err := manifest.ParsePolicy("s", []byte(text), "a")
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		var errs []string
		c := gitgate.Change(live, section.Git, func(keys []string, format string, args ...any) {
			errs = append(errs, section.Errorf(keys, format, args...).Error())
		})
		return c, errs
	}
	same, errs := change(string(text))
	if diff := cmp.Diff(fmt.Sprintf("%+v", live.Repositories[3].Push), fmt.Sprintf("%+v", same.Repositories[3].Push)); diff != "" || len(errs) > 0 {
		t.Errorf("what is shown is not what can be set: %s%q\n%s", diff, errs, text)
	}
	if strings.Contains(string(text), "value") || strings.Contains(string(text), "PRIVATE") {
		t.Errorf("a secret is shown:\n%s", text)
	}
	const rest = "  shell: {url: \"git@shell.example:team/shell\"}\n  bearer: {url: \"https://other.example:8443/x\"}\n  open: {url: \"https://code.example/team/open\"}\n"
	now, errs := change("git:\n  web: {url: \"https://code.example/team/web.git\", push: {branches: [x]}}\n" + rest)
	if len(errs) > 0 || !slices.Equal(now.Repositories[3].Push.Branches, []string{"x"}) || now.Repositories[3].AnyObject || now.Repositories[3].Credential == nil || live.Repositories[3].Push.Branches[0] != "agent/**" {
		t.Errorf("%q: %+v; it was %+v", errs, now.Repositories[3], live.Repositories[3])
	}
	if len(now.Repositories[2].KnownHosts) == 0 || now.Limits != live.Limits {
		t.Errorf("%+v", now)
	}
	for text, want := range map[string]string{
		"git:\n" + rest: "s:2:3: git: the repository web is missing",
		"git:\n  web: {url: \"https://code.example/team/other\"}\n" + rest:                                               "s:2:14: url: the bottle was launched with https://code.example/team/web.git",
		"git:\n  web: {url: \"https://code.example/team/web.git\", credential: {token: OTHER}}\n" + rest:                 "s:2:63: credential: the bottle was launched with another",
		"git:\n  web: {url: \"https://code.example/team/web.git\", push: {tags: [\"a b\"]}}\n" + rest:                    "s:2:65: tags: pattern",
		"git:\n  new: {url: \"https://code.example/new\"}\n  web: {url: \"https://code.example/team/web.git\"}\n" + rest: "s:2:8: git: the bottle was launched without the repository new",
		"git:\n  web: {url: \"https://code.example/team/web.git\", credential: {token: TOKEN, kind: bearer}}\n" + rest:   "s:2:63: credential: the bottle was launched with another",
	} {
		if _, errs := change(text); len(errs) != 1 || !strings.HasPrefix(errs[0], want) {
			t.Errorf("for\n%s\ngot  %q\nwant %s", text, errs, want)
		}
	}
}
