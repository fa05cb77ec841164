package config

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestReadGitGate(t *testing.T) {
	c, err := ReadGitGate(write(t, `{
  "agent": "coder", "listen": ":9418", "quarantine": "/quarantine",
  "repositories": [
    {"name": "app", "url": "https://git.example.com:8443/org/app.git", "credential": {"secret": "token", "kind": "basic", "username": "robot"},
     "push": {"branches": ["agent/*", "main"], "tags": ["v*"], "notes": ["**"], "force": true, "delete": true}},
    {"name": "lib_2.x", "url": "git@git.example.com:org/lib.git", "credential": {"secret": "key", "kind": "ssh-key"}, "known_hosts": ["git.example.com ssh-ed25519 AAAA"]},
    {"name": "open", "url": "git://git.example.com/open", "any_object": true},
    {"name": "file", "url": "file:///srv/x.git"}
  ],
  "guard": {"allow_cidrs": ["10.0.0.0/8"]}, "limits": {"refs": 3, "idle_timeout": "1m"}
}`))
	if err != nil {
		t.Fatal(err)
	}
	l := c.Limits.WithDefaults()
	if l.Refs != 3 || time.Duration(l.IdleTimeout) != time.Minute || l.PackBytes != 512<<20 || l.Connections != 64 || len(c.Repositories) != 4 {
		t.Errorf("%+v", c)
	}
}

func TestMistakesOfGitGates(t *testing.T) {
	repo := func(s string) string { return "{\"repositories\": [\n{" + s + "}]}" }
	const ok = `"name": "a", "url": "https://x.com/a"`
	const over = `"name": "a", "url": "ssh://x.com/a", "credential": {"secret": "k", "kind": "ssh-key"}`
	for name, c := range map[string]struct {
		text, path string
		line       int
		says       string
	}{
		"no name":              {repo(`"url": "https://x.com/a"`), "repositories[0].name", 2, "missing"},
		"a name with a slash":  {repo(`"name": "a/b", "url": "https://x.com/a"`), "repositories[0].name", 2, "holds '/'"},
		"a name with a dash":   {repo(`"name": "-a", "url": "https://x.com/a"`), "repositories[0].name", 2, "begins with"},
		"twice":                {"{\"repositories\": [{" + ok + "},\n{" + ok + "}]}", "repositories[1].name", 2, "another"},
		"no URL":               {repo(`"name": "a"`), "repositories[0].url", 2, "missing"},
		"http":                 {repo(`"name": "a", "url": "http://x.com/a"`), "repositories[0].url", 2, "not encrypted"},
		"a password":           {repo(`"name": "a", "url": "https://u:p@x.com/a"`), "repositories[0].url", 2, "holds a password"},
		"an unknown setting":   {repo(ok + `, "pull": true`), "repositories[0].pull", 2, "no such setting"},
		"a kind":               {repo(ok + `, "credential": {"secret": "s", "kind": "ssh-key"}`), "repositories[0].credential.kind", 2, "does not go with"},
		"an unknown kind":      {repo(ok + `, "credential": {"secret": "s", "kind": "x"}`), "repositories[0].credential.kind", 2, "not one of"},
		"no secret":            {repo(ok + `, "credential": {"kind": "basic"}`), "repositories[0].credential.secret", 2, "missing"},
		"a user of a token":    {repo(ok + `, "credential": {"secret": "s", "kind": "bearer", "username": "x"}`), "repositories[0].credential.username", 2, "only kind basic"},
		"a credential for git": {repo(`"name": "a", "url": "git://x.com/a", "credential": {"secret": "s", "kind": "basic"}`), "repositories[0].credential", 2, "takes no credential"},
		"ssh without a key":    {repo(`"name": "a", "url": "ssh://x.com/a"`), "repositories[0].credential", 2, "missing"},
		"ssh without hosts":    {repo(over), "repositories[0].known_hosts", 2, "missing"},
		"hosts for https":      {repo(ok + `, "known_hosts": ["x"]`), "repositories[0].known_hosts", 2, "only URLs over ssh"},
		"hosts in two lines":   {repo(over + `, "known_hosts": ["x\ny"]`), "repositories[0].known_hosts[0]", 2, "more than one line"},
		"a branch":             {repo(ok + `, "push": {"branches": ["x", "refs/heads/y"]}`), "repositories[0].push.branches[1]", 2, "without refs/"},
		"a tag":                {repo(ok + `, "push": {"tags": ["a..b"]}`), "repositories[0].push.tags[0]", 2, "two dots"},
		"a note":               {repo(ok + `, "push": {"notes": ["-a"]}`), "repositories[0].push.notes[0]", 2, "dash"},
		"a limit":              {"{\"limits\": {\"refs\": -1}}", "limits", 1, "negative"},
		"listen":               {"{\"listen\": \"x\"}", "listen", 1, "HOST:PORT"},
		"an exemption":         {"{\"scan\": {\"exempt\": [{\"host\": \"*\"}]}}", "scan.exempt[0].host", 1, "allow_all"},
		"a proxy":              {"{\"upstream\": {\"proxy\": \"socks5://x\"}}", "upstream.proxy", 1, "no URL"},
	} {
		_, err := ReadGitGate(write(t, c.text))
		var ce *Error
		if !errors.As(err, &ce) || ce.Path != c.path || ce.Line != c.line || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v (line %d, path %q); want line %d, path %q, %q", name, err, lineOf(ce), pathOf(ce), c.line, c.path, c.says)
		}
	}
}

