package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
)

// exportOptions are those of bottle export.
type exportOptions struct {
	Name   string
	Export core.ExportOptions
}

func newExportCommand(f *factory, do func(exportOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "take an agent's work out: into a new directory, or as a commit on a new branch",
		ArgsUsage: "NAME",
		Description: "--to DIR takes all of the workspace; DIR is made. --branch BRANCH commits what the agent has changed on top\n" +
			"of HEAD of the repository that the workspace was copied from; your work tree stays as it is. Nothing is\n" +
			"overwritten. What the agent has changed and would run by itself on this host (.envrc,\n" +
			".vscode, .idea, hooks, ...) is refused unless --allow names it, and so are links that lead out; --skip\n" +
			"leaves them out. A .git directory of the agent's is never taken.\n\n" +
			"Example: bottle export dev --branch agent/fix-tests\n" +
			"Example: bottle export dev --to ../result --allow .vscode/tasks.json",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "to", Usage: "make `DIR` and lay the workspace down in it"},
			&cli.StringFlag{Name: "branch", Usage: "make `BRANCH` with one commit"},
			&cli.StringFlag{Name: "message", Aliases: []string{"m"}, Usage: "the commit's `TEXT`"},
			&cli.StringSliceFlag{Name: "allow", Usage: "take `PATH` although it would run by itself"},
			&cli.BoolFlag{Name: "skip", Usage: "leave out what is refused, and take the rest"},
			&cli.BoolFlag{Name: "all", Usage: "also new files that ignore files leave out"},
			limitFlag,
		},
		Action: func(c *cli.Context) error {
			if err := arity(c, 1, 1); err != nil {
				return err
			}
			if err := f.noCommand("export"); err != nil {
				return err
			}
			opts := exportOptions{Name: c.Args().First(), Export: core.ExportOptions{
				Dir: c.String("to"), Branch: c.String("branch"), Message: c.String("message"), Allow: c.StringSlice("allow"), Skip: c.Bool("skip"), All: c.Bool("all"),
			}}
			if (opts.Export.Dir == "") == (opts.Export.Branch == "") {
				return usageErrorf("name one of --to DIR and --branch BRANCH")
			}
			var err error
			if opts.Export.MaxBytes, err = limit(c); err != nil {
				return err
			}
			if do != nil {
				return do(opts)
			}
			return f.export(opts)
		},
	}
}

// export is bottle export.
func (f *factory) export(opts exportOptions) error {
	return f.withBottle(opts.Name, func(sig *signals, b *core.Bottle) error {
		result, err := b.Export(sig.work, opts.Export)
		if err != nil {
			return err
		}
		if f.globals.JSON {
			return f.io.json(result)
		}
		for _, name := range result.LeftOut {
			_, _ = fmt.Fprintf(f.io.Stderr, "left out: %s\n", core.Escape(name))
		}
		f.notes(result.Notes)
		if result.Commit != "" {
			_, err = fmt.Fprintf(f.io.Stdout, "%s %s\n", result.Commit, result.Branch)
		} else {
			_, err = fmt.Fprintln(f.io.Stdout, result.Dir)
		}
		return err
	})
}
