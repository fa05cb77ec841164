package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime/conformance"
	"github.com/bottle-run/bottle/runtime/conformance/world"
)

// conformanceOptions are those of bottle conformance.
type conformanceOptions struct {
	Filter  *regexp.Regexp
	Reports []string
	World   string
	Shared  bool
	Verbose bool
}

// conformanceError is a run in which tests failed.
type conformanceError struct{ failed int }

func (e conformanceError) Error() string {
	if e.failed == 1 {
		return "1 conformance test failed"
	}
	return fmt.Sprintf("%d conformance tests failed", e.failed)
}

func newConformanceCommand(f *factory, do func(conformanceOptions) error) *cli.Command {
	return &cli.Command{
		Name:  "conformance",
		Usage: "test whether an engine keeps what bottle needs of it",
		Description: "Runs the suite on the engine that --runtime and --host name. It makes networks, images and\n" +
			"containers, and leaves nothing. What it sends meets only what the run itself made: the outside\n" +
			"world is a network namespace, which needs root. For a rootless engine, serve it as root with\n" +
			"bottle conformance world, and name it with --world.\n\n" +
			"Example: bottle conformance --runtime podman --report report.md",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "run", Usage: "run only the tests whose name matches `REGEX`"},
			&cli.StringSliceFlag{Name: "report", Usage: "write a report to `FILE`: .json, .xml (JUnit) or .md; may be repeated"},
			&cli.StringFlag{Name: "world", EnvVars: []string{"BOTTLE_CONFORMANCE_WORLD"}, Usage: "`SOCKET` of a world that is served already"},
			&cli.BoolFlag{Name: "shared-host", Usage: "others use this host meanwhile: what is left on the host, not the engine, only warns"},
			&cli.BoolFlag{Name: "verbose", Usage: "print what tests note"},
		},
		Subcommands: []*cli.Command{newWorldCommand(f)},
		Action: func(c *cli.Context) error {
			if err := arity(c, 0, 0); err != nil {
				return err
			}
			if err := f.noCommand("conformance"); err != nil {
				return err
			}
			opts := conformanceOptions{Reports: c.StringSlice("report"), World: c.String("world"), Shared: c.Bool("shared-host"), Verbose: c.Bool("verbose")}
			if text := c.String("run"); text != "" {
				filter, err := regexp.Compile(text)
				if err != nil {
					return usageErrorf("--run: %v", err)
				}
				opts.Filter = filter
			}
			if do != nil {
				return do(opts)
			}
			return f.conformance(opts)
		},
	}
}

func newWorldCommand(f *factory) *cli.Command {
	return &cli.Command{
		Name:        "world",
		Usage:       "serve the outside world that the suite tests against (needs root; Linux)",
		Description: "Example: bottle conformance world --listen /run/world.sock",
		Flags:       []cli.Flag{&cli.StringFlag{Name: "listen", Required: true, Usage: "`SOCKET` to make"}},
		Action: func(c *cli.Context) error {
			if err := arity(c, 0, 0); err != nil {
				return err
			}
			sig := f.signals()
			defer sig.stop()
			socket := c.String("listen")
			err := world.Serve(sig.work, socket, func() { _, _ = fmt.Fprintf(f.io.Stderr, "listening on %s\n", socket) })
			// To be ended by a signal is how it is meant to end.
			if sig.work.Err() != nil && (err == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(sig.work))) {
				return nil
			}
			return err
		},
	}
}

// conformance is bottle conformance.
func (f *factory) conformance(opts conformanceOptions) error {
	for _, file := range opts.Reports {
		if err := reportName(file); err != nil {
			return err
		}
	}
	sig, rt, release, err := f.engine()
	if err != nil {
		return err
	}
	defer release()
	run := conformance.Options{Filter: opts.Filter, World: opts.World, SharedHost: opts.Shared, Ended: f.showResult}
	if opts.Verbose {
		run.Logf = func(format string, args ...any) { _, _ = fmt.Fprintf(f.io.Stderr, "    "+format+"\n", args...) }
	}
	report, err := conformance.Run(sig.work, rt, run)
	if err != nil {
		return interruptedOr(sig.work, err)
	}
	for _, file := range opts.Reports {
		if err := report.WriteFile(file); err != nil {
			return core.Errorf(core.KindOther, "%w", err)
		}
	}
	counts := map[conformance.Status]int{}
	for _, r := range report.Results {
		counts[r.Status]++
	}
	if len(report.Results) == 0 {
		return usageErrorf("--run %s matches no test", opts.Filter)
	}
	if f.globals.JSON {
		if err := f.io.json(map[string]any{"engine": report.Engine, "version": report.Version, "counts": counts, "seconds": report.Duration.Seconds()}); err != nil {
			return err
		}
	} else {
		_, _ = fmt.Fprintf(f.io.Stdout, "%s %s: %d passed, %d failed, %d absent, %d exempt in %s\n", report.Engine, report.Version,
			counts[conformance.Passed], counts[conformance.Failed], counts[conformance.Absent], counts[conformance.Exempt], report.Duration.Round(time.Second))
	}
	for _, w := range report.Warnings {
		_, _ = fmt.Fprintf(f.io.Stderr, "warning: %s\n", printable(w))
	}
	if n := counts[conformance.Failed]; n > 0 {
		return conformanceError{n}
	}
	return nil
}

// reportName checks the name before the run, which takes minutes.
func reportName(file string) error {
	switch filepath.Ext(file) {
	case ".json", ".xml", ".md":
		return nil
	}
	return usageErrorf("--report %s: the name must end in .json, .xml or .md", file)
}

// showResult prints what came of a test.
func (f *factory) showResult(r conformance.Result) {
	if f.globals.JSON {
		_ = f.io.json(r)
		return
	}
	_, _ = fmt.Fprintf(f.io.Stdout, "%-7s %s (%.2fs)\n", r.Status, r.Name, r.Duration.Seconds())
	for _, text := range slices.DeleteFunc([]string{r.Reason, r.Message}, func(s string) bool { return s == "" }) {
		_, _ = fmt.Fprintf(f.io.Stdout, "        %s\n", printable(text))
	}
}
