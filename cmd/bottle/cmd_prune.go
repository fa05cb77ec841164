package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core/leftover"
	"github.com/bottle-run/bottle/core/session"
)

// pruneOptions are those of bottle prune.
type pruneOptions struct {
	// Names are the bottles that it is about; none means all.
	Names  []string
	DryRun bool
	All    bool
}

func newPruneCommand(f *factory, do func(pruneOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "prune",
		Usage:     "remove what killed bottles left",
		ArgsUsage: "[NAME...]",
		Description: "A bottle whose process was killed is removed by its watchdog, or else by the next command\n" +
			"that talks to the engine. This does it on demand, and says what stays and why. With --all, it also\n" +
			"removes detached bottles whose agent is gone, and bottles of yours of which there is no record and whose\n" +
			"process is dead. Bottles of living processes and of other users are never removed. With names, it is about\n" +
			"bottles of these names alone.\n\n" +
			"Example: bottle prune --dry-run",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "say what would be removed, and remove nothing"},
			&cli.BoolFlag{Name: "all", Usage: "also remove what is yours and nobody needs any more, as far as can be told"},
		},
		Action: func(c *cli.Context) error {
			if err := arity(c, 0, -1); err != nil {
				return err
			}
			if err := f.noCommand("prune"); err != nil {
				return err
			}
			opts := pruneOptions{Names: c.Args().Slice(), DryRun: c.Bool("dry-run"), All: c.Bool("all")}
			if do != nil {
				return do(opts)
			}
			return f.prune(opts)
		},
	}
}

// pruned is a line of bottle prune.
type pruned struct {
	leftover.Finding
	// Removed is what was removed, in words.
	Removed []string `json:"removed,omitempty"`
	// Done says what came of it.
	Done string `json:"done"`
}

// prune is bottle prune.
func (f *factory) prune(opts pruneOptions) error {
	store, err := f.knownSessions()
	if err != nil {
		return err
	}
	sig, rt, release, err := f.engineAsItIs()
	if err != nil {
		return err
	}
	defer release()
	if !opts.DryRun && store != nil {
		if _, err := store.Tidy(); err != nil {
			return err
		}
	}
	k := leftover.Keeper{Runtime: rt, Store: store, System: session.ThisSystem()}
	found, err := k.Find(sig.work)
	if err != nil {
		return interruptedOr(sig.work, err)
	}
	var errs *multierror.Error
	for _, it := range found {
		if len(opts.Names) > 0 && !slices.Contains(opts.Names, it.Bottle) {
			continue
		}
		line := pruned{Finding: it, Done: "stays"}
		switch wanted := it.Verdict == leftover.Remove || it.Verdict == leftover.Ask && opts.All; {
		case !wanted || it.Elsewhere != "":
		case opts.DryRun:
			line.Done = "would be removed"
		default:
			line.Removed, err = k.Remove(sig.work, it, nil)
			line.Done = "removed"
			if errors.Is(err, leftover.ErrBusy) {
				line.Done, err = "stays: another process sees to it", nil
			}
			if err != nil {
				line.Done = "failed"
				errs = multierror.Append(errs, fmt.Errorf("bottle %s: %w", it.Bottle, interruptedOr(sig.work, err)))
			}
		}
		if err := f.writePruned(line, opts.All); err != nil {
			return err
		}
	}
	if errs != nil && len(errs.Errors) == 1 {
		return errs.Errors[0]
	}
	return errs.ErrorOrNil()
}

func (f *factory) writePruned(p pruned, all bool) error {
	if f.globals.JSON {
		return f.io.json(p)
	}
	name := p.Bottle
	if name == "" {
		name = p.Launch
	}
	text := fmt.Sprintf("%s: %s: %s", name, p.Done, p.Why)
	switch {
	case len(p.Removed) > 0:
		text += "; " + strings.Join(p.Removed, ", ")
	case p.Elsewhere != "":
	case p.Verdict == leftover.Ask && !all:
		text += "; bottle prune --all removes it"
	}
	_, err := fmt.Fprintln(f.io.Stdout, printable(text))
	return err
}
