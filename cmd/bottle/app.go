package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/runtime"
)

// globals are the flags that every command takes.
type globals struct {
	Runtime  string
	Host     string
	LogLevel string
	JSON     bool
	File     string
}

// factory gives the commands what they have in common.
type factory struct {
	io      *streams
	globals globals
	// command is what came after "--", nil if there was none.
	command  []string
	registry func() *runtime.Registry
	signals  func() *signals
	// fleetName is the bottle's name, and launching limits how many are launched at once, if it
	// is one of several.
	fleetName string
	launching chan struct{}
	// host describes this machine to the planner.
	host func() (core.Host, error)
	// watchdog looks after this process, if one does.
	watchdog *watchdog
	// recorded reports that records of bottles are kept, and leftovers looked for.
	recorded bool
}

// run is the program: it returns the exit status.
func run(args []string, io *streams) int {
	f := &factory{io: io, registry: engines, signals: watchSignals, host: thisHost, recorded: true}
	if len(args) > 1 && args[1] == completeWord {
		f.complete(args[2:])
		return exitOK
	}
	if len(args) == 3 && args[1] == referenceWord {
		return f.finish(f.reference(args[2]))
	}
	err := f.app().Run(f.arrange(args))
	return f.finish(err)
}

// app describes the command line.
func (f *factory) app() *cli.App {
	app := &cli.App{
		Name:            "bottle",
		Usage:           "run agents in sealed containers",
		Version:         version,
		HideVersion:     true,
		HideHelpCommand: false,
		Reader:          f.io.Stdin, Writer: f.io.Stdout, ErrWriter: f.io.Stderr,
		ExitErrHandler: func(*cli.Context, error) {}, // finish does it
		OnUsageError:   usageFailed,
		Flags:          f.flags(),
		Commands: []*cli.Command{
			newRunCommand(f, nil), newBuildCommand(f, nil), newExecCommand(f, nil), newAttachCommand(f, nil), newCpCommand(f, nil),
			newPsCommand(f, nil), newInspectCommand(f, nil), newLogsCommand(f, nil), newTopCommand(f, nil), newDiffCommand(f, nil), newExportCommand(f, nil),
			newStopCommand(f, nil), newRestartCommand(f, nil), newRmCommand(f, nil), newPruneCommand(f, nil),
			newPolicyCommand(f, nil), newSuperviseCommand(f, nil), newProposalsCommand(f, nil), newAuditCommand(f, nil),
			newInitCommand(f, nil), newDoctorCommand(f, nil), newConformanceCommand(f, nil), newSchemaCommand(f), newCompletionCommand(f), newVersionCommand(f),
		},
	}
	app.Action = func(c *cli.Context) error {
		if name := c.Args().First(); name != "" {
			return usageErrorf("there is no command %q%s: see bottle help", name, similar(name, app.Commands))
		}
		return cli.ShowAppHelp(c)
	}
	for _, c := range app.Commands {
		c.OnUsageError = usageFailed
		for _, sub := range c.Subcommands {
			sub.OnUsageError = usageFailed
		}
	}
	return app
}

func (f *factory) flags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "runtime", EnvVars: []string{"BOTTLE_RUNTIME"}, Value: "auto", Destination: &f.globals.Runtime, Usage: "engine to use: docker, podman, containerd, or auto"},
		&cli.StringFlag{Name: "host", EnvVars: []string{"BOTTLE_HOST"}, Destination: &f.globals.Host, Usage: "engine's endpoint: unix://PATH, tcp://HOST:PORT, ssh://USER@HOST"},
		&cli.StringFlag{Name: "file", Aliases: []string{"f"}, EnvVars: []string{"BOTTLE_FILE"}, Destination: &f.globals.File, Usage: "manifest, instead of the bottle.yaml of this directory or above"},
		&cli.StringFlag{Name: "log-level", EnvVars: []string{"BOTTLE_LOG_LEVEL"}, Value: "warn", Destination: &f.globals.LogLevel, Usage: "debug, info, warn or error"},
		&cli.BoolFlag{Name: "json", Destination: &f.globals.JSON, Usage: "write output, progress and errors as JSON lines"},
	}
}

