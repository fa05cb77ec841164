package effect

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
)

func token(name string) *policy.Credential {
	return &policy.Credential{Secret: name, Kind: policy.CredentialHeader}
}

func allow(hosts ...string) (list []policy.Rule) {
	for _, h := range hosts {
		list = append(list, policy.Rule{Host: h})
	}
	return list
}

func TestWhatBecomesPermitted(t *testing.T) {
	type p = config.Policy
	get := []string{"GET"}
	for name, c := range map[string]struct {
		before, after p
		permits       []string // parts of the texts, in order
		warns         []string
		revokes       []string
	}{
		"a host":                      {p{}, p{Allow: allow("a.example")}, []string{"every method and path to a.example on ports 80 and 443"}, []string{"port 80 is not encrypted"}, nil},
		"a port":                      {p{Allow: allow("a.example")}, p{Allow: []policy.Rule{{Host: "a.example", Ports: []uint16{80, 443, 8443}}}}, []string{"a.example on port 8443"}, nil, nil},
		"the same in other words":     {p{Allow: allow("a.example")}, p{Allow: []policy.Rule{{Host: "A.example.", Ports: []uint16{443, 80}}}}, nil, nil, nil},
		"a port in the host":          {p{}, p{Allow: allow("a.example:8443")}, []string{"a.example on port 8443"}, nil, nil},
		"what a wildcard had":         {p{Allow: allow("*.b.example")}, p{Allow: allow("*.b.example", "a.b.example")}, nil, nil, nil},
		"a wildcard":                  {p{Allow: allow("a.b.example")}, p{Allow: allow("a.b.example", "*.b.example")}, []string{"EVERY host below b.example"}, []string{"WILDCARD"}, nil},
		"a wildcard of many owners":   {p{}, p{Allow: allow("*.github.io")}, []string{"EVERY host below github.io"}, []string{"anybody can get a name below github.io"}, nil},
		"everything":                  {p{Allow: allow("a.example")}, p{AllowAll: true}, []string{"EVERY host on every port"}, []string{"WILDCARD"}, nil},
		"nothing more with allow_all": {p{AllowAll: true}, p{AllowAll: true, Allow: allow("a.example")}, nil, nil, nil},
		"less":                        {p{Allow: allow("a.example", "b.example")}, p{Allow: allow("a.example")}, nil, nil, []string{"to b.example"}},

		"a route": {p{}, p{Routes: []policy.Route{{Host: "a.example", Methods: get, Paths: []string{"/x/**"}}}},
			[]string{"GET requests to a.example on port 443, paths /x/**, without any credential"}, nil, nil},
		"a route with a secret": {p{}, p{Routes: []policy.Route{{Host: "a.example", Credential: token("T")}}},
			[]string{"requests of EVERY method to a.example on port 443, paths /** (ALL), with the secret T attached in the header Authorization (Bearer)"},
			[]string{"T goes to a.example, and was not attached to anything"}, nil},
		"a secret to another host": {p{Routes: []policy.Route{{Host: "a.example", Credential: token("T")}}},
			p{Routes: []policy.Route{{Host: "a.example", Credential: token("T")}, {Host: "b.example", Credential: token("T")}}},
			[]string{"to b.example"}, []string{"T goes to b.example, and went to a.example alone so far"}, nil},
		"a secret to an allowed host": {p{Allow: allow("a.example")}, p{Allow: allow("a.example"), Routes: []policy.Route{{Host: "a.example", Methods: get, Credential: token("T")}}},
			[]string{"they were possible, and now have the secret T"}, []string{"SECRET"}, []string{"to a.example on port 443"}},
		"a method": {p{Routes: []policy.Route{{ID: "r", Host: "a.example", Methods: get}}}, p{Routes: []policy.Route{{ID: "r", Host: "a.example", Methods: []string{"GET", "POST"}}}},
			[]string{"GET, POST requests to a.example"}, nil, nil},
		"a path below": {p{Routes: []policy.Route{{Host: "a.example", Paths: []string{"/x/**"}}}}, p{Routes: []policy.Route{{Host: "a.example", Paths: []string{"/x/y/*"}}}},
			nil, nil, []string{"paths /x/**"}},
		"a path beside": {p{Routes: []policy.Route{{Host: "a.example", Paths: []string{"/x/**"}}}}, p{Routes: []policy.Route{{Host: "a.example", Paths: []string{"/x/**", "/xy"}}}},
			[]string{"paths /xy"}, nil, nil},
		"own credentials": {p{Routes: []policy.Route{{Host: "a.example"}}}, p{Routes: []policy.Route{{Host: "a.example", PassCredentials: true}}},
			[]string{"now keep the credentials that the agent itself sends"}, nil, nil},
		"a route that narrows": {p{Allow: allow("a.example")}, p{Allow: allow("a.example"), Routes: []policy.Route{{Host: "a.example", Methods: get}}},
			nil, nil, []string{"every method and path to a.example on port 443"}},
		"a route that goes": {p{Allow: allow("*.b.example"), Routes: []policy.Route{{Host: "a.b.example", Methods: get, Paths: []string{"/x"}}}}, p{Allow: allow("*.b.example")},
			[]string{"to a.b.example on port 443: the allowlist names it, and routes decided about it so far"}, nil, nil},
		"a route that goes, of allow_all": {p{AllowAll: true, Routes: []policy.Route{{Host: "a.example", Methods: get}}}, p{AllowAll: true},
			[]string{"to a.example on port 443"}, nil, nil},

		"push": {p{Git: []config.GitRule{{Name: "app", URL: "https://g.example/app", Credential: true}}}, p{Git: []config.GitRule{{Name: "app", URL: "https://g.example/app", Credential: true, Push: &config.GitPush{Branches: []string{"main"}}}}},
			[]string{"pushing to the branches main of the repository app (https://g.example/app)"}, []string{"operator's credential"}, nil},
		"push everywhere": {p{Git: []config.GitRule{{Name: "app", URL: "u", Push: &config.GitPush{Branches: []string{"x/**"}}}}}, p{Git: []config.GitRule{{Name: "app", URL: "u", Push: &config.GitPush{Branches: []string{"x/y", "**"}}}}},
			[]string{"branches ** of"}, []string{"all branches, the main one too"}, []string{}},
		"force": {p{Git: []config.GitRule{{Name: "app", URL: "u", Push: &config.GitPush{Branches: []string{"x"}}}}}, p{Git: []config.GitRule{{Name: "app", URL: "u", Push: &config.GitPush{Branches: []string{"x"}, Force: true, Delete: true}}}},
			[]string{"overwriting history", "deleting what matches x"}, []string{"lost"}, nil},
		"a Dockerfile": {p{Dockerfile: "FROM a\n"}, p{Dockerfile: "FROM --platform=linux/amd64 b:1 AS x\n"}, []string{"when the bottle is restarted"}, []string{"b:1"}, nil},
	} {
		e := Compare(c.before, c.after)
		check := func(what string, items []Item, want []string) {
			if len(items) != len(want) {
				t.Errorf("%s: %s: %+v; want %q", name, what, items, want)
				return
			}
			for i, w := range want {
				if !strings.Contains(items[i].Text, w) {
					t.Errorf("%s: %s: %q; want %q", name, what, items[i].Text, w)
				}
			}
		}
		check("permits", e.Permits, c.permits)
		if len(c.revokes) > 0 {
			check("revokes", e.Revokes, c.revokes)
		} else if name != "push everywhere" && len(e.Revokes) > 0 {
			t.Errorf("%s: revokes %+v", name, e.Revokes)
		}
		warnings := fmt.Sprint(e.Permits)
		for _, w := range c.warns {
			if !strings.Contains(warnings, w) {
				t.Errorf("%s: %s; want %q", name, warnings, w)
			}
		}
	}
}

