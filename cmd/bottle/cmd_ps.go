package main

import (
	"errors"
	"fmt"
	"io/fs"
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

// psLine is a bottle in the list, with what its record says.
type psLine struct {
	core.Status
	// Record is one of the words below; empty where no records are kept.
	Record string `json:"record,omitempty"`
}

// What a record can be, beside there.
const (
	recordThere = "recorded"
	recordNone  = "no record"
	recordBad   = "record unreadable"
)

// records tells whether there are records of launches, and the user of those that cannot be
// read, whatever they are about.
func (f *factory) records() func(launch string) string {
	if !f.recorded {
		return func(string) string { return "" }
	}
	store, err := f.knownSessions()
	if err != nil || store == nil {
		return func(string) string { return recordNone } // tidy has said why
	}
	entries, err := store.List()
	if err != nil {
		f.note("%v", err)
	}
	for _, e := range entries {
		if e.Err != nil {
			f.note("%v", e.Err)
		}
	}
	return func(launch string) string {
		switch _, err := store.Load(launch); {
		case err == nil:
			return recordThere
		case errors.Is(err, fs.ErrNotExist):
			return recordNone
		}
		return recordBad
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
	records := f.records()
	if f.globals.JSON {
		for _, s := range list {
			if err := f.io.json(psLine{s, records(s.Launch)}); err != nil {
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
		if it := records(s.Launch); it != "" && it != recordThere {
			state += ", " + it
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", printable(s.Name), printable(s.Agent), state, max(0, time.Since(s.Created)).Round(time.Second))
	}
	return w.Flush()
}
