package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"syscall"
	"time"
)

// A sidecar that is killed more often than this in this time is given up.
const (
	mostKills = 10
	killsIn   = time.Minute
)

// keep runs this program with other arguments, and again whenever it is killed or crashes.
// Signals are passed on; an end of its own is the end of keep, with the same status. The first
// run alone has the arguments of first, too, and the standard input.
func (c *call) keep(first []string, args ...string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	log := slog.New(slog.NewJSONHandler(c.stderr, nil)).With("sidecar", args[0])
	var killed []time.Time
	for {
		cmd := exec.Command(self, append(args[:len(args):len(args)], first...)...)
		cmd.Stdout, cmd.Stderr = c.stdout, c.stderr
		if first != nil {
			cmd.Stdin, first = c.stdin, nil
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		told := false
		for running := true; running; {
			select {
			case sig := <-signals:
				told = told || sig != syscall.SIGHUP
				_ = cmd.Process.Signal(sig) // it may have ended
			case err = <-ended:
				running = false
			}
		}
		if err == nil || told || !crashed(err) {
			return ownEnd(err)
		}
		now := time.Now()
		killed = append(killed, now)
		for now.Sub(killed[0]) > killsIn {
			killed = killed[1:]
		}
		if len(killed) > mostKills {
			return fmt.Errorf("%w, %d times within %v: it is not started again", err, len(killed), killsIn)
		}
		log.Error("started again", "error", err.Error())
	}
}

// statusPanic is what a Go program ends with when it panics.
const statusPanic = 2

// crashed reports whether a program ended against its will.
func crashed(err error) bool {
	var exit *exec.ExitError
	return errors.As(err, &exit) && (exit.ExitCode() == -1 || exit.ExitCode() == statusPanic)
}

// ownEnd passes the status of a program on; it has said why.
func ownEnd(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() > 0 {
		return &exitError{exit.ExitCode(), errors.New("the server ended")}
	}
	return err
}
