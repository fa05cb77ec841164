package scaffold

// Agent is a program that works in a bottle.
type Agent struct {
	// Name is what --agent takes.
	Name string
	// Title is what people call it.
	Title string
	// Package is its name in the npm registry; empty if it needs none.
	Package string
	Command []string
	// Env are variables that suit a bottle.
	Env [][2]string
	// API is the host it talks to, Token the variable that holds its key, and Header
	// where the key goes if that is not Authorization.
	API, Token, Header string
	// Hosts are further ones, each with what it is for.
	Hosts []Host
}

// Host is a host that may be reached, and why.
type Host struct{ Name, For string }

// agents are those that are known. Their packages and variables are those of their
// own documentation.
var agents = []Agent{
	{
		Name: "claude-code", Title: "Claude Code", Package: "@anthropic-ai/claude-code", Command: []string{"claude"},
		Env: [][2]string{{"DISABLE_AUTOUPDATER", "1"}, {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"}},
		API: "api.anthropic.com", Token: "ANTHROPIC_API_KEY", Header: "x-api-key",
	},
	{
		Name: "codex", Title: "Codex", Package: "@openai/codex", Command: []string{"codex"},
		API: "api.openai.com", Token: "OPENAI_API_KEY",
	},
	{
		Name: "opencode", Title: "OpenCode", Package: "opencode-ai", Command: []string{"opencode"},
		Env: [][2]string{{"OPENCODE_DISABLE_AUTOUPDATE", "1"}},
		API: "api.anthropic.com", Token: "ANTHROPIC_API_KEY", Header: "x-api-key",
		Hosts: []Host{{"models.dev", "OpenCode's list of models"}},
	},
	{Name: "shell", Title: "A shell", Command: []string{"bash", "--login"}},
}

// Agents are the names of those that are known.
func Agents() []string {
	names := make([]string, len(agents))
	for i, a := range agents {
		names[i] = a.Name
	}
	return names
}
