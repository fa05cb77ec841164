package main

import (
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// TestATerminalIsAskedNothing runs a command on a terminal that answers no question.
func TestATerminalIsAskedNothing(t *testing.T) {
	cmd := exec.Command(lookPath(t, "bottle"), "version")
	// Where CI is set some libraries ask nothing.
	cmd.Env = append(slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "CI=") }), "TERM=xterm-256color")
	terminal, err := pty.Start(cmd)
	check(t, err)
	defer func() { _ = terminal.Close() }()
	out, _ := io.ReadAll(terminal) // it ends with EIO
	check(t, cmd.Wait())
	if !strings.HasPrefix(string(out), "bottle ") || strings.ContainsRune(string(out), 0x1b) {
		t.Errorf("%q", out)
	}
}
