package containerd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
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
	e.sweepDirs(ctx)
}

// sweepDirs removes containers that containerd knows nothing of, and nobody is at work on.
func (e *Engine) sweepDirs(ctx context.Context) {
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
	if err != nil {
		return
	}
	known, err := e.containers().List(ctx)
	if err != nil {
		return
	}
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
			e.undo(ctx, id)
			continue
		}
		if l, err := tryLock(e.nameLock(string(name))); err == nil && l != nil {
			e.undo(ctx, id)
			l.remove()
		}
	}
}

// undo destroys what containerd has no record of.
func (e *Engine) undo(ctx context.Context, id string) {
	// It may have got one meanwhile.
	if _, err := e.containers().Get(ctx, id); !isNotFound(err) {
		return
	}
	e.log.Debug("undoing what a process that died has left", "container", id)
	if err := e.destroy(ctx, id); err != nil {
		e.log.Debug("cannot undo it", "container", id, "error", err)
	}
}
