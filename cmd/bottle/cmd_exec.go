package main

import (
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/manifest"
)

const execName = "exec"

// execOptions are those of bottle exec.
type execOptions struct {
	Name    string
	Command []string
	User    string
	WorkDir string
	Env     []string
	TTY     *bool
}

func newExecCommand(f *factory, do func(execOptions) error) *cli.Command {
	return &cli.Command{
		Name:        execName,
		Usage:       "run a command in a running bottle",
		ArgsUsage:   "NAME [--] [CMD...]",
		Description: "Without CMD, the agent's command. Its exit status is passed on. Flags come before NAME.\n\nExample: bottle exec --user root dev -- apt-get update",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "user", Aliases: []string{"u"}, Usage: "run as `USER`, who does not get the bottle's secret variables, even if it is the agent's"},
			&cli.StringFlag{Name: "workdir", Aliases: []string{"w"}, Usage: "run in `DIR`"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set `NAME[=VALUE]`; without a value, the host's"},
			ttyFlag, noTTYFlag,
		},
		Action: func(c *cli.Context) error {
			if err := arity(c, 1, 1); err != nil {
				return err
			}
			opts := execOptions{
				Name: c.Args().First(), Command: f.command, User: c.String("user"), WorkDir: c.String("workdir"),
				Env: c.StringSlice("env"), TTY: ttyWish(c),
			}
			if do != nil {
				return do(opts)
			}
			return f.exec(opts)
		},
	}
}

// exec is bottle exec.
func (f *factory) exec(opts execOptions) error {
	env, err := parseEnv(opts.Env)
	if err != nil {
		return err
	}
	sig, rt, release, err := f.engine()
	if err != nil {
		return err
	}
	defer release()
	b, err := core.OpenMatching(sig.work, rt, opts.Name, nil)
	if err != nil {
		return interruptedOr(sig.work, err)
	}
	return f.attach(sig.work, b, attachOptions{Command: opts.Command, Env: env, User: opts.User, WorkDir: opts.WorkDir, TTY: opts.TTY})
}

// parseEnv reads the values of --env.
func parseEnv(wishes []string) (map[string]string, error) {
	env := map[string]string{}
	for _, wish := range wishes {
		name, value, given := strings.Cut(wish, "=")
		if err := manifest.CheckEnvName(name); err != nil {
			return nil, usageErrorf("--env: %v", err)
		}
		if !given {
			if value, given = os.LookupEnv(name); !given {
				return nil, core.Errorf(core.KindInput, "--env %s: the variable is not set: export it, or write %s=VALUE", name, name)
			}
		}
		env[name] = value
	}
	return env, nil
}
