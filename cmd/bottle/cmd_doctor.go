package main

import (
	"fmt"
	"io"
	"maps"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/doctor"
	"github.com/bottle-run/bottle/core/session"
	"github.com/bottle-run/bottle/runtime"
)

func newDoctorCommand(f *factory, do func() error) *cli.Command {
	return &cli.Command{
		Name:  "doctor",
		Usage: "look at the engines and this host, and say what is wrong and what to do",
		Description: "Looks at every engine, or at that of --runtime, and changes nothing. The exit status is\n" +
			"0 if there are only notes, 122 with warnings, 123 with problems, and 113 if no engine\nanswers.\n\n" +
			"Example: bottle doctor --runtime docker --json",
		Action: func(c *cli.Context) error {
			if err := arity(c, 0, 0); err != nil {
				return err
			}
			if err := f.noCommand("doctor"); err != nil {
				return err
			}
			if do != nil {
				return do()
			}
			return f.doctor()
		},
	}
}

// diagnosis is what bottle doctor exits with.
type diagnosis struct{ worst doctor.Severity }

func (d diagnosis) Error() string {
	if d.worst == doctor.Problem {
		return "there are problems: see above"
	}
	return "there are warnings: see above"
}

// doctor is bottle doctor.
func (f *factory) doctor() error {
	logger, err := f.logger()
	if err != nil {
		return err
	}
	registry := f.registry()
	if err := oneOf("runtime", f.globals.Runtime, slices.Concat(registry.Names(), []string{auto})); err != nil {
		return err
	}
	drivers := slices.DeleteFunc(registry.Drivers(), func(d runtime.Driver) bool {
		return f.globals.Runtime != auto && d.Name() != f.globals.Runtime
	})
	home, err := os.UserHomeDir()
	if err != nil {
		home = ""
	}
	sessions, err := session.Dir(os.LookupEnv, home)
	if err != nil {
		sessions = ""
	}
	sig := f.signals()
	defer sig.stop()
	report := doctor.Examine(sig.work, doctor.Options{
		Drivers: drivers, Engines: runtime.Options{Host: f.globals.Host, Logger: logger, Patience: enginePatience},
		Host:     doctor.Host{Root: os.DirFS("/"), UID: os.Getuid(), User: userName(), LookupEnv: os.LookupEnv, Version: doctor.ProgramVersion},
		Sessions: sessions, System: session.ThisSystem(), Now: time.Now,
	})
	if err := interruptedOr(sig.work, nil); err != nil {
		return err
	}
	if f.globals.JSON {
		err = f.io.json(report)
	} else {
		err = writeReport(f.io.Stdout, report)
	}
	switch {
	case err != nil:
		return err
	case !report.Healthy():
		return core.Errorf(core.KindEngine, "no container engine answers: see above")
	case report.Worst == doctor.Warning || report.Worst == doctor.Problem:
		return diagnosis{report.Worst}
	}
	return nil
}

func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return os.Getenv("USER")
}

// writeReport writes a report for people.
func writeReport(out io.Writer, r doctor.Report) error {
	var b strings.Builder
	for _, e := range r.Engines {
		writeEngine(&b, e)
	}
	for _, f := range r.Findings {
		where := ""
		if f.Engine != "" {
			where = f.Engine + ": "
		}
		fmt.Fprintf(&b, "\n%-8s %s%s [%s]\n", f.Severity, printable(where), printable(f.Text), f.Check)
		if f.Fix != "" {
			fmt.Fprintf(&b, "         do:  %s\n", printable(f.Fix))
		}
		if f.Source != "" {
			fmt.Fprintf(&b, "         see: %s\n", f.Source)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func writeEngine(b *strings.Builder, e doctor.Engine) {
	if !e.Healthy {
		state := "not here"
		if e.Installed {
			state = "installed, does not answer"
		}
		fmt.Fprintf(b, "%-12s%s\n", e.Name, state)
		return
	}
	mode := "rootful"
	if e.Rootless {
		mode = "rootless"
	}
	row := func(what, format string, args ...any) {
		fmt.Fprintf(b, "%12s%-12s%s\n", "", what, printable(fmt.Sprintf(format, args...)))
	}
	fmt.Fprintf(b, "%-12s%s\n", e.Name, printable(fmt.Sprintf("healthy, version %s (API %s), %s, at %s, %d ms", e.Version, e.API, mode, e.Endpoint, e.Milliseconds)))
	row("host", "kernel %s, cgroup v%s, storage %s, network %s", e.Kernel, e.Cgroup, e.Storage, e.Network)
	row("builder", "%s", e.Builder)
	row("runtimes", "%s", strings.Join(e.Runtimes, ", "))
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(e.Components)) {
		parts = append(parts, name+" "+e.Components[name])
	}
	if len(parts) > 0 {
		row("components", "%s", strings.Join(parts, ", "))
	}
	for _, feature := range slices.Sorted(maps.Keys(e.Missing)) {
		row("lacks", "%s: %s", feature, e.Missing[feature])
	}
	row("objects", "%d bottles, %d of %d networks", e.Bottles, e.Networks, e.Pool)
}