func TestParseGitURL(t *testing.T) {
	for in, want := range map[string]GitURL{
		"https://Example.COM/a/b.git":           {Scheme: "https", Host: "example.com", Port: 443, Path: "/a/b.git"},
		"https://example.com:8443/a%20b":        {Scheme: "https", Host: "example.com", Port: 8443, Path: "/a%20b"},
		"ssh://me@example.com:2222/~me/a b.git": {},
		"ssh://me@example.com:2222/~me/a.git":   {Scheme: "ssh", User: "me", Host: "example.com", Port: 2222, Path: "/~me/a.git"},
		"git@example.com:org/a.git":             {Scheme: "ssh", User: "git", Host: "example.com", Port: 22, Path: "org/a.git"},
		"example.com:/srv/a.git":                {Scheme: "ssh", Host: "example.com", Port: 22, Path: "/srv/a.git"},
		"git://[2001:db8::1]/a":                 {Scheme: "git", Host: "2001:db8::1", Port: 9418, Path: "/a"},
		"file:///srv/a.git":                     {Scheme: "file", Path: "/srv/a.git"},
		"file://host/a":                         {}, "ext::sh -c x": {}, "ext::sh": {}, "-x:y": {}, "/srv/a": {}, "a": {}, "https://example.com": {}, "https://example.com/": {},
		"https://example.com/a?b": {}, "https://example.com/a#b": {}, "ssh://-oProxyCommand=x/y": {}, "git@example.com:-x": {}, "ssh://me:pw@example.com/a": {},
		"ssh://example.com/a/../b": {}, "git://example.com/a%0ab": {}, "git://me@example.com/a": {}, "https://example.com/a\nb": {}, "ftp://example.com/a": {}, "ssh://-me@example.com/a": {},
	} {
		got, err := ParseGitURL(in)
		if want == (GitURL{}) {
			if err == nil {
				t.Errorf("%q was read as %+v", in, got)
			}
			continue
		}
		if err != nil || *got != want {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
			continue
		}
		if again, err := ParseGitURL(got.String()); err != nil || again.Host != want.Host || again.Port != want.Port || strings.TrimPrefix(again.Path, "/") != strings.TrimPrefix(want.Path, "/") {
			t.Errorf("%q is written as %q and read again as %+v, %v", in, got, again, err)
		}
	}
}

func FuzzParseGitURL(f *testing.F) {
	for _, s := range []string{"https://example.com/a", "git@example.com:a", "ssh://a@b:1/c", "file:///a", "git://[::1]/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseGitURL(s)
		if err != nil {
			return
		}
		if strings.HasPrefix(u.Host, "-") || strings.HasPrefix(u.User, "-") || strings.HasPrefix(u.Path, "-") || u.Path == "" || strings.ContainsAny(u.Host+u.User+u.Path, "\n\r\x00") {
			t.Fatalf("%q: %+v", s, u)
		}
	})
}
