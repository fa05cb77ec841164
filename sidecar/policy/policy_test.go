package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestCanonicalHost(t *testing.T) {
	for in, want := range map[string]string{
		"example.com": "example.com", "EXAMPLE.Com.": "example.com", "a_b.example.com": "a_b.example.com",
		"xn--bcher-kva.example": "xn--bcher-kva.example", "127.0.0.1": "127.0.0.1", "127.0.0.1.": "127.0.0.1",
		"[::1]": "::1", "[2001:DB8:0::1]": "2001:db8::1", "[::ffff:127.0.0.1]": "127.0.0.1", "1e100.net": "1e100.net",
	} {
		got, err := CanonicalHost(in)
		if err != nil || got != want {
			t.Errorf("CanonicalHost(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", ".", "example.com..", "a..b", "2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.01",
		"127.0.0.0x1", "1.2.3.4.5", "256.1.1.1", "[fe80::1%eth0]", "[::1", "[127.0.0.1]", "exa mple.com", "a\x00.com",
		"bücher.example", "127。0。0。1", "example.com\n", "xn--example-.com", "xn--a.com", "-a.com", "a-.com", "a/b.com",
		"user@example.com", "example.com%2eevil", strings.Repeat("a", 64) + ".com", "foo.0x", "foo.123", "xn--BCHER-KVA9.example.1",
	} {
		if got, err := CanonicalHost(in); err == nil {
			t.Errorf("CanonicalHost(%q) = %q; want an error", in, got)
		}
	}
}

func TestParseAuthority(t *testing.T) {
	for in, want := range map[string]string{
		"example.com": "example.com:443", "example.com:8443": "example.com:8443", "[::1]:80": "[::1]:80", "[::1]": "[::1]:443",
	} {
		host, port, err := ParseAuthority(in, 443)
		if err != nil || JoinHostPort(host, port) != want {
			t.Errorf("ParseAuthority(%q) = %q, %d, %v", in, host, port, err)
		}
	}
	for _, in := range []string{"u@example.com", "u:p@example.com:443", "example.com:", "example.com:0", "example.com:0443", "example.com:65536", "example.com:+1", "a:1:2", "::1", "[::1]x", "[::1]:"} {
		if _, _, err := ParseAuthority(in, 443); err == nil {
			t.Errorf("ParseAuthority(%q) succeeded", in)
		}
	}
	if _, _, err := ParseAuthority("example.com", 0); err == nil {
		t.Error("an authority without a port was taken where one is needed")
	}
}

func TestHostPattern(t *testing.T) {
	p, err := ParseHostPattern("*.Example.com")
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]bool{"a.example.com": true, "a.b.example.com": true, "example.com": false, "badexample.com": false, "example.com.evil.net": false} {
		if p.Match(host) != want {
			t.Errorf("Match(%q) = %v", host, !want)
		}
	}
	if p, err := ParseHostPattern("bücher.example"); err != nil || p.String() != "xn--bcher-kva.example" {
		t.Errorf("unicode pattern: %v, %v", p, err)
	}
	for _, in := range []string{"", "*", "*.", "**", "*.*", "*.com", "a.*.com", "a*.example.com", "https://example.com", "example.com/x", "u@example.com", "*.127.0.0.1", "127.1"} {
		if p, err := ParseHostPattern(in); err == nil {
			t.Errorf("ParseHostPattern(%q) = %v; want an error", in, p)
		}
	}
}

func TestAllowlist(t *testing.T) {
	l, err := NewAllowlist(false, []Rule{{Host: "example.com"}, {Host: "*.example.org", Ports: []uint16{8443}, ID: "org"}, {Host: "api.test:9000"}, {Host: "[2001:db8::1]:443"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host string
		port uint16
		want string
	}{
		{"example.com", 443, "allow:example.com"}, {"example.com", 80, "allow:example.com"}, {"example.com", 22, ""},
		{"a.example.org", 8443, "org"}, {"a.example.org", 443, ""}, {"api.test", 9000, "allow:api.test"}, {"api.test", 443, ""},
		{"2001:db8::1", 443, "allow:2001:db8::1"}, {"other.com", 443, ""},
	} {
		d := l.Decide(c.host, c.port)
		if d.Allow != (c.want != "") || d.Allow && d.Rule != c.want || !d.Allow && (d.Rule != RuleDefault || d.Reason == "") {
			t.Errorf("Decide(%s, %d) = %+v; want %q", c.host, c.port, d, c.want)
		}
	}
	var none *Allowlist
	if none.Decide("example.com", 443).Allow || (&Allowlist{}).Decide("example.com", 443).Allow {
		t.Error("an empty allowlist allows")
	}
	all, err := NewAllowlist(true, nil)
	if err != nil || !all.Decide("x.y", 1).Allow {
		t.Error("allow_all does not allow")
	}
	_, err = NewAllowlist(false, []Rule{{Host: "a.com"}, {Host: "*"}})
	var fe *FieldError
	if !errors.As(err, &fe) || fe.Path != "[1].host" || !strings.Contains(err.Error(), "allow_all") {
		t.Errorf("a wildcard for everything: %v", err)
	}
	if _, err = NewAllowlist(false, []Rule{{Host: "a.com:1", Ports: []uint16{2}}}); err == nil {
		t.Error("ports given twice were taken")
	}
}

func TestCanonicalTarget(t *testing.T) {
	for in, want := range map[string]string{
		"/": "/", "/a/b?x=1": "/a/b?x=1", "/a/./b": "/a/b", "/a/../b": "/b", "/a/%2e%2E/b": "/b", "/a/..": "/", "/a/.": "/a/",
		"/%61": "/a", "/%7euser": "/~user", "/a%2fb": "/a%2Fb", "/@scope%2fname": "/@scope%2Fname", "/a%20b": "/a%20b", "/a?": "/a?",
		"/\xc3\xa9": "/%C3%A9", "/a//b": "/a//b", "/a;v=1/b": "/a;v=1/b", "/a%3bb": "/a%3Bb", "/100%25": "/100%25", "/x?q=../..": "/x?q=../..",
	} {
		got, err := CanonicalTarget(in)
		if err != nil || got.String() != want {
			t.Errorf("CanonicalTarget(%q) = %q, %v; want %q", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "a", "*", "http://x/", "/../a", "/a/../../b", "/..;/a", "/a/..;/b", "/a/..;x=1/b", "/a/.;/b", "/a/%2e%2e;/b", "/a/..%3b/b", "/a/..%3bx",
		"/a/..%2fb", "/a%2f..%2fb", "/a/%2e%2e%2fb", "/a/%252e%252e/b", "/a/%252e%252e%252fb", "/a/%25252e%25252e/b", "/a\\b", "/a%5cb", "/a%255c..",
		"/a/%c0%ae%c0%ae/b", "/a%c0%afb", "/a/%c1%9cb", "/a/%e0%80%aeb", "/a/%f0%80%80%afb", "/a/%25c0%25ae/b", "/a/%c0%80", "/a/\xc0\xae",
		"/a%00", "/a%0d%0ab", "/a\x00", "/a b", "/%", "/%2", "/%zz", "/a#b", "/a?b#c", "/a//../b", "/a%250ab", "/a?\x01", "/a?x y",
		"/%" + strings.Repeat("25", 9) + "41",
	} {
		if got, err := CanonicalTarget(in); err == nil {
			t.Errorf("CanonicalTarget(%q) = %q (readings %q); want an error", in, got, got.readings)
		}
	}
}

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		glob, path string
		want       bool
	}{
		{"/**", "/", true}, {"/**", "/a/b", true}, {"/a", "/a", true}, {"/a", "/a/", false}, {"/a/*", "/a/b", true}, {"/a/*", "/a/", false},
		{"/a/*", "/a/b/c", false}, {"/a/**", "/a", true}, {"/a/**", "/a/b/c", true}, {"/a/**", "/ab", false}, {"/a/**/z", "/a/z", true},
		{"/a/**/z", "/a/b/c/z", true}, {"/a/**/z", "/a/b/c/z/y", false}, {"/v*/x", "/v12/x", true}, {"/v*/x", "/w/x", false},
		{"/*.git/info", "/r.git/info", true}, {"/**/b/**/d", "/a/b/c/b/x/d", true}, {"/a%20b", "/a b", true}, {"/**/a/*/c", "/a/a/b/c", true},
		{"/a*b*c", "/axbxc", true}, {"/a*b*c", "/axbx", false},
	} {
		g, err := ParseGlob(c.glob)
		if err != nil {
			t.Fatal(err)
		}
		if g.Match(c.path) != c.want {
			t.Errorf("%s matches %s: %v", c.glob, c.path, !c.want)
		}
	}
	for _, in := range []string{"", "a", "/a?b", "/a/../b", "/a/**b", "/a//b", "/%zz", "/a b", "/%2e%2e/x", "/a#", "/%2a"} {
		if _, err := ParseGlob(in); err == nil {
			t.Errorf("ParseGlob(%q) succeeded", in)
		}
	}
}

func TestGlobsOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"/a", "/a", true}, {"/a", "/b", false}, {"/**", "/x/y", true}, {"/a/*", "/*/b", true}, {"/a/*", "/b/*", false}, {"/a/**", "/a", true},
		{"/x*", "/*y", true}, {"/x*", "/y*", false}, {"/a/**/c", "/a/b/**", true}, {"/a/b", "/a/b/c", false},
	} {
		g, _ := ParseGlob(c.a)
		h, _ := ParseGlob(c.b)
		if g.overlaps(h) != c.want || h.overlaps(g) != c.want {
			t.Errorf("%s overlaps %s: want %v", c.a, c.b, c.want)
		}
	}
}

