package manifest

import (
	"strings"
	"testing"
)

func TestASectionIsReadInItsForms(t *testing.T) {
	whole := minimal("    egress: {allow: [a.test], routes: [{host: b.test}]}\n", "")
	for name, text := range map[string]string{
		"by itself":    "allow: [a.test]\nroutes: [{host: b.test}]\n",
		"with its key": "egress:\n  allow: [a.test]\n  routes: [{host: b.test}]\n",
		"a manifest":   whole,
	} {
		s, err := ParsePolicy("f", []byte(text), "a")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(s.Egress.Allow) != 1 || s.Egress.Allow[0].Host != "a.test" || len(s.Egress.Routes) != 1 {
			t.Errorf("%s: %+v", name, s.Egress)
		}
		line := 1 + strings.Count(text[:strings.Index(text, "a.test")], "\n")
		if got := s.Errorf([]string{"egress", "allow", "0", "host"}, "x"); got.Line != line {
			t.Errorf("%s: the place is line %d, want %d", name, got.Line, line)
		}
	}
	if s, err := ParsePolicy("f", []byte("{}\n"), "a"); err != nil || s.Egress == nil {
		t.Errorf("a section that denies everything: %v", err)
	}
}

func TestGitIsPartOfASection(t *testing.T) {
	const git = "git: {r: {url: \"https://a.test/r\", push: {branches: [x]}}}\n"
	for name, text := range map[string]string{
		"alone":       git,
		"with egress": "egress: {}\n" + git,
		"a manifest":  minimal("    "+git, ""),
	} {
		s, err := ParsePolicy("f", []byte(text), "a")
		if err != nil || s.Git["r"].Push == nil || (s.Egress != nil) != (name == "with egress") {
			t.Errorf("%s: %v, %+v", name, err, s)
			continue
		}
		line := 1 + strings.Count(text[:strings.Index(text, "git:")], "\n")
		if got := s.Errorf([]string{"git", "r", "url"}, "x"); got.Line != line || got.Column < 10 {
			t.Errorf("%s: the place is %v, want line %d", name, got.Position, line)
		}
	}
	if _, err := ParsePolicy("f", []byte("git: {r: {url: u, push: {}}}\n"), "a"); err == nil || !strings.Contains(err.Error(), "f:1:25: push names neither") {
		t.Errorf("got %v", err)
	}
}

func TestMistakesOfASectionHaveTheirPlace(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "f:1:1: the file is empty: write egress: {} to deny everything",
		"alow: [a.test]\n":           `f:1:1: unknown key "alow" in egress: did you mean "allow"?`,
		"egress: {}\nfirewall: {}\n": `f:2:1: unknown key "firewall" in the file`,
		"egress:\n":                  "f:1:8: egress: no value given",
		"- a.test\n":                 "f:1:1: egress: want a mapping",
		"allow: [\"\"]\n":            "f:1:9: host is empty",
		"a: b: c\n":                  "this is not YAML",
		minimal("", ""):              `f:3:5: bottle "b" has no egress`,
		strings.ReplaceAll(minimal("    egress: {}\n", ""), "  a:\n", "  other:\n"): `there is no agent "a"`,
	} {
		if _, err := ParsePolicy("f", []byte(text), "a"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v; want %q", text, err, want)
		}
	}
	if _, err := ParsePolicy("f", []byte(strings.Repeat("#", maxBytes+1)), "a"); err == nil {
		t.Error("a file that is too large was read")
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add("allow: [a.test]\n")
	f.Add("egress: {routes: [{host: b.test, credential: {token: T}}]}\n")
	f.Add(minimal("    egress: {allow_all: true}\n", ""))
	f.Add("a: &a [*a]\n")
	f.Add("git: {r: {url: \"https://a.test/r\", push: {branches: [x]}}}\n")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParsePolicy("f", []byte(text), "a")
		if (err == nil) != (s != nil) || s != nil && s.Egress == nil && s.Git == nil {
			t.Fatalf("section %v and error %v", s, err)
		}
	})
}
