package main

import (
	"github.com/hashicorp/go-multierror"
	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
)

// rmOptions are those of bottle rm.
type rmOptions struct {
	Names []string
}

func newRmCommand(f *factory, do func(rmOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "rm",
		Usage:     "end bottles and remove all that belongs to them",
		ArgsUsage: "NAME...",
		Action: func(c *cli.Context) error {
			if err := arity(c, 1, -1); err != nil {
				return err
			}
			if err := f.noCommand("rm"); err != nil {
				return err
			}
			opts := rmOptions{Names: c.Args().Slice()}
			if do != nil {
				return do(opts)
			}
			return f.rm(opts)
		},
	}
}

// rm is bottle rm.
func (f *factory) rm(opts rmOptions) error {
	sig := f.signals()
	defer sig.stop()
	rt, err := f.connect(sig.work)
	if err != nil {
		return interruptedOr(sig.work, err)
	}
	defer func() { _ = rt.Close() }()
	observe, done := f.observer()
	defer done()
	var errs *multierror.Error
	for _, name := range opts.Names {
		b, err := core.Open(sig.work, rt, name, observe)
		if err == nil {
			err = b.Close(sig.work)
		}
		done()
		if err != nil {
			errs = multierror.Append(errs, interruptedOr(sig.work, err))
		}
	}
	if errs != nil && len(errs.Errors) == 1 {
		return errs.Errors[0]
	}
	return errs.ErrorOrNil()
}