func route(id, host string, paths ...string) Route { return Route{ID: id, Host: host, Paths: paths} }

func with(r Route, secret string) Route {
	r.Credential = &Credential{Secret: secret, Kind: CredentialHeader}
	return r
}

func TestRoutes(t *testing.T) {
	read := route("read", "api.example.com", "/public/**")
	read.Methods = []string{"get", "HEAD"}
	rs, err := NewRoutes([]Route{read, with(route("all", "git.example.com"), "git"), route("one", "one.example.com", "/a/*")})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ host, method, target, want string }{
		{"api.example.com", "GET", "/public/x", "read"}, {"api.example.com", "POST", "/public/x", "!no-route"}, {"api.example.com", "GET", "/private", "!no-route"},
		{"api.example.com", "GET", "/public/../private", "!no-route"}, {"api.example.com", "GET", "/Public/x", "!no-route"},
		{"api.example.com", "GET", "/public/a%2fb", "read"}, {"one.example.com", "GET", "/a/b", "one"}, {"one.example.com", "GET", "/a/b%2fc", "!ambiguous-path"},
		{"one.example.com", "GET", "/a/b%252fc", "!ambiguous-path"}, {"one.example.com", "GET", "/a/b;x", "one"}, {"one.example.com", "GET", "/a/;x", "!ambiguous-path"},
		{"git.example.com", "POST", "/x/y", "all"}, {"other.example.com", "GET", "/", "!no-route"},
	} {
		target, err := CanonicalTarget(c.target)
		if err != nil {
			t.Fatal(err)
		}
		d := rs.Decide(c.host, 443, c.method, target)
		got := d.Rule
		if !d.Allow {
			got = "!" + got
		}
		if got != c.want || d.Allow && d.Route == nil {
			t.Errorf("%s %s%s: %+v; want %s", c.method, c.host, c.target, d, c.want)
		}
	}
	target, err := CanonicalTarget("/public/x")
	if err != nil {
		t.Fatal(err)
	}
	for also, want := range map[string]string{"GET": "read", "DELETE": "ambiguous-method", "": "ambiguous-method"} {
		if d := rs.Decide("api.example.com", 443, "GET", target, "GET", also); d.Rule != want || d.Allow != (want == "read") {
			t.Errorf("with the method %q too: %+v; want %s", also, d, want)
		}
	}
	if rs.Decide("git.example.com", 80, "GET", Target{readings: []string{"/"}}).Allow {
		t.Error("routes allow port 80 without being told")
	}
	if !rs.Governs("git.example.com", 443) || rs.Governs("git.example.com", 80) || rs.Governs("x.com", 443) {
		t.Error("Governs is wrong")
	}
	if !slices.Equal(rs.Secrets(), []string{"git"}) {
		t.Errorf("Secrets() = %v", rs.Secrets())
	}
	var none *Routes
	if none.Decide("a", 443, "GET", Target{Path: "/", readings: []string{"/"}}).Allow {
		t.Error("no routes allow")
	}
}

func TestRoutesThatAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		routes []Route
		path   string
	}{
		"different credentials on one path":   {[]Route{with(route("a", "x.com"), "one"), with(route("b", "*.com.x.com", "/p"), "two"), with(route("c", "x.com", "/p/**"), "two")}, "[2]"},
		"a credential and none":               {[]Route{with(route("a", "x.com", "/a/*"), "one"), route("b", "*.x.com"), route("c", "x.com", "/*/b")}, "[2]"},
		"an unparsable path":                  {[]Route{route("a", "x.com", "/ok", "/a/../b")}, "[0].paths[1]"},
		"a wildcard for everything":           {[]Route{route("a", "*")}, "[0].host"},
		"a method that is none":               {[]Route{{Host: "x.com", Methods: []string{"G ET"}}}, "[0].methods[0]"},
		"CONNECT":                             {[]Route{{Host: "x.com", Methods: []string{"connect"}}}, "[0].methods[0]"},
		"a credential without a secret":       {[]Route{with(route("a", "x.com"), "")}, "[0].credential.secret"},
		"a credential in Host":                {[]Route{{Host: "x.com", Credential: &Credential{Secret: "s", Kind: "header", Header: "host"}}}, "[0].credential.header"},
		"a kind that is none":                 {[]Route{{Host: "x.com", Credential: &Credential{Secret: "s", Kind: "cookie"}}}, "[0].credential.kind"},
		"a query credential without its name": {[]Route{{Host: "x.com", Credential: &Credential{Secret: "s", Kind: "query"}}}, "[0].credential.parameter"},
		"a scheme for basic":                  {[]Route{{Host: "x.com", Credential: &Credential{Secret: "s", Kind: "basic", Scheme: "x"}}}, "[0].credential.scheme"},
		"passing beside injecting":            {[]Route{{Host: "x.com", PassCredentials: true, Credential: &Credential{Secret: "s", Kind: "basic"}}}, "[0].pass_credentials"},
	} {
		_, err := NewRoutes(c.routes)
		var fe *FieldError
		if !errors.As(err, &fe) || fe.Path != c.path {
			t.Errorf("%s: %v; want an error at %s", name, err, c.path)
		}
	}
	ok := []Route{with(route("a", "x.com", "/a/**"), "one"), with(route("b", "x.com", "/b/**"), "two"), with(route("c", "x.com", "/a/x"), "one")}
	if _, err := NewRoutes(ok); err != nil {
		t.Errorf("disjoint routes were refused: %v", err)
	}
}
