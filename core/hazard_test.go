package core

import "testing"

func TestFilesThatRunByThemselvesAreKnown(t *testing.T) {
	for _, name := range []string{
		".envrc", "deep/down/.ENVRC", ".vscode/tasks.json", "a/.vscode/sub/x", ".vscode", ".idea/workspace.xml", "x.code-workspace", ".husky/pre-commit",
		".pre-commit-config.yaml", ".claude/settings.json", ".mcp.json", "mise.toml", "mise.local.toml", ".config/mise.toml", ".bashrc", "sub/.dir-locals-2.el", "lefthook.yml",
	} {
		if runsByItself(name) == "" {
			t.Errorf("%s passes", name)
		}
	}
	for _, name := range []string{"Makefile", "package.json", "vscode/x", "src/envrc", ".vscodex/y", ".github/workflows/ci.yaml", "config/x", "premise.toml", ".gitignore"} {
		if why := runsByItself(name); why != "" {
			t.Errorf("%s is refused: %s", name, why)
		}
	}
}
