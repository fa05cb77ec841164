package main

import (
	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
)

// attachCommandOptions are those of bottle attach.
type attachCommandOptions struct {
	Name string
	TTY  *bool
}

func newAttachCommand(f *factory, do func(attachCommandOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "attach",
		Usage:     "run the agent in a bottle that was left running, with your terminal",
		ArgsUsage: "NAME",
		Description: "Does in a bottle of bottle run --detach what bottle run does in a new one: the agent's command runs with your\n" +
			"terminal, you are told when a sidecar dies, and its exit status is passed on. The bottle stays, for the next\n" +
			"attach: bottle stop ends it. An agent that runs already keeps the terminal that it has, as engines give a\n" +
			"command's terminal to who started it: then a second one is started beside it.\n\n" +
			"Example: bottle attach dev",
		Flags: []cli.Flag{ttyFlag, noTTYFlag},
		Action: func(c *cli.Context) error {
			if err := arity(c, 1, 1); err != nil {
				return err
			}
			if err := f.noCommand("attach"); err != nil {
				return err
			}
			opts := attachCommandOptions{Name: c.Args().First(), TTY: ttyWish(c)}
			if do != nil {
				return do(opts)
			}
			return f.attachTo(opts)
		},
	}
}

// attachTo is bottle attach.
func (f *factory) attachTo(opts attachCommandOptions) error {
	return f.withBottle(opts.Name, func(sig *signals, b *core.Bottle) error {
		attach := attachOptions{TTY: opts.TTY}
		w := f.watch(sig.work, b, f.hasTerminal(attach) && f.io.Terminal != nil)
		err := f.attachThrough(sig, b, attach)
		w.end(sig.work)
		return err
	})
}
