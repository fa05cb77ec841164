// Package leftover clears up after processes of bottle's that died.
//
// # Promises
//
//   - A bottle whose process lives, or may live, is never touched; nor one that is
//     detached, unless it is broken and the user asks.
//   - What another user's process made is never touched, nor what tells nobody's.
//   - A record goes only when the engine that it is about shows nothing more of the
//     launch, for a while: an engine may still be at work on what a killed process
//     asked for.
package leftover

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/session"
	"github.com/bottle-run/bottle/runtime"
)

// pause is how long to wait before the engine is looked at again.
const pause = 250 * time.Millisecond

// Clear removes what is left of a session's launch, and then its record, when the
// engine has shown nothing for as long as settle. It returns what it removed, in words.
// If it fails the record stays, with the reason; the session is given up in any case.
func Clear(ctx context.Context, rt runtime.Runtime, s *session.Session, settle time.Duration, observe core.Observer) (removed []string, err error) {
	defer s.Release()
	launch := s.Record().Launch
	for quiet := time.Now(); ; {
		more, err := core.RemoveLaunch(ctx, rt, launch, observe)
		removed = append(removed, more...)
		if err != nil {
			// What cannot be written is no reason to hide the other.
			_ = s.Update(func(r *session.Record) { r.Trouble = firstLine(err.Error()) })
			return removed, err
		}
		if len(more) > 0 {
			quiet = time.Now()
		}
		if time.Since(quiet) >= settle {
			return removed, s.Remove()
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return removed, context.Cause(ctx)
		}
	}
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	return line[:min(len(line), 500)]
}

// About reports whether a record is about the engine that info describes.
func About(r session.Record, info runtime.Info) bool {
	return r.Engine == info.Engine && r.Endpoint == info.Reach()
}

// Verdict is what is to be done about a bottle, or what is left of one.
type Verdict string

// The verdicts.
const (
	// Keep is a bottle that somebody has.
	Keep Verdict = "keep"
	// Remove is what a dead process left.
	Remove Verdict = "remove"
	// Ask is what may be removed if the user says so.
	Ask Verdict = "ask"
)

// Finding is a bottle, or what is left of one.
type Finding struct {
	Bottle  string  `json:"bottle"`
	Launch  string  `json:"launch"`
	Verdict Verdict `json:"verdict"`
	// Why says so in words.
	Why string `json:"why"`
	// Recorded reports that there is a record of it here.
	Recorded bool `json:"recorded"`
	// There reports that something of it is on the engine.
	There bool `json:"there"`
	// Elsewhere is the engine that the record is about, if it is not this one.
	Elsewhere string `json:"elsewhere,omitempty"`
	// File is the record's, if it cannot be read.
	File string `json:"file,omitempty"`

	detached bool
}

// Keeper looks after one engine.
type Keeper struct {
	Runtime runtime.Runtime
	// Store holds the user's records; nil if there are none.
	Store *session.Store
	// System looks at processes.
	System session.System
}

// Find says of all bottles on the engine, and of all records, what is to be done
// about them.
func (k Keeper) Find(ctx context.Context) ([]Finding, error) {
	info, err := k.Runtime.Brief(ctx)
	if err != nil {
		return nil, err
	}
	list, err := core.List(ctx, k.Runtime)
	if err != nil {
		return nil, err
	}
	var entries []session.Entry
	if k.Store != nil {
		// After the engine: a launch has its record before its first object.
		if entries, err = k.Store.List(); err != nil {
			return nil, err
		}
	}
	there := map[string]core.Status{}
	for _, s := range list {
		there[s.Launch] = s
	}
	var findings []Finding
	for _, e := range entries {
		launch := strings.TrimSuffix(filepath.Base(e.File), filepath.Ext(e.File))
		status, present := there[launch]
		f := k.record(e, info, status, present)
		f.Launch, f.Recorded = launch, true
		delete(there, launch)
		findings = append(findings, f)
	}
	for _, s := range list {
		if s, ok := there[s.Launch]; ok {
			findings = append(findings, k.unrecorded(s))
		}
	}
	return findings, nil
}

