package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/leases"
	"golang.org/x/sys/unix"
)

// A connection holds a lock for as long as it lives, under a name of its own. What it makes
// for itself and not for a container bears that name: FIFOs of execs, mounts of a moment,
// leases. Who opens the engine next removes what bears the name of one that is dead.

// labelConnection is the name, on leases.
const labelConnection = "dev.bottle/connection"

func (e *Engine) aliveDir() string { return filepath.Join(e.run, "alive") }

// live gives the connection its name.
func (e *Engine) live() error {
	if err := os.MkdirAll(e.aliveDir(), 0o700); err != nil {
		return fmt.Errorf("make the state directory: %w", err)
	}
	for range 100 {
		e.name = newID()[:12]
		l, err := tryLock(filepath.Join(e.aliveDir(), e.name+".lock"))
		if l != nil || err != nil {
			e.alive = l
			return err
		}
		// Before it was locked, somebody who sweeps took it for that of a dead one.
	}
	return errors.New("no name for the connection could be locked")
}

// sweepConnections removes what connections left that died, and reports whether there
// was one.
func (e *Engine) sweepConnections(ctx context.Context) (found bool, err error) {
	var errs []error
	for name := range e.connections() {
		if name == e.name {
			continue
		}
		l, err := tryLock(filepath.Join(e.aliveDir(), name+".lock"))
		if err != nil || l == nil {
			continue // it lives
		}
		found = true
		if err := e.removeOf(ctx, name); err != nil {
			errs = append(errs, err)
			l.unlock()
			continue
		}
		l.remove()
	}
	return found, errors.Join(errs...)
}

// connections are the names of connections that live, or have left something.
func (e *Engine) connections() map[string]bool {
	names := map[string]bool{}
	locks, _ := filepath.Glob(filepath.Join(e.aliveDir(), "*.lock"))
	for _, path := range locks {
		names[strings.TrimSuffix(filepath.Base(path), ".lock")] = true
	}
	// The locks do not outlive a reboot.
	mounts, _ := filepath.Glob(e.dir(mountPrefix + "*-*"))
	for _, path := range mounts {
		name, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), mountPrefix), "-")
		names[name] = true
	}
	temporary, _ := filepath.Glob(e.dir("init-*.*-*"))
	for _, path := range temporary {
		_, name, _ := strings.Cut(filepath.Base(path), ".")
		name, _, _ = strings.Cut(name, "-")
		names[name] = true
	}
	return names
}

// removeOf removes what a connection made for itself.
func (e *Engine) removeOf(ctx context.Context, name string) error {
	e.answer(filepath.Join(e.run, "exec", name))
	errs := []error{os.RemoveAll(filepath.Join(e.run, "exec", name))}
	mounts, err := filepath.Glob(filepath.Join(e.state, mountPrefix+name+"-*"))
	errs = append(errs, err)
	for _, dir := range mounts {
		if err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", dir, err))
			continue // never remove what is mounted
		}
		errs = append(errs, os.Remove(dir))
	}
	temporary, err := filepath.Glob(e.dir("init-*." + name + "-*"))
	errs = append(errs, err)
	for _, f := range temporary {
		errs = append(errs, os.Remove(f))
	}
	held, err := e.client.LeasesService().List(ctx, fmt.Sprintf("labels.%q==%s", labelConnection, name))
	errs = append(errs, err)
	for _, l := range held {
		if err := e.client.LeasesService().Delete(ctx, l, leases.SynchronousDelete); err != nil && !isNotFound(err) {
			errs = append(errs, fmt.Errorf("remove lease %s: %w", l.ID, err))
		}
	}
	return errors.Join(errs...)
}

// answer takes the other end of FIFOs whose reader died, for as long as this connection
// lives. A shim opens the output of an exec when its process runs, waits there for a reader
// with a lock held, and meanwhile tells of no end: its container could not be removed.
func (e *Engine) answer(dir string) {
	fifos, _ := filepath.Glob(filepath.Join(dir, "*", "std*"))
	for _, path := range fifos {
		// Both ends at once: that never waits.
		if f, err := os.OpenFile(path, os.O_RDWR|unix.O_NONBLOCK, 0); err == nil {
			e.answeredMu.Lock()
			e.answered = append(e.answered, f)
			e.answeredMu.Unlock()
		}
	}
}
