package main

import (
	"errors"
	"time"

	"github.com/hashicorp/go-multierror"
	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
)

// stopOptions are those of bottle stop.
type stopOptions struct {
	Names []string
	Time  time.Duration
}

func newStopCommand(f *factory, do func(stopOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "stop",
		Usage:     "let a bottle's agent end, then remove the bottle",
		ArgsUsage: "NAME...",
		Description: "The agent's processes get SIGTERM and some time; then the bottle is removed with all that belongs\n" +
			"to it, as it is when its agent ends by itself: a stopped bottle cannot be started again. bottle rm does the\n" +
			"same without asking the agent. What the agent has made is gone with either: see bottle diff, export, cp.\n\n" +
			"Example: bottle stop dev --time 1m",
		Flags: []cli.Flag{&cli.DurationFlag{Name: "time", Value: 10 * time.Second, Usage: "how long the agent may take"}},
		Action: func(c *cli.Context) error {
			if err := arity(c, 1, -1); err != nil {
				return err
			}
			if err := f.noCommand("stop"); err != nil {
				return err
			}
			opts := stopOptions{Names: c.Args().Slice(), Time: c.Duration("time")}
			if opts.Time < 0 {
				return usageErrorf("--time %v: it is no time", opts.Time)
			}
			if do != nil {
				return do(opts)
			}
			return f.stop(opts)
		},
	}
}

// stop is bottle stop.
func (f *factory) stop(opts stopOptions) error {
	rec, err := f.record("")
	if err != nil {
		// What is there can be removed all the same.
		f.note("%v", err)
	}
	defer f.end(rec)
	sig, rt, release, err := f.engine()
	if err != nil {
		return err
	}
	defer release()
	observe, done := f.observer()
	defer done()
	var errs *multierror.Error
	for _, name := range opts.Names {
		b, err := core.OpenMatching(sig.work, rt, name, observe)
		var ended bool
		if err == nil {
			ended, err = b.EndAgent(sig.work, opts.Time)
			if sig.work.Err() == nil {
				err = errors.Join(err, rec.close(core.Hurry(sig.work, sig.hurry), b))
			}
		}
		done()
		if err == nil && f.globals.JSON {
			err = f.io.json(map[string]any{"name": b.Name, "ended": ended})
		}
		if err != nil {
			errs = multierror.Append(errs, interruptedOr(sig.work, err))
		}
	}
	if errs != nil && len(errs.Errors) == 1 {
		return errs.Errors[0]
	}
	return errs.ErrorOrNil()
}
