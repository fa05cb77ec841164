package main

import (
	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core/manifest"
)

func newSchemaCommand(f *factory) *cli.Command {
	return &cli.Command{
		Name:        "schema",
		Usage:       "print the JSON Schema of bottle.yaml",
		Description: "Example: bottle schema",
		Action: func(c *cli.Context) error {
			if err := arity(c, 0, 0); err != nil {
				return err
			}
			text, err := manifest.Schema()
			if err != nil {
				return err
			}
			_, err = f.io.Stdout.Write(text)
			return err
		},
	}
}
