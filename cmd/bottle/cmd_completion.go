package main

import (
	"embed"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

//go:embed completion
var completions embed.FS

// shells are those that can complete.
var shells = []string{"bash", "fish", "zsh"}

func newCompletionCommand(f *factory) *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print what a shell needs to complete commands, flags and bottles' names",
		ArgsUsage: "bash|zsh|fish",
		Description: "bash: source <(bottle completion bash), in ~/.bashrc\n" +
			"zsh:  bottle completion zsh > \"${fpath[1]}/_bottle\"\n" +
			"fish: bottle completion fish > ~/.config/fish/completions/bottle.fish\n\n" +
			"Example: bottle completion zsh",
		Action: func(c *cli.Context) error {
			if err := arity(c, 1, 1); err != nil {
				return err
			}
			shell := c.Args().First()
			if !slices.Contains(shells, shell) {
				return usageErrorf("there is no completion for %q: it is one of %s", shell, strings.Join(shells, ", "))
			}
			script, err := completions.ReadFile("completion/bottle." + shell)
			if err != nil {
				return err
			}
			_, err = f.io.Stdout.Write(script)
			return err
		},
	}
}
