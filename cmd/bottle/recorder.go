package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/leftover"
	"github.com/bottle-run/bottle/core/session"
	"github.com/bottle-run/bottle/runtime"
)

// sessions is the user's store of records. It is made if it is missing.
func (f *factory) sessions() (*session.Store, error) {
	dir, err := sessionDir()
	if err != nil {
		return nil, err
	}
	return session.Open(dir, session.ThisSystem())
}

// knownSessions is the user's store of records if there is one, or nil. Nothing is made.
func (f *factory) knownSessions() (*session.Store, error) {
	dir, err := sessionDir()
	if err != nil {
		return nil, err
	}
	store, err := session.At(dir, session.ThisSystem())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return store, err
}

func sessionDir() (string, error) {
	home, err := os.UserHomeDir()
	if err != nil {
		home = ""
	}
	return session.Dir(os.LookupEnv, home)
}

// recorder keeps the records of what this process does, and has a watchdog look after
// them.
type recorder struct {
	store    *session.Store
	watchdog *watchdog
	manifest string
}

// record makes a recorder, and starts its watchdog, unless records are not kept.
func (f *factory) record(manifest string) (*recorder, error) {
	if !f.recorded {
		return nil, nil
	}
	store, err := f.sessions()
	if err == nil {
		// What a process left that died before its record was whole.
		_, err = store.Tidy()
	}
	var w *watchdog
	if err == nil {
		w, err = startWatchdog(watchdogConfig{Sessions: store.Dir(), Owner: session.ThisSystem().Self(), Host: f.globals.Host})
	}
	if err != nil {
		return nil, &core.Error{Kind: core.KindRecord, Err: fmt.Errorf("nothing is launched without a record by which it can be found again: %w", err)}
	}
	f.watchdog = w
	return &recorder{store: store, watchdog: w, manifest: manifest}, nil
}

// end lets the watchdog end: whatever is left by now is its.
func (f *factory) end(r *recorder) {
	if r != nil && !r.watchdog.end() {
		f.note("something could not be removed yet: the watchdog of this bottle goes on trying for %v; bottle ps shows what is left", watchdogPatience)
	}
}

// options adds to the options of a launch.
func (r *recorder) options(opts core.LaunchOptions, detach bool) core.LaunchOptions {
	if r == nil {
		return opts
	}
	opts.Recorder, opts.Owner, opts.Detach = r, session.ThisSystem().Self(), detach
	return opts
}

// Begin implements [core.Recorder].
func (r *recorder) Begin(i core.Intent) (core.Recording, error) {
	s, err := r.store.Begin(session.Record{
		Launch: i.Launch, Bottle: i.Bottle, Agent: i.Agent, Manifest: r.manifest,
		Engine: i.Engine, Endpoint: i.Endpoint, Label: core.LabelLaunch, Created: time.Now().UTC(),
	})
	if err != nil {
		return nil, err
	}
	if err := r.watchdog.ready(); err != nil {
		return nil, errors.Join(err, s.Remove())
	}
	return recorded{s}, nil
}

// adopt makes the record of a bottle that another process launched this one's, so that
// the bottle's end is its end; it is nil if that process lives, or there is none.
func (r *recorder) adopt(launch string) (core.Recording, error) {
	if r == nil {
		return nil, nil
	}
	s, err := r.store.Take(launch)
	if err != nil {
		return nil, nil //nolint:nilerr // who has it, or cannot be read, keeps it
	}
	if err := s.Own(); err != nil {
		s.Release()
		return nil, err
	}
	return recorded{s}, nil
}

// close removes a bottle, and its record if its process is gone.
func (r *recorder) close(ctx context.Context, b *core.Bottle) error {
	it, err := r.adopt(b.Launch())
	if err != nil {
		return err
	}
	if it != nil {
		b.Keep(it)
	}
	return b.Close(ctx)
}

// forget removes the record of a bottle of which nothing is on the engine. Without one,
// it returns the error that there is no such bottle.
func (r *recorder) forget(ctx context.Context, rt runtime.Runtime, name string, missing error) error {
	if r == nil {
		return missing
	}
	found, err := leftover.Keeper{Runtime: rt, Store: r.store, System: session.ThisSystem()}.Find(ctx)
	if err != nil {
		return err
	}
	for _, it := range found {
		if it.Bottle != name || !it.Recorded || it.There || it.Elsewhere != "" || it.Verdict == leftover.Keep {
			continue
		}
		s, err := r.store.Take(it.Launch)
		if err != nil {
			return err
		}
		return s.Remove()
	}
	return missing
}

// recorded is the record of one launch.
type recorded struct{ s *session.Session }

func (r recorded) Claimed(bottle string, containers, networks []string) error {
	return r.s.Update(func(r *session.Record) { r.Bottle, r.Containers, r.Networks = bottle, containers, networks })
}

func (r recorded) phase(p session.Phase) error {
	return r.s.Update(func(r *session.Record) { r.Phase = p })
}

func (r recorded) Running() error { return r.phase(session.PhaseRunning) }
func (r recorded) Closing() error { return r.phase(session.PhaseClosing) }
func (r recorded) Detach() error  { return r.s.Detach() }

func (r recorded) End(left bool) error {
	if left {
		r.s.Release()
		return nil
	}
	return r.s.Remove()
}
