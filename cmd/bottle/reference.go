package main

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

//go:generate sh -c "go run . __reference markdown > ../../docs/cli.md && go run . __reference man > ../../docs/bottle.1"

// referenceWord is the first argument by which the reference is written, from what the commands
// say of themselves: as markdown (docs/cli.md) or as a man page (docs/bottle.1).
const referenceWord = "__reference"

// reference writes the reference in a format.
func (f *factory) reference(format string) error {
	write, ok := map[string]func(io.Writer, *cli.App) error{"markdown": writeMarkdown, "man": writeMan}[format]
	if !ok {
		return usageErrorf("bottle %s markdown|man", referenceWord)
	}
	return write(f.io.Stdout, f.app())
}

// entry is a command as the reference shows it.
type entry struct {
	path        string // "bottle policy show"
	usage, args string
	text        []string // paragraphs
	examples    []string
	flags       []cli.Flag
}

// entries are all commands, each before its own.
func entries(app *cli.App) []entry {
	var list []entry
	var add func(path string, commands []*cli.Command)
	add = func(path string, commands []*cli.Command) {
		for _, c := range commands {
			if c.Hidden || c.Name == "help" {
				continue
			}
			e := entry{path: path + " " + c.Name, usage: c.Usage, args: c.ArgsUsage, flags: c.Flags}
			e.text, e.examples = describe(c.Description)
			list = append(list, e)
			add(e.path, c.Subcommands)
		}
	}
	add(app.Name, app.Commands)
	return list
}

// describe takes a description apart: paragraphs, and the examples, of which each is a line of
// its own.
func describe(text string) (paragraphs, examples []string) {
	for p := range strings.SplitSeq(text, "\n\n") {
		var rest []string
		for line := range strings.SplitSeq(p, "\n") {
			if e, ok := strings.CutPrefix(line, "Example: "); ok {
				examples = append(examples, e)
			} else if line != "" {
				rest = append(rest, line)
			}
		}
		if len(rest) > 0 {
			paragraphs = append(paragraphs, strings.Join(rest, "\n"))
		}
	}
	return paragraphs, examples
}

// flagText is how a flag is written, and what it does.
func flagText(flag cli.Flag) (names, usage string) {
	doc, ok := flag.(cli.DocGenerationFlag)
	if !ok {
		return "", ""
	}
	usage = doc.GetUsage()
	value := ""
	if doc.TakesValue() {
		value = "VALUE"
		if _, after, ok := strings.Cut(usage, "`"); ok {
			value, _, _ = strings.Cut(after, "`")
		}
	}
	usage = strings.ReplaceAll(usage, "`", "")
	var list []string
	for _, n := range flag.Names() {
		dashes := "--"
		if len(n) == 1 {
			dashes = "-"
		}
		list = append(list, dashes+n)
	}
	names = strings.Join(list, ", ")
	if value != "" {
		names += " " + value
	}
	if d := doc.GetDefaultText(); doc.TakesValue() && d != "" && d != `""` {
		usage += fmt.Sprintf(" (default: %s)", strings.Trim(d, `"`))
	}
	if env := doc.GetEnvVars(); len(env) > 0 {
		usage += fmt.Sprintf(" [$%s]", strings.Join(env, ", $"))
	}
	return names, usage
}

const referenceIntro = "Flags may stand anywhere on the line, but for those of exec, which come before the bottle's name. A bottle is named by its " +
	"name, or by the beginning of it as long as it is no other's. With --json a command writes JSON: one object, or one a line " +
	"where there are many or they come as a stream; progress and errors are JSON lines on standard error."

func writeMarkdown(out io.Writer, app *cli.App) error {
	var b strings.Builder
	b.WriteString("# The command line\n\n<!-- Generated from the commands' definitions: make docs -->\n\n")
	b.WriteString(referenceIntro + "\n\nExit statuses: [exit-codes.md](exit-codes.md).\n\n## Flags of every command\n\n")
	markdownFlags(&b, app.Flags)
	for _, e := range entries(app) {
		fmt.Fprintf(&b, "\n## %s\n\n    %s\n\n%s.\n", e.path, strings.TrimSpace(e.path+" "+e.args), capital(e.usage))
		for _, p := range e.text {
			fmt.Fprintf(&b, "\n%s\n", markdownText(p))
		}
		if len(e.flags) > 0 {
			b.WriteString("\n")
			markdownFlags(&b, e.flags)
		}
		b.WriteString("\n")
		for _, x := range e.examples {
			fmt.Fprintf(&b, "    $ %s\n", x)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func markdownFlags(b *strings.Builder, flags []cli.Flag) {
	b.WriteString("| Flag | |\n|---|---|\n")
	for _, flag := range flags {
		names, usage := flagText(flag)
		fmt.Fprintf(b, "| `%s` | %s |\n", names, strings.ReplaceAll(markdownText(usage), "|", `\|`))
	}
}

// markdownText keeps what would be markup as it is.
func markdownText(s string) string {
	return strings.NewReplacer("<", "&lt;", ">", "&gt;", "*", `\*`, "_", `\_`, "[", `\[`).Replace(s)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

func writeMan(out io.Writer, app *cli.App) error {
	var b strings.Builder
	b.WriteString(".\\\" Generated from the commands' definitions: make docs\n.TH BOTTLE 1\n.SH NAME\n")
	fmt.Fprintf(&b, "bottle \\- %s\n.SH SYNOPSIS\n.B bottle\n[FLAGS] COMMAND [ARGUMENTS]\n.SH DESCRIPTION\n%s\n", manText(app.Usage), manText(referenceIntro))
	b.WriteString(".SH FLAGS OF EVERY COMMAND\n")
	manFlags(&b, app.Flags)
	b.WriteString(".SH COMMANDS\n")
	for _, e := range entries(app) {
		fmt.Fprintf(&b, ".SS %s\n%s.\n", manText(strings.TrimSpace(e.path+" "+e.args)), manText(capital(e.usage)))
		for _, p := range e.text {
			fmt.Fprintf(&b, ".PP\n%s\n", manText(p))
		}
		manFlags(&b, e.flags)
		for _, x := range e.examples {
			fmt.Fprintf(&b, ".PP\n.nf\n.RS\n$ %s\n.RE\n.fi\n", manText(x))
		}
	}
	b.WriteString(".SH EXIT STATUS\n")
	for _, m := range exitMeanings {
		fmt.Fprintf(&b, ".TP\n.B %d\n%s\n", m.code, manText(strings.ReplaceAll(m.meaning, "`", "")))
	}
	b.WriteString(".PP\nrun, exec and attach pass on the status of the command in the bottle.\n")
	_, err := io.WriteString(out, b.String())
	return err
}

func manFlags(b *strings.Builder, flags []cli.Flag) {
	for _, flag := range flags {
		names, usage := flagText(flag)
		fmt.Fprintf(b, ".TP\n.B %s\n%s\n", manText(names), manText(usage))
	}
}

var notASCII = regexp.MustCompile(`[^\x00-\x7f]`)

// manText escapes what roff would take for its own.
func manText(s string) string {
	s = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(s)
	s = notASCII.ReplaceAllStringFunc(s, func(r string) string { return fmt.Sprintf(`\[u%04X]`, []rune(r)[0]) })
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		if line != "" && slices.Contains([]byte{'.', '\''}, line[0]) {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
