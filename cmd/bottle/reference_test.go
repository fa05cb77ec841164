package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/internal/needs"
)

func reference(t *testing.T, format string) string {
	t.Helper()
	var out bytes.Buffer
	f := &factory{io: &streams{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out}, registry: engines}
	check(t, f.reference(format))
	return out.String()
}

func TestTheReferenceIsWhatTheCommandsSay(t *testing.T) {
	// The defaults that the environment changes are not part of it.
	for _, name := range []string{"BOTTLE_RUNTIME", "BOTTLE_HOST", "BOTTLE_FILE", "BOTTLE_LOG_LEVEL"} {
		t.Setenv(name, "")
	}
	for format, file := range map[string]string{"markdown": "../../docs/cli.md", "man": "../../docs/bottle.1"} {
		want, err := os.ReadFile(file)
		check(t, err)
		if reference(t, format) != string(want) {
			t.Errorf("%s is not what the commands say: make docs", file)
		}
	}
	var usage usageError
	f := &factory{io: &streams{Stdout: &bytes.Buffer{}}, registry: engines}
	if err := f.reference("html"); !asUsage(err, &usage) {
		t.Errorf("got %v", err)
	}
}

func asUsage(err error, into *usageError) bool {
	u, ok := err.(usageError) //nolint:errorlint // it is not wrapped
	*into = u
	return ok
}

// TestEveryCommandHasAnExampleThatIsRight parses each example as the program would: its
// command, its flags, and how many arguments it takes.
func TestEveryCommandHasAnExampleThatIsRight(t *testing.T) {
	for _, e := range entries((&factory{io: &streams{}, registry: engines}).app()) {
		if len(e.examples) == 0 {
			t.Errorf("%s --help has no example", e.path)
		}
		own := false
		for _, example := range e.examples {
			line, _, _ := strings.Cut(strings.ReplaceAll(example, `"`, ""), " | ")
			line, _, _ = strings.Cut(line, " && ")
			own = own || strings.HasPrefix(line+" ", e.path+" ")
			if err := parses(line); err != nil {
				t.Errorf("%s: %s: %v", e.path, example, err)
			}
		}
		if !own && len(e.examples) > 0 && !strings.Contains(strings.Join(e.examples, "\n"), e.path) {
			t.Errorf("no example of %s is one of it: %q", e.path, e.examples)
		}
	}
}

// parses parses a command line without doing what it says.
func parses(line string) error {
	f := &factory{io: &streams{Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{}}, registry: engines}
	app := f.app()
	var quiet func(list []*cli.Command)
	quiet = func(list []*cli.Command) {
		for _, c := range list {
			c.Action = func(*cli.Context) error { return nil }
			quiet(c.Subcommands)
		}
	}
	quiet(app.Commands)
	return app.Run(f.arrange(strings.Fields(line)))
}

func TestTheManPageIsOne(t *testing.T) {
	groff := needs.Program(t, "groff", "groff-base")
	cmd := exec.Command(groff, "-man", "-Tutf8", "-P-c", "-P-b", "-P-u", "-ww", "../../docs/bottle.1")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil || said.Len() > 0 {
		t.Errorf("%v: %s", err, said.String())
	}
	out = bytes.ReplaceAll(out, []byte("\u2212"), []byte("-")) // a minus
	for _, want := range []string{"bottle - run agents in sealed containers", "bottle export NAME", "--follow", "EXIT STATUS"} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("it lacks %q", want)
		}
	}
}
