package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/manifest"
)

// buildOptions are those of bottle build.
type buildOptions struct {
	Bottles []string
	NoCache bool
}

func newBuildCommand(f *factory, do func(buildOptions) error) *cli.Command {
	return &cli.Command{
		Name:        "build",
		Usage:       "build or pull the images of bottles",
		ArgsUsage:   "[BOTTLE...]",
		Description: "Without arguments, those of every bottle of the manifest. Prints each image's reference.\n\nExample: bottle build --no-cache box",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "no-cache", Usage: "build anew"}},
		Action: func(c *cli.Context) error {
			if err := f.noCommand("build"); err != nil {
				return err
			}
			opts := buildOptions{Bottles: c.Args().Slice(), NoCache: c.Bool("no-cache")}
			if do != nil {
				return do(opts)
			}
			return f.build(opts)
		},
	}
}

// build is bottle build.
func (f *factory) build(opts buildOptions) error {
	host, err := f.host()
	if err != nil {
		return err
	}
	m, err := f.manifest(host)
	if err != nil {
		return err
	}
	images, names, err := plannedImages(m, host, opts)
	if err != nil {
		return err
	}
	sig, rt, release, err := f.engine()
	if err != nil {
		return err
	}
	defer release()
	observe, done := f.observer()
	defer done()
	for i, image := range images {
		got, err := core.EnsureImage(sig.work, rt, image, observe)
		done()
		if err != nil {
			return interruptedOr(sig.work, err)
		}
		ref := got.ID
		if len(got.Tags) > 0 {
			ref = got.Tags[0]
		}
		if f.globals.JSON {
			err = f.io.json(map[string]any{"bottle": names[i], "image": ref, "id": got.ID})
		} else {
			_, err = fmt.Fprintln(f.io.Stdout, ref)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// plannedImages plans every image before the first is built.
func plannedImages(m *manifest.Manifest, host core.Host, opts buildOptions) (images []core.Image, names []string, err error) {
	if names = opts.Bottles; len(names) == 0 {
		names = slices.Sorted(maps.Keys(m.Bottles))
	}
	for _, name := range names {
		image, err := core.NewBuild(m, name, host, core.Wishes{NoCache: opts.NoCache})
		if err != nil {
			return nil, nil, err
		}
		images = append(images, image)
	}
	return images, names, nil
}
