package conformance

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

var limitTests = []Test{
	{
		Name: "limits/memory", Kernel: true, Features: []runtime.Feature{runtime.FeatureMemoryLimit},
		Doc: "A process that takes more memory than the limit is killed (137, OOMKilled), swap does not help it, and one below the limit is not.",
		Run: memoryLimit,
	},
	{
		Name: "limits/memory-of-an-exec", Kernel: true, Features: []runtime.Feature{runtime.FeatureMemoryLimit},
		Doc: "The limit of memory holds for an exec too.",
		Run: memoryLimitExec,
	},
	{
		Name: "limits/processes", Kernel: true, Features: []runtime.Feature{runtime.FeaturePIDsLimit},
		Doc: "No more processes than the limit run at once.",
		Run: pidsLimit,
	},
	{
		Name: "limits/processor-time", Kernel: true, Features: []runtime.Feature{runtime.FeatureCPULimit},
		Doc: "Two busy threads get no more processor time than the limit.",
		Run: cpuLimit,
	},
	{
		Name: "stats/of-a-container", Features: []runtime.Feature{runtime.FeatureStats},
		Doc: "Stats tells processor time, which grows, memory and its limit, and processes; a container that has ended has none.",
		Run: stats,
	},
	{
		Name: "limits/open-files", Kernel: true,
		Doc: "No more files than the limit are opened, in the main process and in an exec.",
		Run: fileLimit,
	},
}

func memoryLimit(ctx context.Context, e *Env) error {
	limits := runtime.Limits{Memory: 64 << 20}
	// Docker may miss the kernel's message if the container is gone by the time it looks
	// (github.com/containerd/containerd/issues/8180); the kill itself is never missing.
	const attempts = 4
	told := false
	for i := 0; i < attempts && !told; i++ {
		var err error
		if told, err = outOfMemory(ctx, e, limits); err != nil {
			return err
		}
	}
	if !told {
		return failed("expected OOMKilled of a process that took too much memory, and in %d attempts it never was", attempts)
	}
	out, err := e.Exited(ctx, runtime.ContainerSpec{Limits: limits, Command: []string{"alloc", strconv.Itoa(16 << 20)}})
	if err != nil {
		return err
	}
	return check(out.Code == 0, "a process below the limit: expected exit status 0, got %d %s", out.Code, out.Stderr)
}

// outOfMemory lets a process take four times what it may, and returns whether the engine
// tells why it was killed.
func outOfMemory(ctx context.Context, e *Env, limits runtime.Limits) (told bool, err error) {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Limits: limits, Command: []string{"alloc", strconv.FormatInt(4*limits.Memory, 10)}})
	if err != nil {
		return false, err
	}
	status, err := e.Runtime.Wait(ctx, b.ID)
	if err != nil {
		return false, err
	}
	seen, err := e.Runtime.InspectContainer(ctx, b.ID)
	if err != nil {
		return false, err
	}
	if status.Code != 137 || seen.Exit.Code != 137 {
		return false, failed("expected exit status 137, got %+v from Wait and %+v from inspect", status, seen.Exit)
	}
	return status.OOMKilled || seen.Exit.OOMKilled, nil
}

func memoryLimitExec(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Limits: runtime.Limits{Memory: 64 << 20}})
	if err != nil {
		return err
	}
	out, err := b.Exec(ctx, "alloc", strconv.Itoa(256<<20))
	if err != nil {
		return err
	}
	return check(out.Code == 137, "an exec above the limit: expected exit status 137, got %d %s", out.Code, out.Stderr)
}

func pidsLimit(ctx context.Context, e *Env) error {
	const limit = 64
	out, err := e.Exited(ctx, runtime.ContainerSpec{Limits: runtime.Limits{PIDs: limit}, Command: []string{"forks", "200"}})
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSpace(out.Stdout))
	if err != nil {
		return failed("expected a number of children, got %q %q (%d)", out.Stdout, out.Stderr, out.Code)
	}
	// Each child has threads of its own, which count too.
	return check(n > 2 && n < limit, "expected some children and fewer than %d, got %d", limit, n)
}

