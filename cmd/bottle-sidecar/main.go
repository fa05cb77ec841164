// Command bottle-sidecar is the one program that every built-in sidecar runs.
//
//	bottle-sidecar firewall      [--stdin] [--run DIR]   < document.json
//	bottle-sidecar egress-proxy  [--stdin] [--run DIR]   < document.json
//	bottle-sidecar git-gate      [--stdin] [--run DIR]   < document.json
//	bottle-sidecar supervise     [--state DIR] [--restart] [--stdin] [--run DIR]   < document.json
//	bottle-sidecar put [--wait]  [--run DIR]   < document.json
//	bottle-sidecar healthcheck   [--run DIR | --url URL]
//	bottle-sidecar reload        [--run DIR]
//	bottle-sidecar policy show   [--run DIR]
//	bottle-sidecar policy test   [--run DIR] METHOD URL
//	bottle-sidecar proposals list|watch                        [--run DIR]
//	bottle-sidecar proposals show ID                           [--run DIR]
//	bottle-sidecar proposals preview|approve|finish|deny ID    [--run DIR] < document.json
//	bottle-sidecar version
//
// A sidecar starts with nothing and opens its control socket. What it needs is its
// configuration, its authority and its secrets, in one document (see package delivery). With
// --stdin it takes that from its standard input, and says in its log whether it is ready; if
// it is not, it ends. A document that is put is taken up at any time.
// With the first configuration that is good its proxy is opened; one that is not good
// keeps the old. put --wait waits for a sidecar that is being started, and succeeds when
// it is ready. It reads its files again on SIGHUP, and ends on SIGTERM and SIGINT.
//
// It writes its audit log to standard output and what happens to itself to standard
// error, both as lines of JSON.
//
// Exit codes: 0 well, 1 failed, 2 wrong usage, 3 not ready, 4 denied (policy test),
// 5 the proposal or the policy is not what was shown (proposals).
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/bottle-run/bottle/sidecar/delivery"
)

// version is set by the build.
var version = "unknown"

const (
	exitFailed   = 1
	exitUsage    = 2
	exitNotReady = 3
	exitDenied   = 4
)

// exitError ends the program with a code.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return e.err.Error() }

func main() {
	err := run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	if err == nil {
		return
	}
	code := exitFailed
	var ee *exitError
	if errors.As(err, &ee) {
		code = ee.code
	}
	fmt.Fprintf(os.Stderr, "bottle-sidecar: %v\n", err)
	os.Exit(code)
}

// command is one of the program's commands.
type command struct {
	usage string
	run   func(c *call) error
}

// call is one run of a command.
type call struct {
	flags  *flag.FlagSet
	dir    *string
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
	first  *bool
	args   []string // what is left after the flags
}

var commands = map[string]command{
	"firewall":     {"[--stdin] [--run DIR]", serveFirewall},
	"egress-proxy": {"[--stdin] [--run DIR]", serveEgressProxy},
	"git-gate":     {"[--stdin] [--run DIR]", serveGitGate},
	"put":          {"[--wait] [--run DIR] < FILE", put},
	"healthcheck":  {"[--run DIR | --url URL]", healthcheck},
	"reload":       {"[--run DIR]", reload},
	"policy show":  {"[--run DIR]", showPolicy},
	"policy test":  {"[--run DIR] METHOD URL", testPolicy},
	"version":      {"", showVersion},
}

// showVersion also keeps the marker in the program: who builds an image of it looks for it.
func showVersion(c *call) error {
	if err := c.parse(0); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.stdout, "%s (%s)\n", version, strings.TrimSuffix(delivery.Marker, ";"))
	return err
}

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	for n := min(2, len(args)); n > 0; n-- {
		name := args[0]
		if n == 2 {
			name += " " + args[1]
		}
		cmd, ok := commands[name]
		if !ok {
			continue
		}
		flags := flag.NewFlagSet(name, flag.ContinueOnError)
		flags.SetOutput(stderr)
		flags.Usage = func() {
			fmt.Fprintf(stderr, "usage: bottle-sidecar %s %s\n", name, cmd.usage)
			flags.PrintDefaults()
		}
		c := &call{flags: flags, dir: flags.String("run", delivery.Dir, "`DIR` of the control socket and of what was put, in memory"), stdin: stdin, stdout: stdout, stderr: stderr, args: args[n:]}
		return cmd.run(c)
	}
	return &exitError{exitUsage, errors.New("no such command: it is one of firewall, egress-proxy, supervise, git-gate, put, healthcheck, reload, policy show, policy test, proposals list, proposals watch, proposals show, proposals preview, proposals approve, proposals finish, proposals deny, version")}
}

// parse reads the flags and leaves the rest, of which there have to be n.
func (c *call) parse(n int) error {
	if err := c.flags.Parse(c.args); err != nil {
		return &exitError{exitUsage, err}
	}
	if c.args = c.flags.Args(); len(c.args) != n {
		c.flags.Usage()
		return &exitError{exitUsage, fmt.Errorf("%d arguments are needed, %d were given", n, len(c.args))}
	}
	return nil
}
