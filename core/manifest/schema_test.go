package manifest

import (
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	text, err := Schema()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(SchemaID, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(SchemaID)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validates(t *testing.T, s *jsonschema.Schema, text string) error {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	return s.Validate(doc)
}

func TestTheSchemaAcceptsWhatTheParserAccepts(t *testing.T) {
	s := compiled(t)
	for _, text := range []string{full, minimal("", ""), minimal("    workspace: src\n    tmpfs: [/x]\n", ""), minimal(sealed, "")} {
		if _, err := Parse("m", []byte(text)); err != nil {
			t.Errorf("the parser: %v", err)
		}
		if err := validates(t, s, text); err != nil {
			t.Errorf("the schema: %v\n%s", err, text)
		}
	}
}

const sealed = `    egress:
      allow: [a.test, {id: x, host: b.test, ports: [443, "8443"]}]
      allow_all: true
      routes: [{id: y, host: c.test, ports: [443], methods: [GET], paths: [/**], credential: {token: T, kind: basic, username: u}, pass_credentials: false}]
      image: proxy
    firewall:
      engine: pipelock
      image: firewall
      dns: [198.51.100.53]
      allow_cidrs: [198.51.100.0/24]
      proxy: {url: "http://proxy.test", user: u, password: P}
      ca_files: corp.pem
      scan: {off: true, disable: [r], exempt: [{host: a.test, rules: [r]}]}
      limits: {connections: 1, header_bytes: 64KiB, header_timeout: 1m30s, idle_timeout: 15m}
    secret_hosts: {A: [a.test], B: "*"}
`

func TestTheSchemaRefusesWhatTheParserRefuses(t *testing.T) {
	s := compiled(t)
	for name, text := range map[string]string{
		"an unknown key":           minimal("    imgae: x\n", ""),
		"image and dockerfile":     minimal("    dockerfile: D\n", ""),
		"neither":                  "bottles: {b: {user: x}}\nagents: {a: {bottle: b}}\n",
		"no bottle":                "bottles: {b: {image: x}}\nagents: {a: {command: [x]}}\n",
		"a string for a list":      minimal("", "    command: x\n"),
		"a bad size":               minimal("    limits: {memory: lots}\n", ""),
		"no processes":             minimal("    limits: {pids: 0}\n", ""),
		"a bad variable":           minimal("    env: {1X: y}\n", ""),
		"a value for a name":       minimal("    forward: [A=b]\n", ""),
		"a workspace of true":      minimal("    workspace: true\n", ""),
		"a file without target":    minimal("", "    files: [{content: x}]\n"),
		"an unknown key of egress": minimal("    egress: {alow: []}\n", ""),
		"a route without a host":   minimal("    egress: {routes: [{id: x}]}\n", ""),
		"a port that is none":      minimal("    egress: {allow: [{host: a.test, ports: [65536]}]}\n", ""),
		"a kind of credential":     minimal("    egress: {routes: [{host: a.test, credential: {token: T, kind: bearer}}]}\n", ""),
		"an engine of a firewall":  minimal("    egress: {}\n    firewall: {engine: squid}\n", ""),
		"a time without a unit":    minimal("    egress: {}\n    firewall: {limits: {idle_timeout: 30}}\n", ""),
		"a bad git setting":        minimal("", "    gitconfig: {name: x}\n"),
	} {
		if _, err := Parse("m", []byte(text)); err == nil {
			t.Errorf("%s: the parser accepts\n%s", name, text)
		}
		if err := validates(t, s, text); err == nil {
			t.Errorf("%s: the schema accepts\n%s", name, text)
		}
	}
}
