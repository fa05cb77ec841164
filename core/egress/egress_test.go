package egress

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// bench makes policies of texts: the bottle's keys below "b:".
type bench struct {
	t         *testing.T
	dir       string
	env       map[string]string
	variables map[string]string
}

func newBench(t *testing.T) *bench {
	return &bench{t: t, dir: t.TempDir(), env: map[string]string{}, variables: map[string]string{}}
}

func (b *bench) make(text string) (*Policy, map[string]string, []string) {
	b.t.Helper()
	whole := "bottles:\n  b:\n    image: i\n" + text + "agents:\n  a: {bottle: b}\n"
	m, err := manifest.Parse("m", []byte(whole))
	if err != nil {
		b.t.Fatalf("%v\n%s", err, whole)
	}
	var errs []string
	bottle := m.Bottles["b"]
	p, tokens := New(Source{
		Egress: bottle.Egress, Firewall: bottle.Firewall, SecretHosts: bottle.SecretHosts, Variables: b.variables,
		LookupEnv: func(name string) (string, bool) { v, ok := b.env[name]; return v, ok },
		Path:      func(s string) string { return filepath.Join(b.dir, s) },
		Fail: func(keys []string, format string, args ...any) {
			errs = append(errs, m.Errorf(append([]string{"bottles", "b"}, keys...), format, args...).Error())
		},
		FailFile: func(err error) { errs = append(errs, err.Error()) },
	})
	return p, tokens, errs
}

func (b *bench) good(text string) (*Policy, map[string]string) {
	b.t.Helper()
	p, tokens, errs := b.make(text)
	if len(errs) > 0 {
		b.t.Fatal(strings.Join(errs, "\n"))
	}
	return p, tokens
}

