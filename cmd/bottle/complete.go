package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/scaffold"
)

// completeWord is the first argument by which the shells' scripts ask for
// candidates. What follows is the command line up to the cursor, its last word
// possibly empty. Candidates are lines of a word and, after a tab, what it is; the
// line ":files" asks for file names too.
//
// The library's own mechanism does not fit: it wants to be the last argument, which
// flags that may stand anywhere do not let it be, and its scripts evaluate what was
// typed.
const completeWord = "__complete"

// completeTime is how long an engine may take to name its bottles.
const completeTime = 2 * time.Second

// complete prints candidates. It never fails: a shell has no use for an error here.
func (f *factory) complete(words []string) {
	if len(words) == 0 {
		words = []string{""}
	}
	c := completer{factory: f, app: f.app()}
	c.defaults()
	c.walk(words[:len(words)-1])
	c.candidates(words[len(words)-1])
	slices.Sort(c.found)
	for _, line := range slices.Compact(c.found) {
		_, _ = fmt.Fprintln(f.io.Stdout, line)
	}
}

type completer struct {
	*factory
	app *cli.App
	// command is the one that was named, nil if none was yet.
	command *cli.Command
	// positional are its arguments so far.
	positional []string
	// value is the flag whose value comes next.
	value cli.Flag
	// foreign reports that what comes is another program's.
	foreign bool
	found   []string
}

// defaults gives the global flags the values that they have when they are not given.
func (c *completer) defaults() {
	for _, flag := range c.app.Flags {
		s, ok := flag.(*cli.StringFlag)
		if !ok {
			continue
		}
		keep(s, s.Value)
		for _, name := range s.EnvVars {
			if value := os.Getenv(name); value != "" {
				keep(s, value)
			}
		}
	}
}

func (c *completer) flags() []cli.Flag {
	flags := slices.Clone(c.app.Flags)
	if c.command != nil {
		flags = append(flags, c.command.Flags...)
	}
	return flags
}

func (c *completer) commands() []*cli.Command {
	if c.command != nil {
		return c.command.Subcommands
	}
	return c.app.Commands
}

// walk goes through the words before the one that is completed.
func (c *completer) walk(words []string) {
	for _, w := range words {
		switch {
		case c.foreign:
		case c.value != nil:
			keep(c.value, w)
			c.value = nil
		case w == "--":
			c.foreign = true
		case strings.HasPrefix(w, "-") && w != "-":
			name, value, given := strings.Cut(strings.TrimLeft(w, "-"), "=")
			flag := lookup(c.flags(), name)
			if _, isBool := flag.(*cli.BoolFlag); flag == nil || isBool {
				continue
			}
			if given {
				keep(flag, value)
			} else {
				c.value = flag
			}
		default:
			if sub := named(c.commands(), w); sub != nil && len(c.positional) == 0 {
				c.command = sub
				continue
			}
			c.positional = append(c.positional, w)
			// After a bottle's name, exec has a program's words.
			c.foreign = c.command != nil && c.command.Name == execName
		}
	}
}

// keep gives a global flag its value, by which the engine and the manifest are found.
func keep(flag cli.Flag, value string) {
	if s, ok := flag.(*cli.StringFlag); ok && s.Destination != nil {
		*s.Destination = value
	}
}

func (c *completer) add(word, description string) {
	// A name on an engine may have been made by anybody.
	c.found = append(c.found, strings.TrimRight(printable(word)+"\t"+printable(strings.SplitN(description, "\n", 2)[0]), "\t"))
}

func (c *completer) files() { c.found = append(c.found, ":files") }

// candidates finds what the word cur may become.
func (c *completer) candidates(cur string) {
	name, _, given := strings.Cut(strings.TrimLeft(cur, "-"), "=")
	switch {
	case c.foreign:
		c.files()
	case c.value != nil:
		c.values(c.value, "")
	case strings.HasPrefix(cur, "-") && given:
		if flag := lookup(c.flags(), name); flag != nil {
			c.values(flag, cur[:strings.Index(cur, "=")+1])
		}
	case strings.HasPrefix(cur, "-"):
		for _, flag := range c.flags() {
			usage := ""
			if d, ok := flag.(cli.DocGenerationFlag); ok {
				usage = d.GetUsage()
			}
			c.add("--"+flag.Names()[0], strings.ReplaceAll(usage, "`", ""))
		}
		c.add("--help", "show help")
	default:
		for _, sub := range c.commands() {
			if !sub.Hidden && len(c.positional) == 0 {
				c.add(sub.Name, sub.Usage)
			}
		}
		if c.command != nil {
			c.arguments(cur)
		}
	}
}

// values are those of a flag.
func (c *completer) values(flag cli.Flag, prefix string) {
	var list []string
	switch flag.Names()[0] {
	case "runtime":
		list = append(c.registry().Names(), auto)
	case "log-level":
		list = []string{"debug", "info", "warn", "error"}
	case "agent":
		list = scaffold.Agents()
	case "language":
		list = scaffold.Languages()
	case "file", "workspace", "report", "to":
		c.files()
	}
	for _, v := range list {
		c.add(prefix+v, "")
	}
}

// arguments are those that a command's usage names: NAME is a bottle, BOTTLE one of
// the manifest's, AGENT an agent of it.
func (c *completer) arguments(cur string) {
	usage := c.command.ArgsUsage
	words := strings.FieldsFunc(usage, func(r rune) bool { return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZ", r) })
	has := func(word string) bool {
		i := slices.Index(words, word)
		return i >= 0 && (i == len(c.positional) || i < len(c.positional) && strings.Contains(usage, word+"..."))
	}
	switch {
	case c.command.Name == "cp":
		if !strings.Contains(cur, ":") {
			c.bottles(":")
		}
		c.files()
	case c.command.Name == "completion" && len(c.positional) == 0:
		for _, s := range shells {
			c.add(s, "")
		}
	case has("NAME"):
		c.bottles("")
	case has("ROLE"):
		for _, role := range core.LogRoles() {
			if !slices.Contains(c.positional, role) {
				c.add(role, "")
			}
		}
	case has("BOTTLE"), has("AGENT"):
		c.manifestNames(has("AGENT"))
	case has("DIR"), has("FILE"):
		c.files()
	}
}

// bottles are the names of the engine's bottles that were not given yet.
func (c *completer) bottles(suffix string) {
	ctx, cancel := context.WithTimeout(context.Background(), completeTime)
	defer cancel()
	rt, err := c.connect(ctx)
	if err != nil {
		return
	}
	defer func() { _ = rt.Close() }()
	list, err := core.List(ctx, rt)
	if err != nil {
		return
	}
	for _, s := range list {
		if !slices.Contains(c.positional, s.Name) {
			c.add(s.Name+suffix, s.Agent+", "+s.State)
		}
	}
}

// manifestNames are the agents or the bottles that the manifest describes.
func (c *completer) manifestNames(agents bool) {
	host, err := c.host()
	if err != nil {
		return
	}
	m, err := c.manifest(host)
	if err != nil {
		return
	}
	if !agents {
		for _, name := range slices.Sorted(maps.Keys(m.Bottles)) {
			c.add(name, "")
		}
		return
	}
	for name, a := range m.Agents {
		c.add(name, a.Description)
	}
}
