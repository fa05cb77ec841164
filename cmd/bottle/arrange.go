package main

import (
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange brings the arguments into the order that the flag parser needs: the
// program, global flags, the command, its flags, its arguments. So flags may stand
// anywhere, before or after a command's arguments. What comes after "--" is set
// aside as the command to run in a bottle. For exec, everything after the
// bottle's name is.
func (f *factory) arrange(args []string) []string {
	if len(args) == 0 {
		return args
	}
	app := f.app()
	before := args[1:]
	if i := slices.Index(before, "--"); i >= 0 {
		before, f.command = before[:i], slices.Clone(before[i+1:])
		if f.command == nil {
			f.command = []string{}
		}
	}
	a := arranger{factory: f, global: app.Flags}
	a.walk(before, app.Commands)
	return slices.Concat(args[:1], a.globals, a.path, a.local, a.positional)
}

type arranger struct {
	factory                          *factory
	global                           []cli.Flag
	globals, path, local, positional []string
}

// walk sorts arguments, where one of the commands may be named.
func (a *arranger) walk(args []string, commands []*cli.Command) {
	var flags []cli.Flag
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "-" || !strings.HasPrefix(arg, "-") {
			if c := named(commands, arg); c != nil && len(a.positional) == 0 {
				a.path = append(a.path, arg)
				commands, flags = c.Subcommands, c.Flags
				if c.Name == execName {
					a.exec(args[i+1:], flags)
					return
				}
				continue
			}
			a.positional = append(a.positional, arg)
			continue
		}
		i += a.flag(args[i:], flags)
	}
}

// exec sorts the arguments of exec: after the name everything is the command.
func (a *arranger) exec(args []string, flags []cli.Flag) {
	for i := 0; i < len(args); i++ {
		if !strings.HasPrefix(args[i], "-") {
			a.positional = append(a.positional, args[i])
			if rest := args[i+1:]; len(rest) > 0 {
				if a.factory.command != nil {
					rest = slices.Concat(rest, []string{"--"}, a.factory.command)
				}
				a.factory.command = slices.Clone(rest)
			}
			return
		}
		i += a.flag(args[i:], flags)
	}
}

// flag files the flag at the start of args and returns how many further arguments
// are its value.
func (a *arranger) flag(args []string, flags []cli.Flag) int {
	name, _, hasValue := strings.Cut(strings.TrimLeft(args[0], "-"), "=")
	list, known := &a.local, lookup(flags, name)
	if known == nil {
		if known = lookup(a.global, name); known != nil {
			list = &a.globals
		}
	}
	*list = append(*list, args[0])
	if _, isBool := known.(*cli.BoolFlag); known == nil || isBool || hasValue || len(args) < 2 {
		return 0
	}
	*list = append(*list, args[1])
	return 1
}

func named(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

func lookup(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}
