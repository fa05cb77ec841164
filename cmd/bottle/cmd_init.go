package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/scaffold"
)

// initOptions are those of bottle init.
type initOptions struct {
	Dir       string
	Agent     string
	Languages []string
	Force     bool
}

func newInitCommand(f *factory, do func(initOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "init",
		Usage:     "write a first bottle.yaml and Dockerfile for a project",
		ArgsUsage: "[DIR]",
		Description: "Recognises what the project is written in, allows its package registries and the\n" +
			"agent's API, and nothing else. Nothing is replaced without --force.\n\n" +
			"Example: bottle init --agent codex && bottle run --dry-run",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "agent", Value: "claude-code", Usage: "`AGENT` to work with: " + strings.Join(scaffold.Agents(), ", ")},
			&cli.StringSliceFlag{Name: "language", Usage: "`LANGUAGE` of the project, if it is not recognised: " + strings.Join(scaffold.Languages(), ", ")},
			&cli.BoolFlag{Name: "force", Usage: "replace files that are there"},
		},
		Action: func(c *cli.Context) error {
			if err := arity(c, 0, 1); err != nil {
				return err
			}
			if err := f.noCommand("init"); err != nil {
				return err
			}
			opts := initOptions{Dir: c.Args().First(), Agent: c.String("agent"), Languages: c.StringSlice("language"), Force: c.Bool("force")}
			if err := oneOf("agent", opts.Agent, scaffold.Agents()); err != nil {
				return err
			}
			for _, l := range opts.Languages {
				if err := oneOf("language", l, scaffold.Languages()); err != nil {
					return err
				}
			}
			if do != nil {
				return do(opts)
			}
			return f.init(opts)
		},
	}
}

// init is bottle init.
func (f *factory) init(opts initOptions) error {
	dir := opts.Dir
	if dir == "" {
		dir = "."
	}
	host, err := f.host()
	if err != nil {
		return err
	}
	s, err := scaffold.New(os.DirFS(dir), scaffold.Options{Agent: opts.Agent, Languages: opts.Languages, LookupEnv: host.LookupEnv})
	if err != nil {
		return err
	}
	if err := s.Write(dir, opts.Force); err != nil {
		var exists *scaffold.ExistsError
		if errors.As(err, &exists) {
			return core.Errorf(core.KindInput, "%s: %w", dir, err)
		}
		return core.Errorf(core.KindInput, "write the files: %w", err)
	}
	if f.globals.JSON {
		return f.io.json(s)
	}
	for _, file := range s.Files {
		if _, err := fmt.Fprintln(f.io.Stdout, file.Name); err != nil {
			return err
		}
	}
	note := fmt.Sprintf("%s for %s; look at it with bottle run --dry-run", s.Agent, strings.Join(s.Languages, ", "))
	if s.Token != "" {
		note += fmt.Sprintf("; %s is not set: bottle.yaml says what to do with a key", s.Token)
	}
	_, err = fmt.Fprintln(f.io.Stderr, note)
	return err
}
