package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime"
)

// runOptions are those of bottle run.
type runOptions struct {
	Agent     string
	Name      string
	Command   []string
	Workspace *string
	Env       []string
	Detach    bool
	DryRun    bool
	NoCache   bool
	TTY       *bool
	Count     int // of bottles; 0 for one that is not counted
	// Trace is a file; Timings are for standard error.
	Trace   string
	Timings bool
}

// newRunCommand describes bottle run. do is called with the options instead of
// running, if it is not nil: tests read them.
func newRunCommand(f *factory, do func(runOptions) error) *cli.Command {
	return &cli.Command{
		Name:      "run",
		Usage:     "bring an agent's bottle up, run the agent in it, and remove it",
		ArgsUsage: "[AGENT] [-- CMD...]",
		Description: "The agent may be left out if the manifest has only one. Its command, or CMD, runs in\n" +
			"the bottle with your terminal, and its exit status is passed on.\n\n" +
			"Example: bottle run dev\n" +
			"Example: bottle run dev --name try -e DEBUG=1 -- make test",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "name", Usage: "the bottle's `NAME`; it is an error if it is taken"},
			&cli.BoolFlag{Name: "detach", Aliases: []string{"d"}, Usage: "leave the bottle running, idle, and print its name"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print what would be done, and do nothing"},
			&cli.StringFlag{Name: "workspace", Usage: "copy `DIR` in, instead of the manifest's workspace"},
			&cli.BoolFlag{Name: "no-workspace", Usage: "copy no workspace in"},
			&cli.StringSliceFlag{Name: "env", Aliases: []string{"e"}, Usage: "set `NAME[=VALUE]`; without a value, the host's"},
			&cli.BoolFlag{Name: "no-cache", Usage: "build the image anew"},
			&cli.IntFlag{Name: "count", Usage: "run `N` bottles at once, named NAME-1 to NAME-N; what they print is prefixed by that"},
			&cli.StringFlag{Name: "trace", Usage: "write what was done when, and the engine's calls, to `FILE`, for chrome://tracing and Perfetto"},
			&cli.BoolFlag{Name: "timings", Usage: "print a summary of that at the end"},
			ttyFlag, noTTYFlag,
		},
		Action: func(c *cli.Context) error {
			if err := arity(c, 0, 1); err != nil {
				return err
			}
			opts := runOptions{
				Agent: c.Args().First(), Name: c.String("name"), Command: f.command, Env: c.StringSlice("env"),
				Detach: c.Bool("detach"), DryRun: c.Bool("dry-run"), NoCache: c.Bool("no-cache"), TTY: ttyWish(c),
				Count: c.Int("count"), Trace: c.String("trace"), Timings: c.Bool("timings"),
			}
			switch {
			case c.IsSet("workspace") && c.Bool("no-workspace"):
				return usageErrorf("--workspace and --no-workspace exclude each other")
			case c.IsSet("workspace") && c.String("workspace") == "":
				return usageErrorf("--workspace needs a directory")
			case c.IsSet("workspace"):
				dir := c.String("workspace")
				opts.Workspace = &dir
			case c.Bool("no-workspace"):
				opts.Workspace = new(string)
			}
			switch {
			case f.command != nil && len(f.command) == 0:
				return usageErrorf("there is no command after --")
			case c.IsSet("count") && opts.TTY != nil && *opts.TTY:
				return usageErrorf("--count and --tty exclude each other: the bottles would share the terminal")
			case c.IsSet("count") && (opts.Trace != "" || opts.Timings):
				return usageErrorf("--trace and --timings are about one bottle, and cannot be had with --count")
			case c.IsSet("count") && opts.Count < 1:
				return usageErrorf("--count %d: it is a number from 1 to %d", opts.Count, maxFleet)
			case c.IsSet("trace") && opts.Trace == "":
				return usageErrorf("--trace needs a file")
			case opts.Detach && f.command != nil:
				return usageErrorf("--detach runs no command: run it with bottle exec NAME -- CMD")
			}
			if do != nil {
				return do(opts)
			}
			return f.run(opts)
		},
	}
}

var (
	ttyFlag   = &cli.BoolFlag{Name: "tty", Aliases: []string{"t"}, Usage: "give the command a terminal, even if you have none"}
	noTTYFlag = &cli.BoolFlag{Name: "no-tty", Aliases: []string{"T"}, Usage: "give the command no terminal"}
)

