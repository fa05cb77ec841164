// Package mcp registers an MCP server in the configuration files of agents, each in its own
// form. It is pure.
package mcp

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"
)

// MaxFile bounds a configuration file that is added to, in bytes.
const MaxFile = 1 << 20

// Workspace stands at the beginning of a path for the directory that the agent works in.
const Workspace = "./"

// agent is a program that reads its servers from a file.
type agent struct {
	path  string // below Workspace, or below ~/
	key   string // member that holds the servers; empty for TOML
	entry func(url string) any
}

type object = map[string]any

// The forms are those of each program's documentation: Claude Code "Connect to tools via MCP",
// Codex "config.toml", Cursor "mcp.json", Gemini CLI "MCP servers", OpenCode "MCP servers",
// Visual Studio Code "MCP configuration reference".
var agents = map[string]agent{
	"claude":   {Workspace + ".mcp.json", "mcpServers", func(url string) any { return object{"type": "http", "url": url} }},
	"codex":    {"~/.codex/config.toml", "", nil},
	"cursor":   {"~/.cursor/mcp.json", "mcpServers", func(url string) any { return object{"url": url} }},
	"gemini":   {"~/.gemini/settings.json", "mcpServers", func(url string) any { return object{"httpUrl": url} }},
	"opencode": {"~/.config/opencode/opencode.json", "mcp", func(url string) any { return object{"type": "remote", "url": url, "enabled": true} }},
	"vscode":   {Workspace + ".vscode/mcp.json", "servers", func(url string) any { return object{"type": "http", "url": url} }},
}

// Names are the programs that are known, sorted.
func Names() []string { return slices.Sorted(maps.Keys(agents)) }

// Path is where a program that is known reads its servers from: below [Workspace] or ~/.
func Path(name string) string { return agents[name].path }

// Register adds a server to the configuration of a program that is known, in place of one of
// the same name. The rest stays as it is. Existing is nil if there is no file. What is not in
// the program's form is an error.
func Register(name string, existing []byte, server, url string) ([]byte, error) {
	a := agents[name]
	if a.key == "" {
		return registerTOML(existing, server, url)
	}
	if len(bytes.TrimSpace(existing)) == 0 {
		existing = []byte("{}")
	}
	if !gjson.ValidBytes(existing) || !gjson.ParseBytes(existing).IsObject() {
		return nil, fmt.Errorf("%s is no JSON object", a.path)
	}
	if servers := gjson.GetBytes(existing, a.key); servers.Exists() && !servers.IsObject() {
		return nil, fmt.Errorf("%s has %s, which is no JSON object", a.path, a.key)
	}
	if string(existing) == "{}" {
		text, err := json.MarshalIndent(object{a.key: object{server: a.entry(url)}}, "", "  ")
		return append(text, '\n'), err
	}
	return sjson.SetBytes(existing, a.key+"."+server, a.entry(url))
}

// registerTOML adds a table at the end, where one may always stand.
func registerTOML(existing []byte, server, url string) ([]byte, error) {
	table := "[mcp_servers." + server + "]"
	for line := range strings.Lines(string(existing)) {
		if strings.HasPrefix(strings.ReplaceAll(line, " ", ""), table) {
			return nil, fmt.Errorf("the file has the table %s already", table)
		}
	}
	text := slices.Clone(existing)
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	return fmt.Appendf(text, "%s\nurl = %q\n", table, url), nil
}
