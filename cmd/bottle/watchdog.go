package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	goruntime "runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/bottle-run/bottle/core/session"
)

// The watchdog is this very program started again, before the first object is made: a
// process of its own session that waits for the end of the one that started it, by a pipe
// that the kernel closes whatever that process dies of. What has a record of that process
// by then is left over, and is removed. See docs/architecture.md.

// watchdogName is what the watchdog is called, by which the program tells that it is
// meant to be one.
const watchdogName = "bottle-watchdog"

const (
	// watchdogStart bounds how long a launch waits for its watchdog.
	watchdogStart = 20 * time.Second
	// watchdogEnd bounds how long a process waits for its watchdog to see that nothing is
	// left to do.
	watchdogEnd = 2 * time.Second
)

// watchdogConfig is what the watchdog is told, through the pipe. It holds no secret.
type watchdogConfig struct {
	// Sessions is the directory of the records, Owner the process whose records count.
	Sessions string          `json:"sessions"`
	Owner    session.Process `json:"owner"`
	// Host is the user's wish for an endpoint, or empty.
	Host string `json:"host"`
}

// watchdog is the parent's side.
type watchdog struct {
	pipe  *os.File // its end is this process's end
	ended chan struct{}
	wait  func() error
}

// startWatchdog starts the watchdog and returns at once; see ready.
func startWatchdog(c watchdogConfig) (*watchdog, error) {
	return startWatchdogAs(watchdogProgram(), c)
}

func startWatchdogAs(program string, c watchdogConfig) (_ *watchdog, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("start the process that clears up if this one is killed: %w", err)
		}
	}()
	config, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	theirs, ours, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	answer, answers, err := os.Pipe()
	if err != nil {
		_, _ = theirs.Close(), ours.Close()
		return nil, err
	}
	cmd := &exec.Cmd{
		Path: program, Args: []string{watchdogName, strconv.Itoa(os.Getpid())}, Dir: "/", Env: watchdogEnv(os.Environ()),
		ExtraFiles:  []*os.File{theirs, answers},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = cmd.Start()
	_, _ = theirs.Close(), answers.Close()
	if err == nil {
		_, err = ours.Write(append(config, '\n')) // it fits into the pipe
	}
	if err != nil {
		_, _ = ours.Close(), answer.Close()
		return nil, err
	}
	w := &watchdog{pipe: ours, ended: make(chan struct{})}
	// It is nobody's child when this process ends before it, and else reaped.
	go func() {
		_ = cmd.Wait()
		close(w.ended)
	}()
	w.wait = sync.OnceValue(func() error {
		defer func() { _ = answer.Close() }()
		if err := answer.SetReadDeadline(time.Now().Add(watchdogStart)); err != nil {
			return err
		}
		if said, err := io.ReadAll(answer); err != nil || string(said) != watchdogReady {
			return fmt.Errorf("the process that clears up if this one is killed did not start: %s", strings.TrimSpace(string(said)+" "+errorText(err)))
		}
		return nil
	})
	return w, nil
}

// watchdogReady is what it answers when it would notice the end of its parent.
const watchdogReady = "ready"

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// ready returns when the watchdog watches.
func (w *watchdog) ready() error { return w.wait() }

// terminal tells the watchdog of a terminal to restore if this process is killed; the
// zero value is none any more.
func (w *watchdog) terminal(t terminalState) {
	if w == nil {
		return
	}
	if line, err := json.Marshal(t); err == nil {
		_, _ = w.pipe.Write(append(line, '\n')) // one that is dead restores nothing
	}
}

// end tells the watchdog that this process needs it no more, and waits a little for its
// end: it has nothing to do unless something is left. It reports whether it has ended.
func (w *watchdog) end() bool {
	_ = w.pipe.Close()
	select {
	case <-w.ended:
		return true
	case <-time.After(watchdogEnd):
		return false
	}
}

// watchdogProgram is this program, also if its file has been replaced.
func watchdogProgram() string {
	if goruntime.GOOS == "linux" {
		return "/proc/self/exe"
	}
	program, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return program
}

// watchdogVariables are what it takes to find an engine again. Whatever else there is in
// the environment, secrets among it, is not passed on.
var watchdogVariables = map[string]bool{
	"HOME": true, "PATH": true, "USER": true, "LOGNAME": true, "TMPDIR": true, "TZ": true, "LANG": true, "SSH_AUTH_SOCK": true,
	"DOCKER_HOST": true, "DOCKER_CONTEXT": true, "DOCKER_CONFIG": true, "DOCKER_CERT_PATH": true, "DOCKER_TLS": true,
	"DOCKER_TLS_VERIFY": true, "DOCKER_API_VERSION": true,
	"CONTAINER_HOST": true, "CONTAINER_SSHKEY": true, "CONTAINER_CONNECTION": true, "CONTAINERS_CONF": true, "CONTAINERS_CONF_OVERRIDE": true,
	"CONTAINERS_STORAGE_CONF": true, "CONTAINERS_REGISTRIES_CONF": true, "CONTAINERD_ADDRESS": true, "STORAGE_DRIVER": true, "STORAGE_OPTS": true,
	"DBUS_SESSION_BUS_ADDRESS": true, "GOCOVERDIR": true, "GODEBUG": true, "GORACE": true, "GOTRACEBACK": true, "GOMAXPROCS": true,
}

func watchdogEnv(environ []string) []string {
	env := []string{}
	for _, kv := range environ {
		name, _, _ := strings.Cut(kv, "=")
		if watchdogVariables[name] || strings.HasPrefix(name, "XDG_") || strings.HasPrefix(name, "LC_") || strings.HasPrefix(name, "BOTTLE_OCI_RUNTIME_") {
			env = append(env, kv)
		}
	}
	return env
}
