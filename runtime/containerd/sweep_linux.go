package containerd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
)

// Sweep implements [runtime.Runtime].
func (e *Engine) Sweep(ctx context.Context) error {
	e.sweep(ctx, true)
	if err := e.sweepShims(e.ctx(ctx)); err != nil {
		e.log.Debug("cannot end the shims of containers that are gone", "error", err)
	}
	return wrap(ctx, "remove what dead processes left", "", context.Cause(ctx))
}

// sweep undoes what processes left that died while they made or removed a
// container: a directory without a record of containerd's whose name nobody holds.
// It is best effort; what it cannot undo now it finds again the next time. Unless all is to
// be looked at, it does not ask for every container if there is no reason to.
func (e *Engine) sweep(ctx context.Context, all bool) {
	ctx = e.ctx(ctx)
	// First: a container cannot be removed while its shim waits for a process that died.
	died, err := e.sweepConnections(ctx)
	if err != nil {
		e.log.Debug("cannot remove what a process that died has left", "error", err)
	}
	if died {
		if b, err := e.builder(); err == nil {
			err = b.Cleanup(ctx)
			if err != nil {
				e.log.Debug("cannot remove what a killed build has left", "error", err)
			}
		}
	}
	if err := e.sweepSteps(ctx); err != nil {
		e.log.Debug("cannot undo the networks of killed builds", "error", err)
	}
	if died || err != nil {
		e.sweepAgain()
	}
	again, watched := e.again(), e.watched()
	if !all && !again && watched {
		return
	}
	err = nil
	if !watched {
		// Those that are to be removed when they end, and what a watcher left that died.
		var left map[string]bool
		if left, err = e.removeEnded(ctx, ""); err == nil && len(left) > 0 {
			err = e.ensureWatcher(ctx)
		}
	}
	if err = errors.Join(err, e.sweepDirs(ctx)); err != nil {
		e.log.Debug("cannot remove what is left of containers", "error", err)
		e.sweepAgain()
	}
	if again {
		e.swept()
	}
}

// againFile is there while something may be left of which no process that died tells.
func (e *Engine) againFile() string { return filepath.Join(e.run, "sweep-again") }

// againTime is how long that is after a process has died: containerd may still be doing what
// it was asked for.
const againTime = time.Minute

// sweepAgain has whoever opens the engine next look at every container.
func (e *Engine) sweepAgain() {
	now := time.Now()
	err := os.WriteFile(e.againFile(), nil, 0o600)
	if err = errors.Join(err, os.Chtimes(e.againFile(), now, now)); err != nil {
		e.log.Debug("cannot note that something is left", "error", err)
	}
}

// again reports whether there is a reason to look at every container. Where that cannot be
// seen, there is.
func (e *Engine) again() bool {
	_, err := os.Stat(e.againFile())
	return !errors.Is(err, os.ErrNotExist)
}

// swept forgets the reason, unless it is a new one.
func (e *Engine) swept() {
	if info, err := os.Stat(e.againFile()); err == nil && time.Since(info.ModTime()) > againTime {
		_ = os.Remove(e.againFile())
	}
}

// sweepDirs removes containers that containerd knows nothing of, and nobody is at work on.
func (e *Engine) sweepDirs(ctx context.Context) error {
	unnamed, _ := filepath.Glob(e.unnamedDir("*"))
	for _, dir := range unnamed {
		l, err := tryLock(e.nameLock(strings.TrimSuffix(filepath.Base(dir), unnamedSuffix)))
		if err != nil || l == nil {
			continue
		}
		if err := os.RemoveAll(dir); err != nil {
			e.log.Debug("cannot remove what a process that died has left", "error", err)
		}
		l.remove()
	}
	entries, err := os.ReadDir(e.dir("containers"))
	if err != nil || len(entries) == 0 {
		return err
	}
	known, err := e.containers().List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, entry := range entries {
		id := entry.Name()
		if slices.ContainsFunc(known, func(c containers.Container) bool { return c.ID == id }) {
			continue
		}
		name, err := os.ReadFile(filepath.Join(e.containerDir(id), nameFile))
		switch {
		case err != nil && !errors.Is(err, os.ErrNotExist):
			continue
		case !isName(string(name)):
			// What is made has its name: this one was being removed, or a power failure came
			// before its content was on the disk.
			errs = append(errs, e.undo(ctx, id))
			continue
		}
		if l, err := tryLock(e.nameLock(string(name))); err == nil && l != nil {
			errs = append(errs, e.undo(ctx, id))
			l.remove()
		}
	}
	return errors.Join(errs...)
}

// undo destroys what containerd has no record of.
func (e *Engine) undo(ctx context.Context, id string) error {
	// It may have got one meanwhile.
	if _, err := e.containers().Get(ctx, id); !isNotFound(err) {
		return err
	}
	e.log.Debug("undoing what a process that died has left", "container", id)
	return e.destroy(ctx, id)
}
