package main

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
)

func newPsCommand(f *factory, do func() error) *cli.Command {
	return &cli.Command{
		Name:        "ps",
		Usage:       "list bottles",
		Description: "Example: bottle ps --runtime podman --json",
		Action: func(c *cli.Context) error {
			if err := arity(c, 0, 0); err != nil {
				return err
			}
			if err := f.noCommand("ps"); err != nil {
				return err
			}
			if do != nil {
				return do()
			}
			return f.ps()
		},
	}
}

// ps is bottle ps.
func (f *factory) ps() error {
	sig, rt, release, err := f.engine()
	if err != nil {
		return err
	}
	defer release()
	list, err := core.List(sig.work, rt)
	if err != nil {
		return interruptedOr(sig.work, err)
	}
	if f.globals.JSON {
		for _, s := range list {
			if err := f.io.json(s); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(f.io.Stdout, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tAGENT\tSTATE\tAGE") // Flush tells
	for _, s := range list {
		state := s.State
		if len(s.Dead) > 0 {
			state += ", dead: " + printable(strings.Join(s.Dead, " "))
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", printable(s.Name), printable(s.Agent), state, time.Since(s.Created).Round(time.Second))
	}
	return w.Flush()
}
