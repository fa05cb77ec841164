package change

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
)

func base() config.Policy {
	return config.Policy{
		Allow:      []policy.Rule{{ID: "a", Host: "example.com"}, {Host: "b.example:8443"}},
		Routes:     []policy.Route{{ID: "gh", Host: "api.github.com", Methods: []string{"GET"}}},
		Git:        []config.GitRule{{Name: "app", URL: "u", Push: &config.GitPush{Branches: []string{"x"}, Force: true}}, {Name: "lib", URL: "v"}},
		Dockerfile: "FROM a\nRUN b\n",
	}
}

func TestApply(t *testing.T) {
	for name, c := range map[string]struct {
		change string
		want   func(*config.Policy)
	}{
		"add": {`{"kind":"egress_allow","egress_allow":{"add":[{"host":"Ünï.example.","ports":[443,443]},{"host":"EXAMPLE.com"}]}}`,
			func(p *config.Policy) {
				p.Allow = append(p.Allow, policy.Rule{ID: "new", Host: "xn--n-nga1b.example", Ports: []uint16{443}})
			}},
		"remove by id":   {`{"kind":"egress_allow","egress_allow":{"remove":["a"]}}`, func(p *config.Policy) { p.Allow = p.Allow[1:] }},
		"remove by host": {`{"kind":"egress_allow","egress_allow":{"remove":["b.example:8443"]}}`, func(p *config.Policy) { p.Allow = p.Allow[:1] }},
		"replace": {`{"kind":"egress_allow","egress_allow":{"replace":[{"host":"c.example"},{"host":"example.com","ports":[443,80]}]}}`,
			func(p *config.Policy) { p.Allow = []policy.Rule{{ID: "new", Host: "c.example"}, p.Allow[0]} }},
		"replace with nothing": {`{"kind":"egress_allow","egress_allow":{"replace":[]}}`, func(p *config.Policy) { p.Allow = nil }},
		"route": {`{"kind":"routes","routes":{"add":[{"host":"c.example:8443","methods":["post"]}]}}`,
			func(p *config.Policy) {
				p.Routes = append(p.Routes, policy.Route{ID: "new", Host: "c.example", Ports: []uint16{8443}, Methods: []string{"POST"}})
			}},
		"push": {`{"kind":"git_push","git_push":{"repository":"app","add":{"branches":["x","y"],"tags":["v*"]},"remove":{"force":true}}}`,
			func(p *config.Policy) {
				p.Git[0].Push = &config.GitPush{Branches: []string{"x", "y"}, Tags: []string{"v*"}}
			}},
		"push of another": {`{"kind":"git_push","git_push":{"repository":"lib","replace":{"branches":["z"]}}}`,
			func(p *config.Policy) { p.Git[1].Push = &config.GitPush{Branches: []string{"z"}} }},
		"edit": {`{"kind":"dockerfile","dockerfile":{"edits":[{"old_text":"FROM a","new_text":"FROM a AS c"},{"old_text":"c\n","new_text":"d\n"}]}}`,
			func(p *config.Policy) { p.Dockerfile = "FROM a AS d\nRUN b\n" }},
		"content": {`{"kind":"dockerfile","dockerfile":{"content":"FROM a"}}`, func(p *config.Policy) { p.Dockerfile = "FROM a" }},
	} {
		change, err := Decode([]byte(c.change))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		before, want := base(), base()
		c.want(&want)
		got, err := change.Apply(before, "new")
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, want)
		}
		if !reflect.DeepEqual(before, base()) {
			t.Errorf("%s: the policy that was given is changed: %+v", name, before)
		}
		if _, err := change.Apply(got, "new"); err == nil && name != "edit" {
			t.Errorf("%s: the same again is no error", name)
		}
	}
}

func TestDecode(t *testing.T) {
	for text, says := range map[string]string{
		`{"kind":"mounts"}`: "none of", `{}`: "none of", `{"kind":"routes","egress_allow":{"remove":["a"]}}`: "no other",
		`{"kind":"routes","routes":{"remove":["a"]},"dockerfile":{"content":"x"}}`: "no other", `{"kind":"routes","routes":{"rm":["a"]}}`: "unknown",
		`{"kind":"routes","routes":{"remove":["a"]}} {}`: "follows", `[]`: "cannot be read", ``: "cannot be read",
		`{"kind":"git_push","git_push":{"repository":"a"}}`: "not neither", `{"kind":"dockerfile","dockerfile":{}}`: "not neither",
		`{"kind":"egress_allow","egress_allow":{"remove":["` + strings.Repeat(`a","`, 101) + `"]}}`: "at most 100",
		strings.Repeat(" ", MaxBytes+1): "bytes",
	} {
		if _, err := Decode([]byte(text)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%.80s: %v; want %q", text, err, says)
		}
	}
}

