package egress

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/bottle-run/bottle/core/manifest"
)

func TestWhatIsShownCanBeRead(t *testing.T) {
	b := newBench(t)
	b.env["TOKEN"] = "token-value-1"
	for _, text := range []string{
		"    egress: {}\n",
		"    egress: {allow_all: true, allow: [\"*.a.test\", {id: \"true\", host: b.test, ports: [1, 2]}, \"[2001:db8::1]:8443\"]}\n",
		"    egress: {routes: [{id: x, host: a.test, ports: [8443], methods: [GET], paths: [\"/a/**\"], credential: {token: TOKEN, kind: header, header: X-Key, scheme: Key}}, {host: b.test, credential: {token: TOKEN, kind: basic, username: \"yes\"}}, {host: c.test, credential: {token: TOKEN, kind: query, parameter: k}}, {host: d.test, pass_credentials: true}]}\n",
	} {
		p, _ := b.good(text)
		shown, err := Section(p.AllowAll, p.Allow, p.Routes)
		if err != nil {
			t.Fatal(err)
		}
		section, err := manifest.ParsePolicy("shown", shown, "a")
		if err != nil {
			t.Fatalf("%v\n%s", err, shown)
		}
		again, _ := New(Source{Egress: section.Egress, LookupEnv: func(name string) (string, bool) { v, ok := b.env[name]; return v, ok }, Fail: func(keys []string, format string, args ...any) {
			t.Errorf("%v\n%s", section.Errorf(keys, format, args...), shown)
		}})
		if diff := cmp.Diff(p, again, cmpopts.IgnoreUnexported(Way{})); diff != "" {
			t.Errorf("%s\n%s", diff, shown)
		}
		if strings.Contains(string(shown), "token-value") {
			t.Errorf("a value is shown:\n%s", shown)
		}
	}
}
