package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/bottle-run/bottle/core"
)

// signalError is why a context ended: a signal came.
type signalError struct{ sig syscall.Signal }

func (e signalError) Error() string { return fmt.Sprintf("interrupted by %s", signalName(e.sig)) }

func signalName(s syscall.Signal) string {
	switch s {
	case syscall.SIGINT:
		return "SIGINT"
	case syscall.SIGTERM:
		return "SIGTERM"
	case syscall.SIGHUP:
		return "SIGHUP"
	}
	return s.String()
}

const (
	// teardownTime bounds clearing up.
	teardownTime = 2 * time.Minute
	// hurriedTime bounds it after a second signal.
	hurriedTime = 5 * time.Second
)

// signals turns signals into the ends of two contexts: the first ends work, a second one
// hurries the clearing up, and a third ends that, too: the watchdog does the rest.
type signals struct {
	work, teardown context.Context
	// hurry is closed by the second signal.
	hurry <-chan struct{}
	stop  func()
}

// watchSignals begins to listen. A signal that the parent told us to ignore, as
// nohup does, stays ignored.
func watchSignals() *signals {
	incoming := make(chan os.Signal, 4)
	for _, s := range interruptible {
		if !signal.Ignored(s) {
			signal.Notify(incoming, s)
		}
	}
	// Writing to a closed pipe is an error of the write then, and not the end of
	// the process, which has to clear up.
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	return signalsFrom(incoming, func() {
		signal.Stop(incoming)
		signal.Stop(pipes)
	})
}

func signalsFrom(incoming <-chan os.Signal, stop func()) *signals {
	work, endWork := context.WithCancelCause(context.Background())
	teardown, endTeardown := context.WithCancelCause(context.Background())
	done, hurrying := make(chan struct{}), make(chan struct{})
	go func() {
		defer endTeardown(nil)
		defer endWork(nil)
		var hurry *time.Timer
		for {
			select {
			case <-done:
				if hurry != nil {
					hurry.Stop()
				}
				return
			case s := <-incoming:
				cause := signalError{s.(syscall.Signal)} // Notify sends no others here
				if work.Err() == nil {
					endWork(cause)
				} else if hurry == nil {
					close(hurrying)
					hurry = time.AfterFunc(hurriedTime, func() { endTeardown(cause) })
				} else {
					endTeardown(cause)
				}
			}
		}
	}()
	return &signals{work: work, teardown: teardown, hurry: hurrying, stop: func() { stop(); close(done) }}
}

// clearing is the context for clearing up.
func (s *signals) clearing() (context.Context, context.CancelFunc) {
	return context.WithTimeout(core.Hurry(s.teardown, s.hurry), teardownTime)
}
