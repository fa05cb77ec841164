//go:build linux

package tinyinit

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/internal/needs"
	"github.com/bottle-run/bottle/internal/nolibc"
)

// program writes the init for this machine into a file.
func program(t *testing.T) string {
	t.Helper()
	content, err := Binary(runtime.GOARCH)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "init")
	if err := os.WriteFile(path, content, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func status(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	t.Fatal(err)
	return -1
}

func TestBinariesAreWhatTheSourceGives(t *testing.T) {
	nolibc.TestRebuild(t, "src/init.c", "init")
}

func TestBinaryOfUnknownArchitectureIsNotImplemented(t *testing.T) {
	if _, err := Binary("m68k"); !errdefs.IsNotImplemented(err) {
		t.Errorf("got %v, want NotImplemented", err)
	}
}

func TestInitExitsAsItsCommandDoes(t *testing.T) {
	init := program(t)
	noexec := filepath.Join(t.TempDir(), "noexec")
	if err := os.WriteFile(noexec, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		args []string
		want int
	}{
		{"status", []string{"init", "--", "sh", "-c", "exit 42"}, 42},
		{"without dashes", []string{"init", "sh", "-c", "exit 255"}, 255},
		{"success", []string{"init", "--", "true"}, 0},
		{"signal", []string{"init", "--", "sh", "-c", "kill -9 $$"}, 137},
		{"not found", []string{"init", "--", "no-such-command"}, ExitNotFound},
		{"not found by path", []string{"init", "--", "/no/such"}, ExitNotFound},
		{"not executable", []string{"init", "--", noexec}, ExitNotExecutable},
		{"directory", []string{"init", "--", "/usr"}, ExitNotExecutable},
		{"empty name", []string{"init", "--", ""}, ExitNotFound},
		{"no command", []string{"init", "--"}, 125},
		{"no mode", nil, 125},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := status(t, exec.Command(init, tc.args...).Run()); got != tc.want {
				t.Errorf("exit status %d, want %d", got, tc.want)
			}
		})
	}
}

func TestInitLooksThroughThePathOfItsEnvironment(t *testing.T) {
	init := program(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thing"), []byte("#!/bin/sh\necho found\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(init, "init", "--", "thing")
	cmd.Env = []string{"PATH=/nowhere::" + dir}
	out, err := cmd.CombinedOutput()
	if err != nil || string(out) != "found\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

func TestInitForwardsSignals(t *testing.T) {
	cmd := exec.Command(program(t), "init", "--", "sh", "-c",
		`trap 'echo got; exit 3' USR1; echo ready; while :; do read x || sleep 0.01; done`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	if got := status(t, cmd.Wait()); got != 3 || string(rest) != "got\n" {
		t.Errorf("exit status %d after %q, want 3 after \"got\"", got, rest)
	}
}

// As PID 1 of a namespace of its own it adopts orphans, and reaps them.
func TestInitReapsOrphans(t *testing.T) {
	if os.Geteuid() != 0 {
		needs.Missing(t, "a PID namespace takes root")
	}
	script := `i=0; while [ $i -lt 20 ]; do sh -c 'sh -c "exit 0" & exit 0'; i=$((i+1)); done
i=0; while grep -qs '^State:.Z' /proc/[0-9]*/status; do i=$((i+1)); [ $i -lt 500 ] || exit 1; sleep 0.01; done`
	cmd := exec.Command("unshare", "--pid", "--mount-proc", "--fork", program(t), "init", "--", "sh", "-c", script)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("zombies are left: %v\n%s", err, out)
	}
}

func TestKillEndsWhatCarriesTheTokenAndItsOffspring(t *testing.T) {
	init := program(t)
	// The grandchild has left its environment behind, the great-grandchild its
	// session too.
	script := `env -i sh -c 'setsid sleep 1000 & exec sleep 1000' & sleep 1000 & echo ready; wait`
	cmd := exec.Command("sh", "-c", script)
	cmd.Env = append(os.Environ(), ExecID+"=token-1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	bystander := exec.Command("sleep", "1000")
	bystander.Env = []string{ExecID + "=token-10", "X" + ExecID + "=token-1"}
	if err := bystander.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := bystander.Process.Kill(); err != nil {
			t.Errorf("the bystander is gone: %v", err)
		}
		if err := bystander.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
			t.Errorf("bystander: %v", err)
		}
	}()
	if _, err := io.ReadFull(out, make([]byte, len("ready\n"))); err != nil {
		t.Fatal(err)
	}
	if got := status(t, exec.Command(init, "kill", "token-1").Run()); got != 0 {
		t.Fatalf("kill: exit status %d", got)
	}
	// All that hold the pipe's other end are gone, or this does not return.
	done := make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, out); done <- err }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("a descendant lives on")
	}
	if err := cmd.Wait(); err == nil {
		t.Error("the process ended by itself")
	}
	if err := unix.Kill(bystander.Process.Pid, 0); err != nil {
		t.Errorf("bystander: %v", err)
	}
}

func TestKillOfATokenThatNobodyHasSucceeds(t *testing.T) {
	init := program(t)
	if got := status(t, exec.Command(init, "kill", "nobody").Run()); got != 0 {
		t.Errorf("exit status %d", got)
	}
	if got := status(t, exec.Command(init, "kill", "").Run()); got != 125 {
		t.Errorf("empty token: exit status %d, want 125", got)
	}
}

func TestInitOpensAFIFOAsTheInput(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "input")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program(t), "init", "-i", fifo, "--", "cat")
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.Stdin = strings.NewReader("not this")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.WriteString("this"); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	if err := cmd.Wait(); err != nil || out.String() != "this" {
		t.Errorf("%q, %v", out.String(), err)
	}
	// One that waits can be told to end.
	cmd = exec.Command(program(t), "init", "-i", fifo, "--", "cat")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// Before the init has blocked its signals it ends by itself, which is as well.
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 128+15 && exit.ExitCode() != -1 {
		t.Errorf("told to end: %v", err)
	}
	for _, args := range [][]string{{"init", "-i"}, {"init", "-i", fifo}, {"init", "-i", filepath.Join(t.TempDir(), "none"), "--", "true"}} {
		if got := status(t, exec.Command(program(t), args...).Run()); got != 125 {
			t.Errorf("%q: exit status %d", args, got)
		}
	}
}