func stats(ctx context.Context, e *Env) error {
	spec := runtime.ContainerSpec{}
	if e.Info.Has(runtime.FeatureMemoryLimit) {
		spec.Limits.Memory = 64 << 20
	}
	b, err := e.BoxOf(ctx, spec)
	if err != nil {
		return err
	}
	before, err := e.Runtime.Stats(ctx, b.ID)
	if err != nil {
		return err
	}
	if before.PIDs < 1 || before.Memory <= 0 || before.MemoryLimit != spec.Limits.Memory {
		return failed("expected a process, some memory and the limit of %d, got %+v", spec.Limits.Memory, before)
	}
	if !e.Info.Simulated {
		if _, err := b.Do(ctx, "burn", "200ms"); err != nil {
			return err
		}
	}
	after, err := e.Runtime.Stats(ctx, b.ID)
	if err != nil {
		return err
	}
	if after.CPU <= before.CPU {
		return failed("expected more processor time than %v after some work, got %v", before.CPU, after.CPU)
	}
	if err := e.Runtime.Stop(ctx, b.ID, 0); err != nil {
		return err
	}
	if _, err := e.Runtime.Stats(ctx, b.ID); !errdefs.IsFailedPrecondition(err) {
		return failed("of a container that has ended: expected FailedPrecondition, got %v", err)
	}
	_, err = e.Runtime.Stats(ctx, e.Name("missing"))
	return kind(err, errdefs.IsNotFound, "NotFound", "figures of a container that is not there")
}

func cpuLimit(ctx context.Context, e *Env) error {
	out, err := e.Exited(ctx, runtime.ContainerSpec{Limits: runtime.Limits{CPUs: 0.25}, Command: []string{"burn", "2s"}})
	if err != nil {
		return err
	}
	used, err := strconv.ParseFloat(strings.TrimSpace(out.Stdout), 64)
	if err != nil {
		return failed("expected processor time, got %q %q", out.Stdout, out.Stderr)
	}
	// A quarter of a processor over two seconds, and what a period more adds.
	return check(used < 0.8, "expected about 0.5 s of processor time, got %.2f s", used)
}

func fileLimit(ctx context.Context, e *Env) error {
	const limit = 100
	spec := runtime.ContainerSpec{Limits: runtime.Limits{NoFile: limit}}
	b, err := e.BoxOf(ctx, spec)
	if err != nil {
		return err
	}
	inExec, err := b.Do(ctx, "files", "300")
	if err != nil {
		return err
	}
	spec.Command = []string{"files", "300"}
	out, err := e.Exited(ctx, spec)
	if err != nil {
		return err
	}
	for who, text := range map[string]string{"main process": out.Stdout, "exec": inExec} {
		n, err := strconv.Atoi(strings.TrimSpace(text))
		if err != nil || n >= limit || n < limit/2 {
			return failed("%s: expected fewer than %d files and more than %d, got %q", who, limit, limit/2, text)
		}
	}
	return nil
}

var stopTests = []Test{
	{
		Name: "stop/obedient-at-once", Kernel: true,
		Doc: "A process that obeys the stop signal is stopped long before the grace has passed, with its own exit status.",
		Run: stopObedient,
	},
	{
		Name: "stop/stubborn-after-grace", Kernel: true,
		Doc: "A process that ignores the stop signal is killed when the grace has passed, and not before (137).",
		Run: stopStubborn,
	},
	{
		Name: "stop/at-once",
		Doc:  "A grace of zero kills at once.",
		Run:  stopAtOnce,
	},
	{
		Name: "stop/stop-signal", Kernel: true,
		Doc: "The stop signal is the spec's.",
		Run: stopSignal,
	},
	{
		Name: "stop/idempotent",
		Doc:  "Stopping what has stopped or is not there is no error.",
		Run: func(ctx context.Context, e *Env) error {
			b, err := e.Box(ctx)
			if err != nil {
				return err
			}
			return first(e.Runtime.Stop(ctx, b.ID, 0), e.Runtime.Stop(ctx, b.ID, time.Second), e.Runtime.Stop(ctx, e.Name("missing"), time.Second))
		},
	},
	{
		Name: "stop/kill-sends-signals", Kernel: true,
		Doc: "Kill sends the signal named, by an init too, and the process goes on if it handles it.",
		Run: killSignals,
	},
	{
		Name: "stop/kill-of-what-does-not-run",
		Doc:  "Kill of a container that has ended is FailedPrecondition, of one that is not there NotFound.",
		Run: func(ctx context.Context, e *Env) error {
			b, err := e.Box(ctx)
			if err != nil {
				return err
			}
			if err := e.Runtime.Stop(ctx, b.ID, 0); err != nil {
				return err
			}
			return first(
				kind(e.Runtime.Kill(ctx, b.ID, "SIGTERM"), errdefs.IsFailedPrecondition, "FailedPrecondition", "kill a container that has ended"),
				kind(e.Runtime.Kill(ctx, e.Name("missing"), "SIGTERM"), errdefs.IsNotFound, "NotFound", "kill a container that is not there"),
			)
		},
	},
	{
		Name: "stop/removal-of-what-runs",
		Doc:  "RemoveContainer removes a container that runs, at once, however stubborn it is.",
		Run:  removeRunning, Kernel: true,
	},
}

