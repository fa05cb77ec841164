// Package probe is the program that the conformance suite runs inside
// containers: one static file with a command for everything that a test wants
// to see or try from there. Results are JSON on stdout where there is
// structure. It is hostile on request: it adds routes, forges frames, forks,
// swaps symbolic links.
//
// It imports the standard library alone, so that it builds without a module
// cache. The types of its results are shared with the suite.
package probe

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
)

// Path is where the program lies in the probe image.
const Path = "/bottle-probe"

// Call is one invocation: the process as a value, so that an engine without
// processes can run the commands that need none.
type Call struct {
	Args   []string // the command and its arguments
	Env    []string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

type command func(ctx context.Context, c *Call) int

var commands = map[string]command{}

func register(more map[string]command) { maps.Copy(commands, more) }

// Exit statuses of the program itself.
const (
	exitFailed = 1
	exitUsage  = 2
)

// Main runs a command and returns its exit status.
func Main(ctx context.Context, c *Call) int {
	if len(c.Args) == 0 {
		return c.usage("no command")
	}
	run := commands[c.Args[0]]
	if run == nil {
		return c.usage("unknown command %q: %s", c.Args[0], strings.Join(slices.Sorted(maps.Keys(commands)), " "))
	}
	return run(ctx, c)
}

// arg returns an argument of the command, or "".
func (c *Call) arg(i int) string {
	if i+1 < len(c.Args) {
		return c.Args[i+1]
	}
	return ""
}

// rest returns the arguments of the command from the i-th on.
func (c *Call) rest(i int) []string { return c.Args[min(len(c.Args), i+1):] }

func (c *Call) usage(format string, args ...any) int {
	_, _ = fmt.Fprintf(c.Stderr, "probe: "+format+"\n", args...)
	return exitUsage
}

// done reports an error, if there is one.
func (c *Call) done(err error) int {
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintf(c.Stderr, "probe: %s: %v\n", strings.Join(c.Args, " "), err)
	return exitFailed
}

func (c *Call) json(v any) int { return c.done(json.NewEncoder(c.Stdout).Encode(v)) }