// usageError is a command line that cannot be understood.
type usageError struct{ msg string }

func (e usageError) Error() string { return e.msg }

func usageErrorf(format string, args ...any) error { return usageError{fmt.Sprintf(format, args...)} }

func usageFailed(_ *cli.Context, err error, _ bool) error { return usageError{err.Error()} }

// similar proposes a command.
func similar(name string, commands []*cli.Command) string {
	names := make([]string, len(commands))
	for i, c := range commands {
		names[i] = c.Name
	}
	if near := manifest.Nearest(name, names); near != "" {
		return fmt.Sprintf(" (did you mean %q?)", near)
	}
	return ""
}

// logger writes to standard error what the log level lets through.
func (f *factory) logger() (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.globals.LogLevel)); err != nil {
		return nil, usageErrorf("--log-level %s: it is one of debug, info, warn, error", f.globals.LogLevel)
	}
	opts := &slog.HandlerOptions{Level: level}
	if f.globals.JSON {
		return slog.New(slog.NewJSONHandler(f.io.Stderr, opts)), nil
	}
	return slog.New(slog.NewTextHandler(f.io.Stderr, opts)), nil
}

// manifest finds and reads the manifest.
func (f *factory) manifest(host core.Host) (*manifest.Manifest, error) {
	path := f.globals.File
	if path == "" {
		config, err := os.UserConfigDir()
		if err != nil {
			config = ""
		}
		if path, err = manifest.Find(host.WorkDir, config); err != nil {
			return nil, err
		}
	}
	return manifest.Load(path)
}

func thisHost() (core.Host, error) {
	dir, err := os.Getwd()
	if err != nil {
		return core.Host{}, core.Errorf(core.KindInput, "the working directory cannot be told: %w", err)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = ""
	}
	return core.Host{WorkDir: dir, HomeDir: home, LookupEnv: os.LookupEnv}, nil
}

// noCommand refuses what came after "--".
func (f *factory) noCommand(name string) error {
	if f.command != nil {
		return usageErrorf("bottle %s takes no command after --", name)
	}
	return nil
}

// noCommandNamed is the action of a command that has commands, when none of them is named.
func noCommandNamed(group, args string, names ...string) cli.ActionFunc {
	return func(c *cli.Context) error {
		if name := c.Args().First(); name != "" {
			return usageErrorf("bottle %s has no command %q: it is one of %s", group, name, strings.Join(names, ", "))
		}
		return usageErrorf("missing command: usage: %s", strings.TrimSpace("bottle "+group+" "+strings.Join(names, "|")+" "+args))
	}
}

// arity checks the number of arguments.
func arity(c *cli.Context, least, most int) error {
	n := c.NArg()
	if n >= least && (most < 0 || n <= most) {
		return nil
	}
	what := "missing argument"
	if n > least {
		what = fmt.Sprintf("unexpected argument %q", c.Args().Get(most))
	}
	return usageErrorf("%s: usage: bottle %s %s", what, c.Command.Name, c.Command.ArgsUsage)
}

// statusError is the exit status of a command in a bottle: it is passed on, and
// there is nothing to say about it.
type statusError int

func (e statusError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// finish tells the user about an error, and returns the exit status.
func (f *factory) finish(err error) int {
	var status statusError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	}
	code, kind := exitCode(err)
	f.io.fail(err, kind, code, f.globals.JSON)
	return code
}

// oneOf checks the value of a flag.
func oneOf(flag, value string, valid []string) error {
	if slices.Contains(valid, value) {
		return nil
	}
	return usageErrorf("--%s %s: it is one of %s", flag, value, strings.Join(valid, ", "))
}