// TestNothingIsHidden compares with the real policy: a request that only the new one allows,
// or with another credential, is one that the effect tells of.
func TestNothingIsHidden(t *testing.T) {
	hosts := []string{"a.example", "x.a.example", "b.example"}
	patterns := []string{"a.example", "*.a.example", "x.a.example", "b.example", "*.example"}
	paths := []string{"/", "/x", "/x/y", "/xy"}
	globs := [][]string{nil, {"/x"}, {"/x/**"}, {"/x*"}, {"/*"}}
	methods := [][]string{nil, {"GET"}, {"POST", "GET"}}
	ports := [][]uint16{nil, {443}, {80}, {80, 8443}}
	// A small generator with a fixed seed: the same policies every time.
	seed := uint32(1)
	rnd := func(n int) int {
		seed = seed*1664525 + 1013904223
		return int(seed>>16) % n
	}
	random := func() (config.Policy, bool) {
		var p config.Policy
		p.AllowAll = rnd(8) == 0
		for range rnd(3) {
			p.Allow = append(p.Allow, policy.Rule{Host: patterns[rnd(len(patterns))], Ports: ports[rnd(len(ports))]})
		}
		for range rnd(3) {
			r := policy.Route{Host: patterns[rnd(len(patterns))], Ports: ports[rnd(len(ports))], Methods: methods[rnd(len(methods))], Paths: globs[rnd(len(globs))]}
			switch rnd(3) {
			case 0:
				r.Credential = token("T")
			case 1:
				r.PassCredentials = true
			}
			p.Routes = append(p.Routes, r)
		}
		return p, p.Validate() == nil
	}
	type verdict struct {
		allowed, own bool
		secret       string
	}
	decide := func(p config.Policy, host string, port uint16, method, path string) verdict {
		routes, err := policy.NewRoutes(p.Routes)
		if err != nil {
			t.Fatal(err)
		}
		list, err := policy.NewAllowlist(p.AllowAll, p.Allow)
		if err != nil {
			t.Fatal(err)
		}
		if !routes.Governs(host, port) {
			return verdict{allowed: list.Decide(host, port).Allow, own: true}
		}
		target, err := policy.CanonicalTarget(path)
		if err != nil {
			t.Fatal(err)
		}
		d := routes.Decide(host, port, method, target)
		v := verdict{allowed: d.Allow}
		if d.Allow {
			v.own = d.Route.PassCredentials
			if d.Route.Credential != nil {
				v.secret = d.Route.Credential.Secret
			}
		}
		return v
	}
	more := 0
	for range 1000 {
		before, ok := random()
		after, too := random()
		if !ok || !too {
			continue
		}
		items := Compare(before, after).Permits
		for _, host := range hosts {
			for _, port := range []uint16{80, 443, 8443} {
				for _, method := range []string{"GET", "POST", "DELETE"} {
					for _, path := range paths {
						was, is := decide(before, host, port, method, path), decide(after, host, port, method, path)
						if !is.allowed || was.allowed && (is.secret == "" || is.secret == was.secret) && (!is.own || was.own) {
							continue
						}
						more++
						told := slices.ContainsFunc(items, func(i Item) bool {
							if !hostOf(i.Host).covers(hostOf(host)) || i.Ports != nil && !slices.Contains(i.Ports, port) || i.Methods != nil && !slices.Contains(i.Methods, method) {
								return false
							}
							return i.Secret == is.secret && (i.Paths == nil || slices.ContainsFunc(i.Paths, func(g string) bool {
								glob, err := policy.ParseGlob(g)
								return err == nil && glob.Match(path)
							}))
						})
						if !told {
							t.Fatalf("%s %s:%d%s (%+v, before %+v) is not told of\nbefore %+v\nafter %+v\ntold %+v", method, host, port, path, is, was, before, after, items)
						}
					}
				}
			}
		}
	}
	if more < 1000 {
		t.Errorf("only %d requests were newly allowed", more)
	}
}
