package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/bottle-run/bottle/core/leftover"
	"github.com/bottle-run/bottle/core/session"
	"github.com/bottle-run/bottle/runtime"
)

// tidyTime bounds what a command does about leftovers before it does what it was asked.
const tidyTime = time.Minute

// tidy removes what bottles of this user left on the engine when both they and their
// watchdogs were killed, and says so. It is no reason for a command to fail.
func (f *factory) tidy(ctx context.Context, rt runtime.Runtime) {
	if !f.recorded {
		return
	}
	dir, err := sessionDir()
	if err != nil {
		return // there are no records
	}
	store, err := session.At(dir, session.ThisSystem())
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			f.note("what was left by bottles that were killed is not known: %v", err)
		}
		return
	}
	abandoned, err := leftover.Abandoned(store)
	if err != nil || len(abandoned) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tidyTime)
	defer cancel()
	k := leftover.Keeper{Runtime: rt, Store: store, System: session.ThisSystem()}
	found, err := k.Find(ctx)
	if err != nil {
		return // what follows says what is wrong with the engine
	}
	for _, it := range found {
		if it.Verdict != leftover.Remove {
			continue
		}
		removed, err := k.Remove(ctx, it, nil)
		f.tidied(it, removed, err)
	}
}

// tidied tells what came of one finding.
func (f *factory) tidied(it leftover.Finding, removed []string, err error) {
	what := "nothing of it was left on the engine"
	if len(removed) > 0 {
		what = "removed " + strings.Join(removed, ", ")
	}
	switch {
	case errors.Is(err, leftover.ErrBusy):
	case err != nil:
		f.note("bottle %s: %s; clearing up failed: %v", it.Bottle, it.Why, err)
	default:
		f.note("bottle %s: %s: %s", it.Bottle, it.Why, what)
	}
}

// note tells the user something beside the command's result.
func (f *factory) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if f.globals.JSON {
		_ = json.NewEncoder(f.io.Stderr).Encode(map[string]any{"note": text})
		return
	}
	_, _ = fmt.Fprintf(f.io.Stderr, "bottle: note: %s\n", printable(text))
}
