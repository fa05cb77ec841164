package containerd

import (
	"context"
	"strconv"
	"strings"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"
)

// signalNumber is the number of a signal by name ("SIGTERM", "TERM",
// "SIGRTMIN+3") or number, as images have them in STOPSIGNAL.
func signalNumber(name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 8); err == nil && n > 0 && n <= 64 {
		return uint32(n), nil
	}
	full := strings.ToUpper(name)
	if !strings.HasPrefix(full, "SIG") {
		full = "SIG" + full
	}
	if n := unix.SignalNum(full); n != 0 {
		return uint32(n), nil
	}
	// As glibc counts them: the first two are its own.
	const rtmin, rtmax = 34, 64
	for prefix, base := range map[string]int{"SIGRTMIN": rtmin, "SIGRTMAX": rtmax} {
		rest, ok := strings.CutPrefix(full, prefix)
		if !ok {
			continue
		}
		offset := 0
		if rest != "" {
			var err error
			if offset, err = strconv.Atoi(rest); err != nil {
				break
			}
		}
		if n := base + offset; n >= rtmin && n <= rtmax {
			return uint32(n), nil
		}
	}
	return 0, invalid("there is no signal %q", name)
}

// signal sends a signal to a container's first process.
func (e *Engine) signal(ctx context.Context, id string, number uint32) error {
	_, err := e.tasks().Kill(ctx, &tasks.KillRequest{ContainerID: id, Signal: number})
	return native(err)
}

// killAndWait ends a container's process. Without one it does nothing.
func (e *Engine) killAndWait(ctx context.Context, id string) error {
	err := e.signal(ctx, id, uint32(unix.SIGKILL))
	if err != nil && !isNotFound(err) && !isFailedPrecondition(err) {
		// runsc refuses a signal to what was never started.
		p, getErr := e.process(ctx, id)
		if getErr != nil || p == nil || p.Pid == 0 {
			return err
		}
		if killErr := unix.Kill(int(p.Pid), unix.SIGKILL); killErr != nil && killErr != unix.ESRCH {
			return err
		}
	}
	_, err = e.tasks().Wait(ctx, &tasks.WaitRequest{ContainerID: id})
	if err != nil && !isNotFound(err) {
		return err
	}
	return nil
}
