package show

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

func TestEscaping(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünïcode 漢字 ✓": "plain ünïcode 漢字 ✓",
		"\x1b[31mred":        `\u{1b}[31mred`, "a\x00b\x7f": `a\u{0}b\u{7f}`, "a\u009bb": `a\u{9b}b`,
		"\u202edesrever": `\u{202e}desrever`, "\u2066x\u2069": `\u{2066}x\u{2069}`, "a\u200bb\ufeff": `a\u{200b}b\u{feff}`,
		"a\nb\r\tc": `a\nb\r\tc`, "\xff\xfe": `\xff\xfe`, "a\u00a0b\u3000c": `a\u{a0}b\u{3000}c`,
		"\U000e0041": `\u{e0041}`, "\u3164": `\u{3164}`, "e\u0301": "e\u0301", "\ue000": `\u{e000}`,
		"z\u0300\u0300\u0300\u0300\u0300": "z\u0300\u0300\u0300\u0300\\u{300}", "\ufffd": "\ufffd",
	} {
		if got := Line(in); got != want {
			t.Errorf("%q: %q; want %q", in, got, want)
		}
	}
	if got := Block("a\n\tb\r\n\x1b"); got != "a\n    b\\r\n\\u{1b}" {
		t.Errorf("%q", got)
	}
}

func FuzzEscaping(f *testing.F) {
	f.Add("a\u202e\x1b\n\xff\U0001f600")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range Block(s) {
			if r != '\n' && (unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Bidi_Control, r)) {
				t.Fatalf("%q holds %U", Block(s), r)
			}
		}
		if strings.Contains(Line(s), "\n") {
			t.Fatal("a line feed in a line")
		}
		data, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		out := JSON(data)
		var back, want string
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &back); err != nil || back != want {
			t.Fatalf("%s: %q, %v", out, back, err)
		}
		for _, c := range out {
			if c < ' ' || c >= 0x7f {
				t.Fatalf("%q", out)
			}
		}
	})
}

func TestNamesThatAreMadeToBeTakenForOthers(t *testing.T) {
	known := []string{"github.com", "*.paypal.com", "api.anthropic.com", "10.0.0.1", "*"}
	for name, c := range map[string]struct{ owner, warns string }{
		"docs.example.com":                 {"example.com", ""},
		"github.com":                       {"github.com", ""},
		"api.github.com":                   {"github.com", ""},
		"*.example.com":                    {"example.com", "WILDCARD"},
		"*.co.uk":                          {"co.uk", "anybody can get a name below co.uk"},
		"*.github.io":                      {"github.io", "anybody can get a name below github.io"},
		"xn--pypal-4ve.com":                {"xn--pypal-4ve.com", "mixes the scripts Cyrillic and Latin"},
		"xn--80ak6aa92e.com":               {"xn--80ak6aa92e.com", "it looks like apple.com"},
		"xn--bcher-kva.example":            {"xn--bcher-kva.example", "not plain ASCII"},
		"github.com.evil.example":          {"evil.example", "holds the name github.com"},
		"github.com-login.example":         {"com-login.example", "holds the name github.com"},
		"githud.com":                       {"githud.com", "differs by one character from github.com"},
		"gihtub.com":                       {"gihtub.com", "differs by one character"},
		"glthub.com":                       {"glthub.com", "looks like github.com"},
		"paypa1.com":                       {"paypa1.com", "looks like paypal.com"},
		"api.anthropic.com.cdn.example":    {"cdn.example", "belongs to cdn.example"},
		"198.51.100.7":                     {"", "it is an address"},
		"*":                                {"", "every host"},
		"xn--eckwd4c7c.xn--zckzah.example": {"xn--zckzah.example", "not plain ASCII"},
	} {
		h := NewHost(name, known)
		got := strings.Join(h.Warnings, "; ")
		if h.Owner != c.owner || c.warns == "" && got != "" || !strings.Contains(got, c.warns) {
			t.Errorf("%s: %+v; want %+v", name, h, c)
		}
	}
	if h := NewHost("xn--80ak6aa92e.com", nil); h.Text != "xn--80ak6aa92e.com (аррӏе.com)" {
		t.Errorf("%q", h.Text)
	}
}
