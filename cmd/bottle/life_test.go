package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bottle-run/bottle/core/session"
)

// killedTime is how long after a bottle was killed there may be something of it. What is
// promised is 15 seconds, which hack/soak holds it to on a machine of its own; where suites
// share one, time proves nothing.
func killedTime() time.Duration {
	if within, err := time.ParseDuration(os.Getenv("BOTTLE_TEST_KILLED_TIME")); err == nil {
		return within
	}
	return 2 * time.Minute
}

// records are the records below a state directory of bottles whose name has a prefix, and
// those that cannot be read.
func records(state, prefix string) []string {
	var left []string
	files, _ := filepath.Glob(filepath.Join(state, "bottle", "sessions", "*"))
	for _, f := range files {
		content, err := os.ReadFile(f)
		if err != nil {
			continue // it went just now
		}
		var r session.Record
		if filepath.Ext(f) == ".json" && json.Unmarshal(content, &r) == nil && !strings.HasPrefix(r.Bottle, prefix) {
			continue
		}
		if filepath.Ext(f) != ".json" {
			continue // it goes with its record
		}
		left = append(left, fmt.Sprintf("record: %s of %s, %s %s", f, r.Bottle, r.Phase, r.Trouble))
	}
	return left
}

// watchdogOf is the process that watches over another, or 0.
func watchdogOf(pid int) int {
	lists, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, f := range lists {
		if line, err := os.ReadFile(f); err == nil && bytes.Equal(line, []byte(watchdogName+"\x00"+strconv.Itoa(pid)+"\x00")) {
			dog, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			return dog
		}
	}
	return 0
}

// cmdKillBoth runs a program and kills it and its watchdog when a text has appeared:
// killboth TEXT PROGRAM ARG...
func cmdKillBoth(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: killboth TEXT PROGRAM [ARG...]")
	}
	killed := false
	seen, status := follow(ts, args[1:], nil, func(cmd *exec.Cmd, seen string) {
		if killed || !strings.Contains(seen, args[0]) {
			return
		}
		killed = true
		dog := watchdogOf(cmd.Process.Pid)
		if dog == 0 {
			ts.Fatalf("there is no watchdog")
		}
		ts.Check(syscall.Kill(dog, syscall.SIGKILL))
		ts.Check(cmd.Process.Kill())
	})
	if !killed || status != -1 {
		ts.Fatalf("exit status %d; killed: %v\n%s", status, killed, seen)
	}
}

// cmdDeaf is an engine that hangs, until the script's end: deaf SOCKET. It takes connections,
// reads what is said, and never answers.
func cmdDeaf(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: deaf SOCKET")
	}
	l, err := net.Listen("unix", ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Defer(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() { _, _ = io.Copy(io.Discard, conn) }() // until the other side goes
		}
	}()
}

// cmdRace runs a program several times at once. Each must end with status 0, or with that of a name that is taken: race N
// PROGRAM ARG...
func cmdRace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: race N PROGRAM [ARG...]")
	}
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	program, err := exec.LookPath(args[1])
	ts.Check(err)
	cmds, said := make([]*exec.Cmd, n), make([]bytes.Buffer, n)
	for i := range cmds {
		cmds[i] = exec.Command(program, args[2:]...)
		cmds[i].Env, cmds[i].Dir = ts.Value("env").(*testscript.Env).Vars, ts.MkAbs(".")
		cmds[i].Stdout, cmds[i].Stderr = &said[i], &said[i]
	}
	for _, cmd := range cmds {
		ts.Check(cmd.Start())
	}
	done, taken := 0, 0
	for i, cmd := range cmds {
		_ = cmd.Wait()
		switch code := cmd.ProcessState.ExitCode(); {
		case code == exitOK:
			done++
		case code == exitName && strings.Contains(said[i].String(), "there is a bottle named"):
			taken++
		default:
			ts.Fatalf("status %d: %s", code, said[i].String())
		}
	}
	_, _ = fmt.Fprintf(ts.Stdout(), "%d of %d had the name, %d were told that it is taken\n", done, n, taken)
}