// ttyWish is what the user said about a terminal, or nil.
func ttyWish(c *cli.Context) *bool {
	yes, no := true, false
	switch {
	case c.Bool("no-tty"):
		return &no
	case c.Bool("tty"):
		return &yes
	}
	return nil
}

// run is bottle run.
func (f *factory) run(opts runOptions) (err error) {
	tr, err := f.tracing(opts.Trace, opts.Timings && !opts.DryRun)
	if err != nil {
		return err
	}
	defer func() {
		if written := tr.write(); err == nil {
			err = written
		}
	}()
	planned := tr.span("make the plan")
	host, err := f.host()
	if err != nil {
		return err
	}
	m, err := f.manifest(host)
	if err != nil {
		return err
	}
	plan, secrets, err := core.NewPlan(m, host, core.Wishes{
		Agent: opts.Agent, Name: opts.Name, Command: opts.Command, Workspace: opts.Workspace, Env: opts.Env, NoCache: opts.NoCache,
	})
	if err != nil {
		return err
	}
	if opts.Count > 0 {
		if err := checkFleet(opts.Count, plan.Name); err != nil {
			return err
		}
	}
	planned()
	if opts.DryRun {
		if f.globals.JSON {
			return f.io.json(plan)
		}
		return plan.WriteText(f.io.Stdout)
	}
	rec, err := f.record(m.File())
	if err != nil {
		return err
	}
	defer f.end(rec)
	connected := tr.span("connect to the engine")
	sig, rt, release, err := f.engine()
	connected()
	if err != nil {
		return err
	}
	defer release()
	rt = tr.runtime(rt)
	launch := func(g *factory, plan core.Plan) error {
		return g.launch(sig, rt, plan, secrets, rec, opts, tr)
	}
	if opts.Count > 0 {
		return f.fleet(opts, plan, launch)
	}
	return launch(f, plan)
}

// launch brings a bottle up, runs the agent in it and removes it, or leaves it.
func (f *factory) launch(sig *signals, rt runtime.Runtime, plan core.Plan, secrets core.Secrets, rec *recorder, opts runOptions, tr *tracing) error {
	observe, done := f.observer()
	defer done()
	observe = tr.observer(observe)
	leave, err := f.enter(sig)
	if err != nil {
		return err
	}
	defer leave()
	clearing, cancel := sig.clearing()
	defer cancel()
	b, err := core.Launch(sig.work, rt, plan, rec.options(core.LaunchOptions{Secrets: secrets, Observer: observe, Images: images(), Teardown: clearing}, opts.Detach))
	leave()
	done()
	if err != nil {
		return err
	}
	if opts.Detach && sig.work.Err() == nil {
		if err := b.Detach(); err != nil {
			if closed := b.Close(clearing); closed != nil {
				return &core.LaunchError{Err: err, Teardown: closed}
			}
			return err
		}
		if f.globals.JSON {
			return f.io.json(map[string]any{"name": b.Name, "agent": b.Agent})
		}
		_, err := fmt.Fprintln(f.io.Stdout, b.Name)
		return err
	}
	return f.attachAndClose(sig, b, attachOptions{TTY: opts.TTY}, tr)
}

// attachAndClose runs the agent's command and removes the bottle, whatever came
// of it. The command's status counts more than what could not be removed, which
// is said in any case.
func (f *factory) attachAndClose(sig *signals, b *core.Bottle, opts attachOptions, tr *tracing) error {
	attached := tr.span("run the agent's command")
	w := f.watch(sig.work, b, f.hasTerminal(opts) && f.io.Terminal != nil)
	ran := f.attachThrough(sig, b, opts)
	attached()
	w.end(sig.work)
	// The teardown has its own time, however long the agent ran.
	clearing, cancel := sig.clearing()
	defer cancel()
	closed := b.Close(clearing)
	var status statusError
	switch {
	case closed == nil:
		return ran
	case errors.As(ran, &status):
		code, kind := exitCode(closed)
		f.io.fail(closed, kind, code, f.globals.JSON)
		return ran
	case ran == nil:
		return closed
	}
	return &core.LaunchError{Err: ran, Teardown: closed}
}

// interruptedOr is the signal that ended ctx, or err.
func interruptedOr(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}
