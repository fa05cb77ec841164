// Command bottle-probe is what the conformance suite runs inside containers. It
// is of no use elsewhere. See package probe.
package main

import (
	"context"
	"os"

	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

func main() {
	os.Exit(probe.Main(context.Background(), &probe.Call{
		Args: os.Args[1:], Env: os.Environ(), Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	}))
}