func TestAnAgentMayPropose(t *testing.T) {
	conf := &config.Supervise{Policy: base(), Secrets: []string{"T"}, Kinds: []string{config.ProposeAllow, config.ProposeRoutes}}
	for text, says := range map[string]string{
		`{"kind":"egress_allow","egress_allow":{"add":[{"host":"c.example"}]}}`:                                 "",
		`{"kind":"egress_allow","egress_allow":{"replace":[{"id":"a","host":"example.com"}]}}`:                  "",
		`{"kind":"egress_allow","egress_allow":{"replace":[{"id":"b","host":"example.com"}]}}`:                  "leave it out",
		`{"kind":"egress_allow","egress_allow":{"add":[{"host":"x.localhost"}]}}`:                               "part of the bottle",
		`{"kind":"egress_allow","egress_allow":{"add":[{"host":"*.supervise"}]}}`:                               "top level domain",
		`{"kind":"egress_allow","egress_allow":{"add":[{"host":"[::1]:443"}]}}`:                                 "loopback",
		`{"kind":"routes","routes":{"add":[{"host":"c.example","credential":{"secret":"T","kind":"header"}}]}}`: "",
		`{"kind":"routes","routes":{"add":[{"host":"c.example","credential":{"secret":"U","kind":"header"}}]}}`: "no secret",
		`{"kind":"routes","routes":{"replace":[{"host":"firewall:8888","methods":["GET"]}]}}`:                   "part of the bottle",
		`{"kind":"dockerfile","dockerfile":{"content":"FROM x"}}`:                                               "cannot be proposed",
	} {
		c, err := Decode([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		err = c.CheckAgent(conf)
		var e *Error
		if says == "" && err != nil || says != "" && (!errors.As(err, &e) || !strings.Contains(err.Error(), says)) {
			t.Errorf("%s: %v; want %q", text, err, says)
		}
	}
}

// FuzzChange has what is accepted be a policy that the sidecars accept, and mean the same
// when it is read again.
func FuzzChange(f *testing.F) {
	for _, s := range []string{
		`{"kind":"egress_allow","egress_allow":{"add":[{"host":"a.example:1","ports":[]}],"remove":["a"]}}`,
		`{"kind":"routes","routes":{"replace":[{"host":"[::2]","methods":["get"],"paths":["/**"],"credential":{"secret":"T","kind":"query","parameter":"k"}}]}}`,
		`{"kind":"git_push","git_push":{"repository":"app","add":{"notes":["*"],"delete":true}}}`,
		`{"kind":"dockerfile","dockerfile":{"edits":[{"old_text":"a\n","new_text":"# escape=` + "`" + `"}]}}`,
	} {
		f.Add([]byte(s))
	}
	conf := &config.Supervise{Policy: base(), Secrets: []string{"T"}}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Decode(data)
		if err != nil || c.CheckAgent(conf) != nil {
			return
		}
		got, err := c.Apply(conf.Policy, "new")
		if !reflect.DeepEqual(conf.Policy, base()) {
			t.Fatal("the policy that was given is changed")
		}
		if err != nil {
			return
		}
		if err := got.Validate(); err != nil {
			t.Fatal(err)
		}
		if got.AllowAll {
			t.Fatal("allow_all is set")
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		d, err := Decode(again)
		if err != nil {
			t.Fatal(err)
		}
		if back, err := d.Apply(conf.Policy, "new"); err != nil || Revision(back) != Revision(got) {
			t.Fatalf("%s: %+v, %v; want %+v", again, back, err, got)
		}
	})
}

func TestWhatWouldTakeLongIsRefused(t *testing.T) {
	long := strings.Repeat("*a", 3000)
	for name, c := range map[string]Change{
		"a path":       {Kind: config.ProposeRoutes, Routes: &Routes{Add: []policy.Route{{Host: "a.example", Paths: []string{"/" + long}}}}},
		"a host":       {Kind: config.ProposeAllow, Allow: &Allow{Add: []policy.Rule{{Host: strings.Repeat("ü", 400)}}}},
		"a username":   {Kind: config.ProposeRoutes, Routes: &Routes{Add: []policy.Route{{Host: "a.example", Credential: &policy.Credential{Username: long}}}}},
		"ports":        {Kind: config.ProposeAllow, Allow: &Allow{Add: []policy.Rule{{Host: "a.example", Ports: make([]uint16, 200)}}}},
		"a whole list": {Kind: config.ProposeAllow, Allow: &Allow{Replace: ptr(make([]policy.Rule, 201))}},
	} {
		if err := c.check(); err == nil {
			t.Errorf("%s is not refused", name)
		}
	}
	// The most that is allowed takes no time to speak of.
	var routes []policy.Route
	for i := range 100 {
		r := policy.Route{Host: "a.example", Paths: []string{"/" + strings.Repeat("*a", 18)}}
		if i%2 == 1 {
			r.Credential = &policy.Credential{Secret: "T", Kind: policy.CredentialHeader}
			r.Paths[0] = "/b" + r.Paths[0][2:] + "b"
		}
		routes = append(routes, r)
	}
	c := Change{Kind: config.ProposeRoutes, Routes: &Routes{Add: routes}}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	_, err := c.Apply(base(), "new")
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("%v, %v", took, err)
	}
	t.Logf("%v, %v", time.Since(begin), err)
}

func ptr[T any](v T) *T { return &v }
