package main

import (
	"fmt"

	"github.com/hashicorp/go-multierror"
	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
)

// rmOptions are those of bottle rm.
type rmOptions struct {
	Names  []string
	Images bool
}

func newRmCommand(f *factory, do func(rmOptions) error) *cli.Command {
	return &cli.Command{
		Name:        "rm",
		Usage:       "end bottles and remove all that belongs to them",
		ArgsUsage:   "[NAME...]",
		Description: "At once: bottle stop lets the agent end first.\n\nExample: bottle rm dev dev-2",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "images", Usage: "also remove the images built for the manifest's bottles, unless a container uses them"}},
		Action: func(c *cli.Context) error {
			least := 1
			if c.Bool("images") {
				least = 0
			}
			if err := arity(c, least, -1); err != nil {
				return err
			}
			if err := f.noCommand("rm"); err != nil {
				return err
			}
			opts := rmOptions{Names: c.Args().Slice(), Images: c.Bool("images")}
			if do != nil {
				return do(opts)
			}
			return f.rm(opts)
		},
	}
}

// rm is bottle rm.
func (f *factory) rm(opts rmOptions) error {
	var images []core.Image
	if opts.Images {
		host, err := f.host()
		if err != nil {
			return err
		}
		m, err := f.manifest(host)
		if err != nil {
			return err
		}
		if images, _, err = plannedImages(m, host, buildOptions{}); err != nil {
			return err
		}
	}
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
		switch {
		case err == nil:
			err = rec.close(core.Hurry(sig.work, sig.hurry), b)
		case core.KindOf(err) == core.KindNotFound:
			err = rec.forget(sig.work, rt, name, err)
		}
		done()
		if err == nil && f.globals.JSON {
			removed := name // of which there was only a record
			if b != nil {
				removed = b.Name
			}
			err = f.io.json(map[string]string{"name": removed})
		}
		if err != nil {
			errs = multierror.Append(errs, interruptedOr(sig.work, err))
		}
	}
	if opts.Images {
		removed, err := core.RemoveImages(sig.work, rt, images)
		if err != nil {
			errs = multierror.Append(errs, interruptedOr(sig.work, err))
		}
		for _, ref := range removed {
			_, _ = fmt.Fprintf(f.io.Stderr, "remove image %s\n", printable(ref))
		}
	}
	if errs != nil && len(errs.Errors) == 1 {
		return errs.Errors[0]
	}
	return errs.ErrorOrNil()
}
