package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadFirewall(t *testing.T) {
	c, err := ReadFirewall(write(t, `{
  "agent": "coder", "ca_cert": "/c", "ca_key": "/k",
  "allow": [{"host": "*.example.com", "ports": [443]}],
  "guard": {"allow_cidrs": ["10.1.0.0/24"], "dns": ["192.0.2.1", "[2001:db8::1]:5353"]},
  "upstream": {"proxy": "http://proxy.test:3128", "proxy_secret": "p"},
  "scan": {"exempt": [{"host": "a.com", "rules": ["github-pat"]}]},
  "limits": {"idle_timeout": "5m"}
}`))
	if err != nil {
		t.Fatal(err)
	}
	l := c.Limits.WithDefaults()
	if time.Duration(l.IdleTimeout) != 5*time.Minute || l.Connections != 1024 || len(c.Guard.AllowCIDRs) != 1 {
		t.Errorf("%+v", c)
	}
	servers, err := c.Guard.Servers()
	if err != nil || len(servers) != 2 || servers[0].Port() != 53 || servers[1].Port() != 5353 {
		t.Errorf("%v, %v", servers, err)
	}
	if p, err := c.Upstream.ProxyURL(); err != nil || p.Host != "proxy.test:3128" {
		t.Errorf("%v, %v", p, err)
	}
}

func TestMistakesHaveAPlace(t *testing.T) {
	const head = "{\"ca_cert\": \"c\", \"ca_key\": \"k\",\n"
	firewall := func(p string) error { _, err := ReadFirewall(p); return err }
	egress := func(p string) error { _, err := ReadEgressProxy(p); return err }
	const up = "\"firewall\": \"firewall:8888\", \"firewall_ca\": \"f\",\n"
	for name, c := range map[string]struct {
		read       func(string) error
		text, path string
		line       int
		says       string
	}{
		"syntax":           {firewall, head + " \"allow\": [}", "allow", 2, "no valid JSON"},
		"cut off":          {firewall, head + " \"allow\": [", "allow", 2, "no valid JSON"},
		"empty":            {firewall, "", "", 1, "no valid JSON"},
		"unknown":          {firewall, head + " \"scan\": {},\n \"allows\": []}", "allows", 3, "no such setting"},
		"twice":            {firewall, head + " \"allow\": [],\n \"Allow\": []}", "Allow", 3, "set twice"},
		"type":             {firewall, head + " \"allow\": [{\"host\": 7}]}", "allow.host", 2, "cannot be"},
		"followed":         {firewall, head + " \"allow\": []}\n{}", "", 3, "follows"},
		"wildcard":         {firewall, head + " \"allow\": [\n {\"host\": \"a.com\"},\n {\"host\": \"*\"}]}", "allow[1].host", 4, "allow_all"},
		"exemption":        {firewall, head + " \"scan\": {\"exempt\": [\n{\"host\": \"*\"}]}}", "scan.exempt[0].host", 3, "allow_all"},
		"dns":              {firewall, head + " \"guard\": {\"dns\": [\"one.one\"]}}", "guard.dns[0]", 2, "no IP"},
		"proxy":            {firewall, head + " \"upstream\": {\"proxy\": \"http://u:p@x\"}}", "upstream.proxy", 2, "credentials"},
		"proxy user":       {firewall, head + " \"upstream\": {\"proxy_user\": \"u\"}}", "upstream.proxy_secret", 2, "no proxy"},
		"duration":         {firewall, head + " \"limits\": {\"idle_timeout\": \"-1s\"}}", "", 2, "no duration"},
		"no authority":     {firewall, "{}", "ca_cert", 0, "missing"},
		"supervise":        {firewall, head + " \"supervise\": \"x\"}", "supervise", 2, "no URL"},
		"no firewall":      {egress, head + " \"routes\": []}", "firewall", 0, "missing"},
		"path":             {egress, head + up + " \"routes\": [{\"host\": \"a.com\", \"paths\": [\"x\"]}]}", "routes[0].paths[0]", 3, "slash"},
		"overlap":          {egress, head + up + " \"routes\": [{\"host\": \"a.com\"},\n{\"host\": \"a.com\", \"credential\": {\"secret\": \"s\", \"kind\": \"header\"}}]}", "routes[1]", 4, "overlaps"},
		"without a secret": {egress, head + up + " \"routes\": [{\"host\": \"a.com\", \"credential\": {\"kind\": \"header\"}}]}", "routes[0].credential.secret", 3, "missing"},
	} {
		path := write(t, c.text)
		err := c.read(path)
		var ce *Error
		if !errors.As(err, &ce) || ce.Path != c.path || ce.Line != c.line || !strings.Contains(err.Error(), c.says) || ce.File != path {
			t.Errorf("%s: %v (line %d, path %q); want line %d, path %q, %q", name, err, lineOf(ce), pathOf(ce), c.line, c.path, c.says)
		}
	}
	if err := firewall("/nonexistent/config.json"); err == nil {
		t.Error("a file that does not exist was read")
	}
}

func lineOf(e *Error) int {
	if e == nil {
		return -1
	}
	return e.Line
}

func pathOf(e *Error) string {
	if e == nil {
		return ""
	}
	return e.Path
}
