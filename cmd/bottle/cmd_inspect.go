package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
)

// inspectOptions are those of bottle inspect.
type inspectOptions struct{ Name string }

func newInspectCommand(f *factory, do func(inspectOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "inspect",
		Usage:     "show what a bottle is: containers, networks, sidecars' health, policy revision",
		ArgsUsage: "NAME",
		Description: "It shows no secret. With --json it is one object.\n\n" +
			"Example: bottle inspect dev\n" +
			"Example: bottle inspect dev --json",
		Action: func(c *cli.Context) error {
			if err := arity(c, 1, 1); err != nil {
				return err
			}
			if err := f.noCommand("inspect"); err != nil {
				return err
			}
			opts := inspectOptions{Name: c.Args().First()}
			if do != nil {
				return do(opts)
			}
			return f.inspect(opts)
		},
	}
}

// inspect is bottle inspect.
func (f *factory) inspect(opts inspectOptions) error {
	return f.withBottle(opts.Name, func(sig *signals, b *core.Bottle) error {
		in, err := b.Inspect(sig.work)
		if err != nil {
			return err
		}
		if f.globals.JSON {
			return f.io.json(in)
		}
		return f.io.inspection(in)
	})
}

// inspection writes what a bottle is for people. All of it may be others' words.
func (s *streams) inspection(in core.Inspection) error {
	w := tabwriter.NewWriter(s.Stdout, 0, 4, 2, ' ', 0)
	row := func(key, format string, args ...any) {
		_, _ = fmt.Fprintf(w, "%s\t%s\n", key, core.Escape(fmt.Sprintf(format, args...))) // Flush tells
	}
	row("name", "%s", in.Name)
	row("agent", "%s", in.Agent)
	row("state", "%s, for %s", in.State, time.Since(in.Created).Round(time.Second))
	if len(in.Command) > 0 {
		row("command", "%q", in.Command)
	}
	row("user", "%s", orElse(in.User, "root"))
	mode := "rootful"
	if in.Engine.Rootless {
		mode = "rootless"
	}
	row("engine", "%s %s, %s, at %s", in.Engine.Name, in.Engine.Version, mode, in.Engine.Endpoint)
	row("launch", "%s", in.Launch)
	if in.PolicyRevision != "" {
		row("policy", "revision %s", in.PolicyRevision)
	}
	for _, c := range in.Containers {
		state := c.State
		if c.Status != nil {
			state += fmt.Sprintf(" with status %d", *c.Status)
		}
		if c.Health != "" {
			state += ", " + c.Health
		}
		if c.Reason != "" {
			state += ": " + strings.ReplaceAll(c.Reason, "\n", "; ")
		}
		row(c.Role, "%s, %s", c.Name, state)
		for _, network := range slices.Sorted(maps.Keys(c.Addresses)) {
			row("", "%s on %s", orElse(c.Addresses[network], "no address"), network)
		}
	}
	for _, n := range in.Networks {
		kind := "with a way out"
		if n.Internal {
			kind = "sealed"
		}
		row("network", "%s, %s, %s", n.Name, n.Subnet, kind)
	}
	for _, name := range slices.Sorted(maps.Keys(in.Labels)) {
		row("label", "%s=%s", name, in.Labels[name])
	}
	for _, note := range in.Notes {
		row("note", "%s", note)
	}
	return w.Flush()
}
