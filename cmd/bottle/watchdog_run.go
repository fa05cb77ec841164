package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/core/leftover"
	"github.com/bottle-run/bottle/core/session"
	"github.com/bottle-run/bottle/runtime"
)

const (
	// watchdogPatience bounds how long the watchdog goes on trying, an engine that is
	// gone included. Then the next command of the user's does the rest.
	watchdogPatience = 15 * time.Minute
	// watchdogAttempt bounds one attempt.
	watchdogAttempt = 2 * time.Minute
	// watchdogConnect bounds connecting to an engine.
	watchdogConnect = 15 * time.Second
	// watchdogSettle is how long the engine has to show nothing more before a record goes:
	// it may still be at work on the last request of the process that was killed.
	watchdogSettle = 3 * time.Second
)

// watchdogMain is the watchdog's life.
func watchdogMain() int {
	closeInherited()
	debug.SetGCPercent(20)
	// It ends by itself: whoever signals a whole session, or a service, means its parent.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGPIPE, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	parent, answer := os.NewFile(3, "parent"), os.NewFile(4, "answer")
	in := bufio.NewReader(parent)
	line, err := in.ReadBytes('\n')
	var c watchdogConfig
	if err == nil {
		err = json.Unmarshal(line, &c)
	}
	var store *session.Store
	if err == nil {
		store, err = session.At(c.Sessions, session.ThisSystem())
	}
	if err != nil {
		_, _ = answer.WriteString(err.Error())
		return exitOther
	}
	_, _ = answer.WriteString(watchdogReady)
	_ = answer.Close()
	debug.FreeOSMemory()
	// Until the parent ends.
	var terminal terminalState
	for news := json.NewDecoder(in); news.Decode(&terminal) == nil; {
	}
	if terminal.Name != "" {
		terminal.restore()
	}
	ctx, cancel := context.WithTimeout(context.Background(), watchdogPatience)
	defer cancel()
	err = c.clearUp(ctx, store, engines())
	// Also of a process that was killed before there was anything to record.
	engines().SweepHost()
	if err != nil {
		return exitLeftover
	}
	return exitOK
}

// closeInherited closes what the parent had inherited without its knowledge, so that
// nobody waits for the end of a pipe or a lock that this process holds. What Go opened is
// closed by exec, and so is nothing else here that is not meant to be.
func closeInherited() {
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return // only Linux tells
	}
	for _, e := range open {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 4 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			_ = unix.Close(fd)
		}
	}
	unix.CloseOnExec(3)
	unix.CloseOnExec(4)
}

// clearUp removes what the owner left, until nothing is or ctx ends.
func (c watchdogConfig) clearUp(ctx context.Context, store *session.Store, registry *runtime.Registry) error {
	wait := 100 * time.Millisecond
	for {
		left, err := c.attempt(ctx, store, registry)
		if left == 0 && err == nil {
			return c.tidy(ctx, store)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		}
		// It is most often a matter of moments, and else of an engine that is gone.
		wait = min(wait*2, 15*time.Second)
	}
}

// tidy removes what the owner left of a record that it was about to write. The end of a
// process closes its files one after the other: this one's may be before that of the lock.
func (c watchdogConfig) tidy(ctx context.Context, store *session.Store) error {
	ctx, cancel := context.WithTimeout(ctx, watchdogSettle)
	defer cancel()
	for {
		over := session.ThisSystem().Life(c.Owner) != session.Alive
		held, err := store.Tidy()
		if held == 0 || over || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// attempt tries once, and returns how many sessions there still are.
func (c watchdogConfig) attempt(ctx context.Context, store *session.Store, registry *runtime.Registry) (left int, err error) {
	ctx, cancel := context.WithTimeout(ctx, watchdogAttempt)
	defer cancel()
	entries, err := store.List()
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, e := range entries {
		if e.Err != nil || e.Record.Owner != c.Owner || e.Record.Detached {
			continue
		}
		left++
		s, err := store.Inherit(e.Record.Launch, c.Owner)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, session.ErrDetached):
			left--
			continue
		case err != nil:
			// Its owner is about to be gone, or a command of the user's clears up.
			errs = append(errs, err)
			continue
		}
		if err := c.clear(ctx, s, registry); err != nil {
			errs = append(errs, err)
			continue
		}
		left--
	}
	return left, errors.Join(errs...)
}

// clear removes what is left of one session.
func (c watchdogConfig) clear(ctx context.Context, s *session.Session, registry *runtime.Registry) error {
	rt, err := c.open(ctx, s.Record(), registry)
	if err != nil {
		_ = s.Update(func(r *session.Record) { r.Trouble = err.Error() })
		s.Release()
		return err
	}
	_, err = leftover.Clear(ctx, rt, s, watchdogSettle, nil)
	return errors.Join(err, rt.Close())
}

// open connects to the engine of a record: in the way that the parent found it, or else
// by its endpoint.
func (c watchdogConfig) open(ctx context.Context, r session.Record, registry *runtime.Registry) (runtime.Runtime, error) {
	var errs []error
	for _, host := range []string{c.Host, r.Endpoint} {
		rt, err := openWithin(ctx, registry, r, host)
		if err == nil {
			return rt, nil
		}
		errs = append(errs, err)
		if host == r.Endpoint {
			break
		}
	}
	return nil, errors.Join(errs...)
}

func openWithin(ctx context.Context, registry *runtime.Registry, r session.Record, host string) (runtime.Runtime, error) {
	ctx, cancel := context.WithTimeout(ctx, watchdogConnect)
	defer cancel()
	rt, err := registry.Open(ctx, r.Engine, runtime.Options{Host: host})
	if err != nil {
		return nil, err
	}
	info, err := rt.Brief(ctx)
	if err == nil && !leftover.About(r, info) {
		err = fmt.Errorf("it is %s at %s that answers, and not %s at %s", info.Engine, info.Endpoint, r.Engine, r.Endpoint)
	}
	if err != nil {
		return nil, errors.Join(err, rt.Close())
	}
	return rt, nil
}
