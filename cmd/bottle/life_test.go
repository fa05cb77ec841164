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
	"slices"
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

// cmdSmall makes a directory, until the script's end, that holds so many bytes: small DIR
// BYTES. It takes root.
func cmdSmall(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: small DIR BYTES")
	}
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(dir, 0o700))
	ts.Check(mount("-t", "tmpfs", "-o", "mode=0700,size="+args[1], "small", dir))
	ts.Defer(func() { _ = unmount(dir) })
}

// cmdFrozen makes a directory one in which nothing can be written, or ends that: frozen
// DIR, ! frozen DIR. What root can write to is mounted anew, read-only.
func cmdFrozen(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: [!] frozen DIR")
	}
	dir := ts.MkAbs(args[0])
	switch root := os.Geteuid() == 0; {
	case root && neg:
		ts.Check(unmount(dir))
	case root:
		ts.Check(mount("--bind", dir, dir))
		ts.Check(mount("-o", "remount,bind,ro", dir))
		ts.Defer(func() { _ = unmount(dir) })
	case neg:
		ts.Check(os.Chmod(dir, 0o700))
	default:
		ts.Check(os.Chmod(dir, 0o500))
	}
}

func mount(args ...string) error { return exec.Command("mount", args...).Run() }

func unmount(dir string) error { return exec.Command("umount", "--lazy", dir).Run() }

// cmdRace runs a program several times at once, in each of several rounds: race ROUNDS N
// PROGRAM ARG... ROUND among the arguments is the round's number. Each must end with status
// 0, or with that of a name that is taken. What they say that ended well goes to stdout,
// sorted, and how often that was; no two may say the same.
func cmdRace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: race ROUNDS N PROGRAM [ARG...]")
	}
	rounds, err := strconv.Atoi(args[0])
	ts.Check(err)
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	program, err := exec.LookPath(args[2])
	ts.Check(err)
	var said []string
	for round := range rounds {
		command := strings.Split(strings.ReplaceAll(strings.Join(args[3:], "\x00"), "ROUND", strconv.Itoa(round+1)), "\x00")
		cmds, outs, errs := make([]*exec.Cmd, n), make([]bytes.Buffer, n), make([]bytes.Buffer, n)
		for i := range cmds {
			cmds[i] = exec.Command(program, command...)
			cmds[i].Env, cmds[i].Dir = ts.Value("env").(*testscript.Env).Vars, ts.MkAbs(".")
			cmds[i].Stdout, cmds[i].Stderr = &outs[i], &errs[i]
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
				said = append(said, outs[i].String())
			case code == exitName && strings.Contains(errs[i].String(), "there is a bottle named"):
				taken++
			default:
				ts.Fatalf("round %d: status %d: %s%s", round+1, code, outs[i].String(), errs[i].String())
			}
		}
		_, _ = fmt.Fprintf(ts.Stdout(), "%d of %d had the name, %d were told that it is taken\n", done, n, taken)
	}
	slices.Sort(said)
	if once := slices.Compact(slices.Clone(said)); len(once) != len(said) {
		ts.Fatalf("two say the same: %q", said)
	}
	_, _ = fmt.Fprint(ts.Stdout(), strings.Join(said, ""))
}
