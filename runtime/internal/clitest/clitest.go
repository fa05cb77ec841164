// Package clitest lets an engine's tests act as somebody else: it makes objects
// through a command line of Docker's kind, past bottle and without its label.
package clitest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"

	"github.com/bottle-run/bottle/runtime/conformance"
)

// Foreign returns what conformance.Options.Foreign asks for. command is the
// program and the words that choose its engine.
func Foreign(command ...string) func(context.Context, conformance.Names, []byte) (func(context.Context) error, error) {
	do := func(ctx context.Context, stdin []byte, args ...string) error {
		cmd := exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], args...)...) //nolint:gosec // a test's own words
		cmd.Stdin = bytes.NewReader(stdin)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w\n%s", cmd, err, out)
		}
		return nil
	}
	return func(ctx context.Context, names conformance.Names, archive []byte) (func(context.Context) error, error) {
		remove := func(ctx context.Context) error {
			return errors.Join(
				do(ctx, nil, "rm", "-f", names.Container),
				do(ctx, nil, "network", "rm", names.Network),
				do(ctx, nil, "rmi", names.Image),
			)
		}
		for _, step := range []struct {
			stdin []byte
			args  []string
		}{
			{archive, []string{"load"}},
			{nil, []string{"network", "create", names.Network}},
			{nil, []string{"run", "-d", "--network", "none", "--name", names.Container, names.Image}},
		} {
			if err := do(ctx, step.stdin, step.args...); err != nil {
				return nil, errors.Join(err, remove(context.WithoutCancel(ctx)))
			}
		}
		return remove, nil
	}
}
