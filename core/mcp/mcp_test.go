package mcp

import (
	"encoding/json"
	"strings"
	"testing"
)

const url = "http://supervise:9100/"

func TestRegisterInNothing(t *testing.T) {
	for name, want := range map[string]string{
		"claude":   `{"mcpServers":{"supervise":{"type":"http","url":"http://supervise:9100/"}}}`,
		"cursor":   `{"mcpServers":{"supervise":{"url":"http://supervise:9100/"}}}`,
		"gemini":   `{"mcpServers":{"supervise":{"httpUrl":"http://supervise:9100/"}}}`,
		"opencode": `{"mcp":{"supervise":{"enabled":true,"type":"remote","url":"http://supervise:9100/"}}}`,
		"vscode":   `{"servers":{"supervise":{"type":"http","url":"http://supervise:9100/"}}}`,
		"codex":    "[mcp_servers.supervise]\nurl = \"http://supervise:9100/\"\n",
	} {
		got, err := Register(name, nil, "supervise", url)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if name != "codex" {
			var v any
			if err := json.Unmarshal(got, &v); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			got, _ = json.Marshal(v)
		}
		if string(got) != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if len(Names()) != len(agents) || Path("claude") != "./.mcp.json" {
		t.Error(Names(), Path("claude"))
	}
}

func TestRegisterKeepsTheRest(t *testing.T) {
	for _, tc := range []struct{ name, existing, want string }{
		{"claude", "{\n  \"b\": 1,\n  \"mcpServers\": {\"own\": {\"url\": \"x\"}},\n  \"a\": 2\n}\n",
			"{\n  \"b\": 1,\n  \"mcpServers\": {\"own\": {\"url\": \"x\"},\"supervise\":{\"type\":\"http\",\"url\":\"http://supervise:9100/\"}},\n  \"a\": 2\n}\n"},
		{"claude", `{"mcpServers":{"supervise":{"command":"evil"}}}`, `{"mcpServers":{"supervise":{"type":"http","url":"http://supervise:9100/"}}}`},
		{"codex", "model = \"x\"", "model = \"x\"\n[mcp_servers.supervise]\nurl = \"http://supervise:9100/\"\n"},
	} {
		got, err := Register(tc.name, []byte(tc.existing), "supervise", url)
		if err != nil || string(got) != tc.want {
			t.Errorf("%s of %s: got %s, %v, want %s", tc.name, tc.existing, got, err, tc.want)
		}
	}
}

func TestRegisterRefusesWhatIsNotInForm(t *testing.T) {
	for _, tc := range []struct{ name, existing, says string }{
		{"claude", "[]", "no JSON object"},
		{"claude", "{", "no JSON object"},
		{"vscode", "{} // comment", "no JSON object"},
		{"claude", `{"mcpServers":3}`, "mcpServers"},
		{"codex", "[ mcp_servers.supervise ]\n", "already"},
	} {
		if got, err := Register(tc.name, []byte(tc.existing), "supervise", url); err == nil || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s of %q: got %s, %v", tc.name, tc.existing, got, err)
		}
	}
}
