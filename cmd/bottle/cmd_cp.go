package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/core/unpack"
)

// cpOptions are those of bottle cp. Exactly one of the two sides is in a bottle.
type cpOptions struct {
	From, To copySide
	Limit    int64
}

// copySide is a path, in a bottle if Bottle is not empty.
type copySide struct {
	Bottle, Path string
}

func newCpCommand(f *factory, do func(cpOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "cp",
		Usage:     "copy files into or out of a bottle",
		ArgsUsage: "SOURCE DEST",
		Description: "One of the two is NAME:/PATH, in a bottle; a host path with a colon is written ./PATH. As the\n" +
			"other one, - is a tar archive on standard input or output. What comes out is the agent's: links\n" +
			"that lead out of the copy are left out, and nothing is written outside of DEST.\n\n" +
			"Example: bottle cp dev:/workspace/report.pdf .\n" +
			"Example: bottle cp notes.md dev:/workspace/",
		Flags: []cli.Flag{&cli.StringFlag{Name: "limit", Value: "64GiB", Usage: "copy out at most `SIZE`"}},
		Action: func(c *cli.Context) error {
			if err := arity(c, 2, 2); err != nil {
				return err
			}
			if err := f.noCommand("cp"); err != nil {
				return err
			}
			limit, ok := manifest.ParseSize(c.String("limit"))
			if !ok {
				return usageErrorf("--limit %s: want a size such as 512MiB", c.String("limit"))
			}
			opts := cpOptions{From: parseSide(c.Args().Get(0)), To: parseSide(c.Args().Get(1)), Limit: int64(limit)}
			if (opts.From.Bottle == "") == (opts.To.Bottle == "") {
				return usageErrorf("one of the two, and only one, is in a bottle: NAME:/PATH")
			}
			if do != nil {
				return do(opts)
			}
			return f.cp(opts)
		},
	}
}

func parseSide(arg string) copySide {
	name, path, ok := strings.Cut(arg, ":")
	if !ok || core.CheckName(name) != nil {
		return copySide{Path: arg}
	}
	return copySide{Bottle: name, Path: path}
}

// cp is bottle cp.
func (f *factory) cp(opts cpOptions) error {
	return f.withBottle(opts.From.Bottle+opts.To.Bottle, func(sig *signals, b *core.Bottle) error {
		if opts.To.Bottle != "" {
			return f.copyIn(sig.work, b, opts)
		}
		return f.copyOut(sig.work, b, opts)
	})
}

func (f *factory) copyIn(ctx context.Context, b *core.Bottle, opts cpOptions) error {
	if opts.From.Path == "-" {
		return b.CopyTo(ctx, opts.To.Path, f.io.Stdin)
	}
	notes, err := b.CopyIn(ctx, opts.From.Path, opts.To.Path)
	if f.globals.JSON && err == nil {
		return f.io.json(map[string][]string{"notes": append([]string{}, notes...)})
	}
	f.notes(notes)
	return err
}

func (f *factory) copyOut(ctx context.Context, b *core.Bottle, opts cpOptions) error {
	if opts.To.Path == "-" {
		if out, ok := f.io.Stdout.(*os.File); ok && term.IsTerminal(int(out.Fd())) {
			return usageErrorf("a tar archive is not written to a terminal: name a file, or pipe it on")
		}
		archive, err := b.CopyFrom(ctx, opts.From.Path)
		if err != nil {
			return err
		}
		_, err = io.Copy(f.io.Stdout, archive)
		if closeErr := archive.Close(); err == nil {
			err = closeErr
		}
		return err
	}
	result, err := b.CopyOut(ctx, opts.From.Path, opts.To.Path, unpack.Options{MaxBytes: opts.Limit})
	if f.globals.JSON && err == nil {
		return f.io.json(result)
	}
	f.notes(result.Notes)
	return err
}

func (f *factory) notes(notes []string) {
	for _, n := range notes {
		_, _ = fmt.Fprintf(f.io.Stderr, "note: %s\n", printable(n))
	}
}