// record judges a record, and what the engine has of its launch.
func (k Keeper) record(e session.Entry, info runtime.Info, status core.Status, there bool) Finding {
	r := e.Record
	f := Finding{Bottle: r.Bottle, Verdict: Keep, There: there}
	switch {
	case e.Err != nil:
		f.Bottle, f.File = status.Name, e.File
		f.Why = e.Err.Error()
	case !About(r, info):
		f.Elsewhere = strings.TrimSpace(r.Engine + " " + r.Endpoint)
		f.Why = "it is on another engine: " + f.Elsewhere
		if e.Abandoned() {
			f.Verdict, f.Why = Ask, fmt.Sprintf("its process (%d) died, and it is on another engine: %s", r.Owner.PID, f.Elsewhere)
		}
	case e.Abandoned():
		f.Verdict, f.Why = Remove, fmt.Sprintf("its process (%d) died without removing it", r.Owner.PID)
	case !r.Detached:
		f.Why = fmt.Sprintf("its process (%d) lives", r.Owner.PID)
		if e.Owner == session.Unknown {
			f.Why = fmt.Sprintf("whether its process (%d on %s) lives cannot be told from here", r.Owner.PID, r.Owner.Host)
		}
	case !there:
		f.Verdict, f.Why, f.detached = Ask, "it was detached, and nothing of it is on the engine any more", true
	case status.State == core.StateBroken:
		f.Verdict, f.Why, f.detached = Ask, "it was detached, and its agent is gone", true
	default:
		f.Why = "it is detached"
	}
	return f
}

// unrecorded judges what has labels and no record.
func (k Keeper) unrecorded(s core.Status) Finding {
	f := Finding{Bottle: s.Name, Launch: s.Launch, Verdict: Keep, There: true}
	self := k.System.Self()
	switch o := s.Owner; {
	case o == nil:
		f.Why = "there is no record of it, and its labels do not tell whose it is"
	case o.UID != self.UID || o.Host != self.Host:
		f.Why = fmt.Sprintf("it is of user %d on %s", o.UID, o.Host)
	case k.System.Life(*o) != session.Dead:
		f.Why = fmt.Sprintf("there is no record of it here, and its process (%d) lives, or may live", o.PID)
	case s.Detached && s.State != core.StateBroken:
		f.Verdict, f.Why = Ask, "it is detached, and there is no record of it"
	default:
		f.Verdict, f.Why = Ask, fmt.Sprintf("its process (%d) died, and there is no record of it", o.PID)
	}
	return f
}

// settle is how long the engine has to show nothing before a record goes, where somebody
// waits for it.
const settle = time.Second

// ErrBusy is a finding that another process sees to.
var ErrBusy = errors.New("another process sees to it")

// Remove removes what a finding says, whose verdict must allow it, and returns what it
// removed, in words. It is ErrBusy if somebody else does so.
func (k Keeper) Remove(ctx context.Context, f Finding, observe core.Observer) ([]string, error) {
	if f.Verdict == Keep || f.Elsewhere != "" {
		return nil, fmt.Errorf("bottle %s is not to be removed: %s", f.Bottle, f.Why)
	}
	if !f.Recorded {
		return core.RemoveLaunch(ctx, k.Runtime, f.Launch, observe)
	}
	s, err := k.Store.Take(f.Launch)
	switch {
	case errors.Is(err, session.ErrAlive), errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("bottle %s: %w", f.Bottle, ErrBusy)
	case err != nil:
		return nil, err
	case s.Record().Detached && !f.detached:
		s.Release()
		return nil, fmt.Errorf("bottle %s: it was detached meanwhile: %w", f.Bottle, ErrBusy)
	}
	if err := s.Own(); err != nil {
		s.Release()
		return nil, err
	}
	return Clear(ctx, k.Runtime, s, settle, observe)
}

// Abandoned lists the records whose process died, without asking an engine.
func Abandoned(store *session.Store) ([]session.Entry, error) {
	entries, err := store.List()
	return slices.DeleteFunc(entries, func(e session.Entry) bool { return !e.Abandoned() }), err
}