func stopObedient(ctx context.Context, e *Env) error {
	for _, noInit := range []bool{false, true} {
		b, err := e.BoxOf(ctx, runtime.ContainerSpec{NoInit: noInit, Command: []string{"trap", "7"}})
		if err != nil {
			return err
		}
		if err := b.Await(ctx, "ready"); err != nil {
			return err
		}
		began := time.Now()
		if err := e.Runtime.Stop(ctx, b.ID, patience); err != nil {
			return err
		}
		took := time.Since(began)
		status, err := e.Runtime.Wait(ctx, b.ID)
		if err != nil {
			return err
		}
		if took >= patience || status.Code != 7 {
			return failed("NoInit %v: expected a stop at once and exit status 7, got %s and %d", noInit, took, status.Code)
		}
	}
	return nil
}

func stopStubborn(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"stubborn"}})
	if err != nil {
		return err
	}
	if err := b.Await(ctx, "ready"); err != nil {
		return err
	}
	began := time.Now()
	if err := e.Runtime.Stop(ctx, b.ID, time.Second); err != nil {
		return err
	}
	took := time.Since(began)
	status, err := e.Runtime.Wait(ctx, b.ID)
	if err != nil {
		return err
	}
	return check(status.Code == 137 && took > 900*time.Millisecond && took < patience,
		"expected a kill after 1 s and exit status 137, got %s and %d", took, status.Code)
}

func stopAtOnce(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	if err := e.Runtime.Stop(ctx, b.ID, 0); err != nil {
		return err
	}
	seen, err := e.Runtime.InspectContainer(ctx, b.ID)
	if err != nil {
		return err
	}
	return check(seen.State == runtime.StateExited && seen.Exit.Code == 137, "expected it to have ended with 137 when Stop returns, got %s, %d", seen.State, seen.Exit.Code)
}

func stopSignal(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{StopSignal: "SIGUSR1", Command: []string{"trap", "7"}})
	if err != nil {
		return err
	}
	if err := b.Await(ctx, "ready"); err != nil {
		return err
	}
	if err := e.Runtime.Stop(ctx, b.ID, time.Second); err != nil {
		return err
	}
	out, err := b.Logs(ctx)
	if err != nil {
		return err
	}
	return check(strings.Contains(out.Stdout, "signal 10\n") && !strings.Contains(out.Stdout, "signal 15\n"), "expected SIGUSR1 (10) and no SIGTERM, got %q", out.Stdout)
}

func killSignals(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"trap", "9"}})
	if err != nil {
		return err
	}
	if err := b.Await(ctx, "ready"); err != nil {
		return err
	}
	for _, s := range []struct{ name, line string }{{"SIGHUP", "signal 1"}, {"SIGUSR2", "signal 12"}, {"SIGINT", "signal 2"}} {
		if err := e.Runtime.Kill(ctx, b.ID, s.name); err != nil {
			return err
		}
		if err := b.Await(ctx, s.line); err != nil {
			return err
		}
	}
	if err := e.Runtime.Kill(ctx, b.ID, "SIGTERM"); err != nil {
		return err
	}
	status, err := e.Runtime.Wait(ctx, b.ID)
	if err != nil {
		return err
	}
	return check(status.Code == 9, "expected exit status 9, got %d", status.Code)
}

func removeRunning(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"stubborn"}})
	if err != nil {
		return err
	}
	if err := b.Await(ctx, "ready"); err != nil {
		return err
	}
	began := time.Now()
	if err := e.Runtime.RemoveContainer(ctx, b.ID); err != nil {
		return err
	}
	// The least grace that an engine has of its own is ten seconds.
	if took := time.Since(began); took > 9*time.Second {
		return failed("removal of a stubborn container: expected no grace, it took %s", took)
	}
	_, err = e.Runtime.InspectContainer(ctx, b.ID)
	return kind(err, errdefs.IsNotFound, "NotFound", "inspect a container that was removed")
}
