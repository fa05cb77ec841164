package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/changes"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/core/patch"
)

// diffOptions are those of bottle diff.
type diffOptions struct {
	Name     string
	NameOnly bool
	Stat     bool
	All      bool
	Limit    int64
}

func newDiffCommand(f *factory, do func(diffOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "diff",
		Usage:     "show what a bottle's agent has changed in its copy of your files",
		ArgsUsage: "NAME",
		Description: "Writes a patch that git apply takes, in the directory that was copied. The copy is compared with what\n" +
			"it was at the launch, whatever has changed in your directory since. What belongs to a git\n" +
			"repository (.git) is left out, and so are new files that your ignore files leave out. On a\n" +
			"terminal what could control it is escaped. With --json each change is one object.\n\n" +
			"Example: bottle diff dev --stat\n" +
			"Example: bottle diff dev | git apply",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "stat", Usage: "count the lines of each file instead"},
			&cli.BoolFlag{Name: "name-only", Usage: "list the files instead"},
			&cli.BoolFlag{Name: "all", Usage: "also new files that ignore files leave out"},
			limitFlag,
		},
		Action: func(c *cli.Context) error {
			if err := arity(c, 1, 1); err != nil {
				return err
			}
			if err := f.noCommand("diff"); err != nil {
				return err
			}
			opts := diffOptions{Name: c.Args().First(), NameOnly: c.Bool("name-only"), Stat: c.Bool("stat"), All: c.Bool("all")}
			if opts.NameOnly && opts.Stat {
				return usageErrorf("--stat and --name-only exclude each other")
			}
			var err error
			if opts.Limit, err = limit(c); err != nil {
				return err
			}
			if do != nil {
				return do(opts)
			}
			return f.diff(opts)
		},
	}
}

// limitFlag bounds what is taken out of a bottle to be looked at.
var limitFlag = &cli.StringFlag{Name: "limit", Value: "4GiB", Usage: "take at most `SIZE` out of the bottle"}

func limit(c *cli.Context) (int64, error) {
	n, ok := manifest.ParseSize(c.String("limit"))
	if !ok || n <= 0 {
		return 0, usageErrorf("--limit %s: want a size such as 512MiB", c.String("limit"))
	}
	return int64(n), nil
}

// diff is bottle diff.
func (f *factory) diff(opts diffOptions) error {
	return f.withBottle(opts.Name, func(sig *signals, b *core.Bottle) (err error) {
		d, err := b.Diff(sig.work, core.DiffOptions{All: opts.All, MaxBytes: opts.Limit})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, d.Close()) }()
		var lost []string
		for _, c := range d.Changes {
			err := f.io.change(d, c, opts, f.globals.JSON)
			var original *core.OriginalError
			switch {
			case errors.As(err, &original):
				lost = append(lost, patch.Quote(original.Name))
			case err != nil:
				return err
			}
		}
		f.notes(d.Notes)
		if len(lost) > 0 {
			return core.Errorf(core.KindInput, "%s: changed in your directory since the launch, too, and what the agent was given is not known any more: "+
				"the patch lacks that. Take the agent's version out with bottle cp or bottle export", strings.Join(lost, ", "))
		}
		return nil
	})
}

// change writes one change. What cannot be told because the original is not known is an
// *core.OriginalError, after what can be told.
func (s *streams) change(d *core.Diff, c changes.Change, opts diffOptions, asJSON bool) error {
	var text bytes.Buffer
	var out io.Writer = &text
	if asJSON || opts.Stat {
		out = io.Discard
	}
	var stat patch.Stat
	var lost error
	if !opts.NameOnly {
		if stat, lost = d.Patch(out, c); lost != nil && !errors.As(lost, new(*core.OriginalError)) {
			return lost
		}
	}
	var err error
	switch {
	case asJSON:
		line := map[string]any{"name": c.Name, "status": c.Status()}
		switch {
		case lost != nil:
			line["original_lost"] = true
		case !opts.NameOnly:
			line["added"], line["removed"], line["binary"] = stat.Added, stat.Removed, stat.Binary
		}
		err = s.json(line)
	case opts.NameOnly:
		_, err = fmt.Fprintln(s.Stdout, patch.Quote(c.Name))
	case opts.Stat:
		_, err = fmt.Fprintf(s.Stdout, "%s  %s  %s\n", c.Status(), statText(stat, lost), patch.Quote(c.Name))
	case s.Display:
		for line := range strings.Lines(text.String()) {
			if _, err = fmt.Fprintln(s.Stdout, core.Escape(strings.TrimSuffix(line, "\n"))); err != nil {
				return err
			}
		}
	default:
		_, err = s.Stdout.Write(text.Bytes())
	}
	if err != nil {
		return err
	}
	return lost
}

func statText(stat patch.Stat, lost error) string {
	switch {
	case lost != nil:
		return "     ?      ?"
	case stat.Binary:
		return "       binary"
	}
	return fmt.Sprintf("%6s %6s", fmt.Sprintf("+%d", stat.Added), fmt.Sprintf("-%d", stat.Removed))
}
