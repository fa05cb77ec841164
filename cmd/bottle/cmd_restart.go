package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
)

// restartOptions are those of bottle restart.
type restartOptions struct {
	Name  string
	Keep  []string
	Force bool
}

func newRestartCommand(f *factory, do func(restartOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "restart",
		Usage:     "replace a bottle's agent container: by one of an approved image, or a fresh one",
		ArgsUsage: "NAME",
		Description: "The workspace, the files that the manifest puts in, and the variables are carried over as the\n" +
			"agent has them; the rest of the container is as in the image again. The sidecars and the policy in force\n" +
			"stay. The old container runs until the new one is complete, and is left if something fails. A bottle\n" +
			"run that is attached runs the agent's command again.\n\n" +
			"Example: bottle restart dev --keep ~/.cache",
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "keep", Usage: "carry `PATH` over, too: absolute, or below the agent's home as ~/..."},
			&cli.BoolFlag{Name: "force", Usage: "remove what another restart has left, or is still at"},
		},
		Action: func(c *cli.Context) error {
			if err := arity(c, 1, 1); err != nil {
				return err
			}
			if err := f.noCommand("restart"); err != nil {
				return err
			}
			opts := restartOptions{Name: c.Args().First(), Keep: c.StringSlice("keep"), Force: c.Bool("force")}
			if do != nil {
				return do(opts)
			}
			return f.restart(opts)
		},
	}
}

// restart is bottle restart.
func (f *factory) restart(opts restartOptions) error {
	return f.withBottle(opts.Name, func(sig *signals, b *core.Bottle) error {
		observe, done := f.observer()
		defer done()
		clearing, cancel := sig.clearing()
		defer cancel()
		return b.Restart(sig.work, core.RestartOptions{Observer: observe, Keep: opts.Keep, Force: opts.Force, Teardown: clearing})
	})
}

// attachThrough runs the agent's command, and runs it again in the new container when
// somebody restarts the bottle.
func (f *factory) attachThrough(sig *signals, b *core.Bottle, opts attachOptions) error {
	keys := newRelay(f.io.Stdin)
	for {
		var release func()
		opts.Stdin, release = keys.reader()
		err := f.attach(sig.work, b, opts)
		release()
		if sig.work.Err() != nil {
			return err
		}
		restarted, followed := b.Follow(sig.work)
		if followed != nil || !restarted {
			return err // an engine that does not answer is told by the teardown
		}
		_, _ = fmt.Fprintf(f.io.Stderr, "bottle: bottle %s was restarted: the command runs again\n", b.Name)
	}
}