func authority(t *testing.T) *ca.Authority {
	t.Helper()
	a, err := ca.New(ca.Spec{Name: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s (-want +got; -update rewrites it)\n%s", name, diff)
	}
}

const whole = `    egress:
      allow:
        - example.com
        - "*.example.org:8443"
        - {id: both, host: x.example, ports: [443, 8443]}
      routes:
        - {id: gh, host: api.github.example, methods: [GET], paths: ["/repos/me/**"], credential: {token: TOKEN}}
        - {host: "git.example:8443", credential: {token: TOKEN, kind: basic, username: me}}
        - {host: free.example, pass_credentials: true}
    firewall:
      dns: [198.51.100.53]
      allow_cidrs: [198.51.100.0/24]
      proxy: {url: "http://proxy.example:3128", user: me, password: PASSWORD}
      ca_files: [corp.pem]
      scan: {disable: [x-rule], exempt: [{host: a.example, rules: [y-rule]}]}
      limits: {connections: 10, header_bytes: 32KiB, header_timeout: 10s, idle_timeout: 5m}
    secret_hosts: {KEY: [api.example, "*.api.example"], TERM: ["*"]}
`

func TestConfigurationsAreWhatTheManifestSays(t *testing.T) {
	b := newBench(t)
	b.env = map[string]string{"TOKEN": "token-value-1\n", "PASSWORD": "password-value"}
	b.variables = map[string]string{"KEY": "key-value-1", "TERM": "xterm-256color", "SHORT": "abc", "LINES": "first line\nsecond\n", "TOKEN": "another value"}
	if err := os.WriteFile(filepath.Join(b.dir, "corp.pem"), authority(t).CertPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	p, tokens := b.good(whole)
	if diff := cmp.Diff(map[string]string{"TOKEN": "token-value-1", "PASSWORD": "password-value"}, tokens); diff != "" {
		t.Error(diff)
	}
	if !slices.Equal(p.Tokens(), []string{"PASSWORD", "TOKEN"}) || !p.HasRoutes() || len(p.Corporate()) != 1 || !strings.Contains(string(p.CorporatePEM()), "BEGIN CERTIFICATE") {
		t.Errorf("%v, %v, %d", p.Tokens(), p.HasRoutes(), len(p.Corporate()))
	}
	facts := Facts{Agent: "coder", Subnet: netip.MustParsePrefix("203.0.113.0/28"), Supervise: "http://supervise:9100/"}
	firewall, proxy := p.FirewallConfig(facts), p.EgressProxyConfig(facts)
	// What is rendered is what the sidecars take.
	if err := firewall.Validate(); err != nil {
		t.Error(err)
	}
	if err := proxy.Validate(); err != nil {
		t.Error(err)
	}
	p.Firewall.CAFiles[0] = "/project/corp.pem"
	text, err := json.MarshalIndent(map[string]any{"policy": p, "firewall": firewall, "egress proxy": proxy}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range tokens {
		if strings.Contains(string(text), value) {
			t.Errorf("%q is in the plan or a configuration", value)
		}
	}
	golden(t, "whole.json", append(text, '\n'))

	values := Values{Variables: b.variables, Tokens: tokens, Hop: "hop-value"}
	check := func(name string, got []secrets.Secret, want map[string]string) {
		t.Helper()
		list := map[string]string{}
		for _, s := range got {
			list[s.Name] = string(s.Value) + " → " + strings.Join(s.Hosts, " ")
		}
		if diff := cmp.Diff(want, list); diff != "" {
			t.Errorf("%s (-want +got)\n%s", name, diff)
		}
	}
	check("firewall", p.FirewallSecrets(values), map[string]string{
		"TOKEN": "token-value-1 → api.github.example git.example", "PASSWORD": "password-value → ", "bottle-hop": "hop-value → ",
		"KEY": "key-value-1 → api.example *.api.example", "LINES": "first line\nsecond → ", "variable:TOKEN": "another value → ",
	})
	check("egress proxy", p.EgressProxySecrets(values), map[string]string{
		"TOKEN": "token-value-1 → api.github.example git.example", "bottle-hop": "hop-value → ",
		"KEY": "key-value-1 → api.example *.api.example", "LINES": "first line\nsecond → ", "variable:TOKEN": "another value → ",
	})
}

func TestAnEmptySectionDeniesEverything(t *testing.T) {
	p, tokens := newBench(t).good("    egress: {}\n")
	c := p.FirewallConfig(Facts{Agent: "a"})
	if err := c.Validate(); err != nil || c.AllowAll || len(c.Allow) > 0 || c.ClientSecret != "" || len(tokens) > 0 || p.HasRoutes() {
		t.Errorf("%v: %+v", err, c)
	}
	if list := p.FirewallSecrets(Values{}); len(list) > 0 {
		t.Errorf("%d secrets", len(list))
	}
}

func TestMistakesHaveTheirPlace(t *testing.T) {
	for name, test := range map[string]struct {
		text string
		want []string
	}{
		"everything":          {"    egress: {allow: [a.test, \"*\"]}\n", []string{`m:4:30: host: pattern "*" matches every host: set allow_all: true if that is meant`}},
		"top level":           {"    egress:\n      allow:\n        - {host: \"*.com\"}\n", []string{`m:6:18: host: pattern "*.com" matches a whole top level domain: name the domains that are meant, or set allow_all: true`}},
		"a URL":               {"    egress: {allow: [\"https://a.test/\"]}\n", []string{"m:4:22: host: pattern"}},
		"ports twice":         {"    egress: {allow: [{host: \"a.test:1\", ports: [2]}]}\n", []string{"m:4:48: ports: the host carries a port as well"}},
		"a path":              {"    egress: {routes: [{host: a.test, paths: [\"/ok\", x]}]}\n", []string{"m:4:53: paths: "}},
		"a method":            {"    egress: {routes: [{host: a.test, methods: [\"G T\"]}]}\n", []string{`m:4:48: methods: "G T" is no HTTP method`}},
		"an unset token":      {"    egress: {routes: [{host: a.test, credential: {token: NONE}}]}\n", []string{"m:4:58: token: the variable NONE is not set: export it"}},
		"an empty token":      {"    egress: {routes: [{host: a.test, credential: {token: EMPTY}}]}\n", []string{"m:4:58: token: the variable EMPTY is empty"}},
		"a token of lines":    {"    egress: {routes: [{host: a.test, credential: {token: LINES}}]}\n", []string{"m:4:58: token: the variable LINES holds several lines"}},
		"a header":            {"    egress: {routes: [{host: a.test, credential: {token: T, header: Host}}]}\n", []string{"m:4:69: header: Host belongs to the connection"}},
		"a parameter":         {"    egress: {routes: [{host: a.test, credential: {token: T, kind: query}}]}\n", []string{"m:4:50: parameter: the name of the query parameter is missing"}},
		"credential and pass": {"    egress: {routes: [{host: a.test, pass_credentials: true, credential: {token: T}}]}\n", []string{"m:4:56: pass_credentials: "}},
		"overlaps": {
			"    egress:\n      routes:\n        - {id: one, host: a.test, credential: {token: T}}\n        - {id: two, host: b.test}\n        - {id: three, host: a.test, credential: {token: U}}\n        - {id: four, host: \"*.test\"}\n",
			[]string{"m:8:11: route three overlaps one, which injects a different credential", "m:9:11: route four overlaps one,"},
		},
		"an id twice":    {"    egress: {allow: [{id: x, host: a.test}, {id: x, host: b.test}]}\n", []string{`m:4:50: id: "x" is the id of another`}},
		"given to agent": {"    egress: {routes: [{host: a.test, credential: {token: SHARED}}]}\n", []string{"m:4:58: token: the agent gets the value of SHARED as its variable OTHER"}},
		"DNS":            {"    egress: {}\n    firewall: {dns: [198.51.100.1, one.test]}\n", []string{`m:5:36: dns: "one.test" is no IP address`}},
		"prefixes": {
			"    egress: {}\n    firewall: {allow_cidrs: [x, 198.51.100.7/24, 0.0.0.0/0]}\n",
			[]string{`m:5:30: allow_cidrs: "x" is no prefix`, "m:5:33: allow_cidrs: \"198.51.100.7/24\" names an address within a prefix: write 198.51.100.0/24", "m:5:50: allow_cidrs: \"0.0.0.0/0\" is every address"},
		},
		"a proxy with credentials": {"    egress: {}\n    firewall: {proxy: {url: \"http://u:p@x.test\"}}\n", []string{"m:5:29: url: the URL holds credentials"}},
		"a proxy's user":           {"    egress: {}\n    firewall: {proxy: {url: \"http://x.test\", user: me}}\n", []string{"m:5:52: user: "}},
		"a proxy's password":       {"    egress: {}\n    firewall: {proxy: {url: \"http://x.test\", password: NONE}}\n", []string{"m:5:56: password: the variable NONE is not set"}},
		"no PEM":                   {"    egress: {}\n    firewall: {ca_files: bad.pem}\n", []string{"DIR/bad.pem:1: there is no PEM certificate in it"}},
		"no file":                  {"    egress: {}\n    firewall: {ca_files: [none.pem]}\n", []string{"m:5:27: ca_files: DIR/none.pem: no such file or directory"}},
		"an exemption":             {"    egress: {}\n    firewall: {scan: {exempt: [{host: a.test}, {host: \"*\"}]}}\n", []string{"m:5:55: host: pattern"}},
		"secret hosts":             {"    egress: {}\n    secret_hosts: {K: [\"a b\"]}\n", []string{"m:5:24: secret_hosts: "}},
		"hosts of a token":         {"    egress: {routes: [{host: a.test, credential: {token: T}}]}\n    secret_hosts: {T: [b.test]}\n", []string{"m:5:23: secret_hosts: T is a token"}},
		"several": {
			"    egress: {allow: [\"*\", \"a b\"], routes: [{host: \"?\"}]}\n    firewall: {dns: [x]}\n",
			[]string{"m:4:22: ", "m:4:27: ", "m:4:51: ", "m:5:22: "},
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.env = map[string]string{"T": "token-t", "U": "token-u", "EMPTY": "\n", "LINES": "a\nb", "SHARED": "shared-value"}
			b.variables = map[string]string{"OTHER": "shared-value"}
			if err := os.WriteFile(filepath.Join(b.dir, "bad.pem"), []byte("hello\n"), 0o600); err != nil {
				t.Fatal(err)
			}
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

func TestPipelock(t *testing.T) {
	b := newBench(t)
	const image = "    firewall: {engine: pipelock, image: p, "
	for name, text := range map[string]string{
		"plain": "    egress: {allow: [example.com, \"*.bücher.example\", bücher.example]}\n" + image + "allow_cidrs: [198.51.100.0/24], limits: {idle_timeout: 5m}}\n",
		"off":   "    egress: {allow: [example.com]}\n" + image + "scan: {off: true}}\n",
	} {
		p, _ := b.good(text)
		f, err := p.Pipelock(Facts{Agent: "a", Subnet: netip.MustParsePrefix("203.0.113.0/28")}, []byte("cert"), []byte("key"))
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		fmt.Fprintf(&out, "# %s, %s\n", strings.Join(f.Command, " "), f.Health)
		for _, file := range f.Files {
			fmt.Fprintf(&out, "# %s %04o\n%s\n", file.Path, file.Mode, strings.TrimSuffix(string(file.Content), "\n"))
		}
		golden(t, "pipelock-"+name+".yaml", []byte(out.String()))
	}
	b.env["T"] = "token-t"
	allowed := "    egress: {allow: [a.test]}\n"
	for name, test := range map[string]struct{ text, want string }{
		"routes":     {"    egress: {allow: [a.test], routes: [{host: b.test}]}\n" + image + "}\n", "m:4:39: routes: pipelock cannot"},
		"allow all":  {"    egress: {allow_all: true}\n" + image + "}\n", "m:4:25: allow_all: "},
		"nothing":    {"    egress: {}\n" + image + "}\n", "m:4:13: egress: pipelock needs"},
		"ports":      {"    egress: {allow: [{host: a.test, ports: [1]}]}\n" + image + "}\n", "m:4:44: ports: "},
		"port":       {"    egress: {allow: [\"a.test:1\"]}\n" + image + "}\n", "m:4:22: host: pipelock does not look at ports"},
		"wildcard":   {"    egress: {allow: [\"*.a.test\"]}\n" + image + "}\n", "m:4:22: host: pipelock takes *.a.test for a.test as well"},
		"dns":        {allowed + image + "dns: [198.51.100.1]}\n", "m:5:49: dns: "},
		"proxy":      {allowed + image + "proxy: {url: \"http://x.test\"}}\n", "m:5:51: proxy: "},
		"rules":      {allowed + image + "scan: {disable: [x]}}\n", "m:5:60: disable: "},
		"exemptions": {allowed + image + "scan: {exempt: [{host: x.test}]}}\n", "m:5:59: exempt: "},
		"limits":     {allowed + image + "limits: {connections: 1}}\n", "m:5:66: connections: "},
		"secrets":    {allowed + image + "}\n    secret_hosts: {A: [x.test]}\n", "m:6:19: secret_hosts: "},
	} {
		if _, _, errs := b.make(test.text); len(errs) != 1 || !strings.HasPrefix(errs[0], test.want) {
			t.Errorf("%s: got %q; want %s", name, errs, test.want)
		}
	}
}
