package core

import (
	"path"
	"strings"
)

// hazards are files that programs of the host run, or take commands from, without being asked to
// run anything: on entering a directory, on opening it in an editor, or on a git command. Patterns
// are in lower case, as names are compared; one with "/**" at its end means all below a
// directory. They match at any depth. A Makefile or a package.json is none: it runs when it is told to.
var hazards = []struct{ pattern, why string }{
	{".envrc", "direnv runs it on entering the directory"},
	{".autoenv*", "autoenv runs it on entering the directory"},
	{".mise*.toml", "mise runs its hooks on entering the directory"},
	{"mise*.toml", "mise runs its hooks on entering the directory"},
	{".mise/**", "mise runs its hooks on entering the directory"},
	{".config/mise/**", "mise runs its hooks on entering the directory"},
	{".config/mise.toml", "mise runs its hooks on entering the directory"},
	{".vscode/**", "Visual Studio Code runs its tasks, and programs that its settings name"},
	{"*.code-workspace", "Visual Studio Code runs its tasks, and programs that its settings name"},
	{".devcontainer/**", "editors run its initializeCommand on the host"},
	{".devcontainer.json", "editors run its initializeCommand on the host"},
	{".idea/**", "JetBrains' editors run its startup tasks"},
	{".fleet/**", "Fleet runs programs that its settings name"},
	{".zed/**", "Zed runs programs that its settings name"},
	{".nvim.lua", "editors of the vi family run it"},
	{".nvimrc", "editors of the vi family run it"},
	{".exrc", "editors of the vi family run it"},
	{".vimrc", "editors of the vi family run it"},
	{".dir-locals*.el", "Emacs takes settings from it"},
	{"*.sublime-project", "Sublime Text takes programs from it"},
	{".gdbinit", "gdb runs it"},
	{".lldbinit", "lldb runs it"},
	{".husky/**", "git runs its hooks"},
	{".githooks/**", "git runs its hooks, if it is told to look there"},
	{".pre-commit-config.yaml", "the pre-commit hook runs what it names"},
	{"lefthook.y*ml", "lefthook's git hook runs what it names"},
	{".lefthook.y*ml", "lefthook's git hook runs what it names"},
	{".claude/**", "Claude Code runs its hooks"},
	{".mcp.json", "agents start the servers that it names"},
	{".cursor/**", "Cursor starts the servers that it names, and runs its hooks"},
	{".codex/**", "Codex starts the servers that its configuration names"},
	{".gemini/**", "Gemini CLI starts the servers that its settings name"},
	{".opencode/**", "OpenCode runs its plugins"},
	{"opencode.json*", "OpenCode starts the servers that it names"},
	{".bashrc", "shells run it, in a home directory"},
	{".bash_profile", "shells run it, in a home directory"},
	{".bash_login", "shells run it, in a home directory"},
	{".bash_logout", "shells run it, in a home directory"},
	{".profile", "shells run it, in a home directory"},
	{".zshrc", "shells run it, in a home directory"},
	{".zshenv", "shells run it, in a home directory"},
	{".zprofile", "shells run it, in a home directory"},
	{".gitconfig", "git runs programs that it names, in a home directory"},
	{".config/**", "programs take commands from it, in a home directory"},
	{".ssh/**", "ssh runs programs that it names, in a home directory"},
}

// runsByItself says why a file would run on the host without being asked to, or is empty.
func runsByItself(name string) string {
	name = strings.ToLower(name)
	parts := strings.Split(name, "/")
	for _, h := range hazards {
		if dir, ok := strings.CutSuffix(h.pattern, "/**"); ok {
			// A link or file in the directory's place counts, too.
			if strings.Contains("/"+name+"/", "/"+dir+"/") {
				return h.why
			}
			continue
		}
		elements := strings.Count(h.pattern, "/") + 1
		if len(parts) < elements {
			continue
		}
		if ok, _ := path.Match(h.pattern, strings.Join(parts[len(parts)-elements:], "/")); ok {
			return h.why
		}
	}
	return ""
}
