package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime/internal/procs"
)

// sweepShims ends the shims that serve no container any more. containerd starts and ends a
// shim in several steps under the context of the call, and forgets it in between: if the
// caller is killed then, nobody tells the shim to go.
func (e *Engine) sweepShims(ctx context.Context) error {
	// Before the records: a container has its record from before its shim until after it.
	found := e.shims()
	if len(found) == 0 {
		return nil
	}
	records, err := e.containers().List(ctx)
	if err != nil {
		return fmt.Errorf("list the containers: %w", err)
	}
	for _, c := range records {
		delete(found, c.ID)
	}
	var errs []error
	for id, pids := range found {
		for _, pid := range pids {
			e.log.Debug("ending a shim without a container", "id", id, "pid", pid)
			if err := e.endShim(id, pid); err != nil {
				errs = append(errs, fmt.Errorf("end the shim of %s: %w", id, err))
			}
		}
	}
	return errors.Join(errs...)
}

// shims are the processes of this daemon's and namespace's shims, by container.
func (e *Engine) shims() map[string][]int {
	found := map[string][]int{}
	for _, pid := range procs.All() {
		if id := e.shimOf(pid); id != "" {
			found[id] = append(found[id], pid)
		}
	}
	return found
}

// shimOf is the container that a process is the shim of; empty if it is none. What a
// process of a container calls itself does not count.
func (e *Engine) shimOf(pid int) string {
	args := procs.Args(pid)
	if len(args) < 3 || !strings.HasPrefix(filepath.Base(args[0]), "containerd-shim-") || !sameProcesses(pid) {
		return ""
	}
	option := func(name string) string {
		if i := slices.Index(args, name); i >= 0 && i+1 < len(args) {
			return args[i+1]
		}
		return ""
	}
	// What has a command behind its options, "start" or "delete", does that and ends.
	if args[len(args)-2] != "-address" || option("-address") != e.address || option("-namespace") != e.namespace {
		return ""
	}
	return option("-id")
}

// sameProcesses reports whether a process is of this one's process namespace, which a
// container's is not.
func sameProcesses(pid int) bool {
	its, err := os.Readlink(procs.File(pid, "ns/pid"))
	if err != nil {
		return false
	}
	own, err := os.Readlink("/proc/self/ns/pid")
	return err == nil && its == own
}

// endShim ends a shim and the processes that it holds: they are a container's that was being
// made or removed.
func (e *Engine) endShim(id string, pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return ignore(err, unix.ESRCH)
	}
	defer func() { _ = unix.Close(fd) }()
	if e.shimOf(pid) != id {
		return nil // it has ended, and the number is another's
	}
	tasks, _ := filepath.Glob(procs.File(pid, "task/[0-9]*/children"))
	for _, file := range tasks {
		children, _ := os.ReadFile(file)
		for _, child := range strings.Fields(string(children)) {
			if n, err := strconv.Atoi(child); err == nil {
				_ = unix.Kill(n, unix.SIGKILL) // while its parent lives, the number is its own
			}
		}
	}
	return ignore(unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0), unix.ESRCH)
}

func ignore(err, ignored error) error {
	if errors.Is(err, ignored) {
		return nil
	}
	return err
}
