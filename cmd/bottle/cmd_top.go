package main

import (
	"context"
	"fmt"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime"
)

// topOptions are those of bottle top.
type topOptions struct {
	Names    []string
	Follow   bool
	Interval time.Duration
}

func newTopCommand(f *factory, do func(topOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "top",
		Aliases:   []string{"stats"},
		Usage:     "show what bottles use: processor, memory, processes, of agent and sidecars",
		ArgsUsage: "[NAME...]",
		Description: "Without a name, of all bottles. Processor time is measured over --interval; 100% is one processor. Where\n" +
			"the engine cannot tell (a rootless one with control groups of version 1) the exit status is 116.\n\n" +
			"Example: bottle top dev\n" +
			"Example: bottle top --follow --interval 5s --json",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "follow", Usage: "go on until the bottles end, or you do"},
			&cli.DurationFlag{Name: "interval", Value: time.Second, Usage: "measure over this time"},
		},
		Action: func(c *cli.Context) error {
			if err := arity(c, 0, -1); err != nil {
				return err
			}
			if err := f.noCommand("top"); err != nil {
				return err
			}
			opts := topOptions{Names: c.Args().Slice(), Follow: c.Bool("follow"), Interval: c.Duration("interval")}
			if opts.Interval < 100*time.Millisecond {
				return usageErrorf("--interval %v: it is at least 100ms", opts.Interval)
			}
			if do != nil {
				return do(opts)
			}
			return f.top(opts)
		},
	}
}

// top is bottle top.
func (f *factory) top(opts topOptions) error {
	sig, rt, release, err := f.engine()
	if err != nil {
		return err
	}
	defer release()
	return interruptedOr(sig.work, f.measure(sig.work, rt, opts))
}

func (f *factory) measure(ctx context.Context, rt runtime.Runtime, opts topOptions) error {
	bottles, err := openAll(ctx, rt, opts.Names)
	if err != nil {
		return err
	}
	var meter core.Meter
	if _, err := readAll(ctx, &meter, bottles); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(opts.Interval):
		}
		usage, err := readAll(ctx, &meter, bottles)
		if err != nil {
			return err
		}
		if err := f.io.usage(usage, f.globals.JSON); err != nil || !opts.Follow || len(usage) == 0 {
			return err
		}
	}
}

// openAll finds bottles by name, or all of them.
func openAll(ctx context.Context, rt runtime.Runtime, names []string) ([]*core.Bottle, error) {
	if len(names) == 0 {
		all, err := core.List(ctx, rt)
		if err != nil {
			return nil, err
		}
		for _, s := range all {
			names = append(names, s.Name)
		}
	}
	var list []*core.Bottle
	for _, name := range names {
		b, err := core.OpenMatching(ctx, rt, name, nil)
		if err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, nil
}

func readAll(ctx context.Context, meter *core.Meter, bottles []*core.Bottle) (all []core.Usage, err error) {
	for _, b := range bottles {
		usage, err := meter.Read(ctx, b)
		if err != nil {
			return nil, err
		}
		all = append(all, usage...)
	}
	return all, nil
}

// usage writes one round of figures.
func (s *streams) usage(list []core.Usage, asJSON bool) error {
	if asJSON {
		for _, u := range list {
			if err := s.json(u); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(s.Stdout, 0, 4, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "NAME\tROLE\tCPU\tCPU TIME\tMEMORY\tLIMIT\tPROCESSES") // Flush tells
	for _, u := range list {
		limit := "-"
		if u.MemoryLimit > 0 {
			limit = core.Bytes(u.MemoryLimit)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%.1f%%\t%s\t%s\t%s\t%d\n", core.Escape(u.Bottle), core.Escape(u.Role), u.CPU*100,
			time.Duration(u.CPUTime*float64(time.Second)).Round(10*time.Millisecond), core.Bytes(u.Memory), limit, u.PIDs)
	}
	return w.Flush()
}
