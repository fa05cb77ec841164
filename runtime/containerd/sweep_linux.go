package containerd

import (
	"context"
	"os"
	"path/filepath"
)

// Sweep implements [runtime.Runtime].
func (e *Engine) Sweep(ctx context.Context) error {
	e.sweep(ctx)
	if err := e.sweepShims(e.ctx(ctx)); err != nil {
		e.log.Debug("cannot end the shims of containers that are gone", "error", err)
	}
	return wrap(ctx, "remove what dead processes left", "", context.Cause(ctx))
}

// sweep undoes what processes left that died while they made or removed a
// container: a directory without a record of containerd's whose name nobody holds.
// It is best effort; what it cannot undo now it finds again the next time.
func (e *Engine) sweep(ctx context.Context) {
	ctx = e.ctx(ctx)
	// First: a container cannot be removed while its shim waits for a process that died.
	died, err := e.sweepConnections(ctx)
	if err != nil {
		e.log.Debug("cannot remove what a process that died has left", "error", err)
	}
	// Those that were to be removed when they ended, and whose watcher died.
	if left, err := e.removeEnded(ctx); err != nil {
		e.log.Debug("cannot look for ended containers", "error", err)
	} else if left > 0 {
		if err := e.ensureWatcher(ctx); err != nil {
			e.log.Debug("cannot start the watcher", "error", err)
		}
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
	entries, err := os.ReadDir(e.dir("containers"))
	if err != nil {
		return
	}
	for _, entry := range entries {
		id := entry.Name()
		name, err := os.ReadFile(filepath.Join(e.containerDir(id), nameFile))
		if err != nil {
			continue // just being made
		}
		if !isName(string(name)) {
			continue
		}
		if _, err := e.containers().Get(ctx, id); !isNotFound(err) {
			continue
		}
		l, err := tryLock(e.nameLock(string(name)))
		if err != nil || l == nil {
			continue
		}
		// It may have got its record before the lock was ours.
		if _, err := e.containers().Get(ctx, id); isNotFound(err) {
			e.log.Debug("undoing what a process that died has left", "container", string(name), "id", id)
			if err := e.destroy(ctx, id); err != nil {
				e.log.Debug("cannot undo it", "id", id, "error", err)
			}
		}
		l.remove()
	}
}
