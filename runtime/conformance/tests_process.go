package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

var processTests = []Test{
	{
		Name: "run/exit-statuses",
		Doc:  "Wait and inspect report the exit status of the process.",
		Run:  exitStatuses,
	},
	{
		Name: "run/exit-by-signal", Kernel: true,
		Doc: "A process that a signal ends has status 128 plus the signal.",
		Run: exitBySignal,
	},
	{
		Name: "run/zombies-are-reaped", Kernel: true,
		Doc: "Orphans that end are reaped, and execs go on working.",
		Run: zombiesReaped,
	},
	{
		Name: "run/no-init-is-pid-1", Kernel: true,
		Doc: "With NoInit the command is PID 1; without, it is not.",
		Run: pidOne,
	},
	{
		Name: "run/wait",
		Doc:  "Wait returns at once for what has ended, at the end for what runs, and honours its context.",
		Run:  waiting,
	},
	{
		Name: "run/wait-by-several",
		Doc:  "Several waiters get the same status, of a container that removes itself too.",
		Run:  waitSeveral,
	},
}

func exitStatuses(ctx context.Context, e *Env) error {
	for _, code := range []int{0, 1, 2, 42, 125, 126, 127, 128, 130, 143, 255} {
		b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"exit", fmt.Sprint(code)}})
		if err != nil {
			return failed("status %d: %w", code, err)
		}
		status, err := e.Runtime.Wait(ctx, b.ID)
		if err != nil {
			return err
		}
		seen, err := e.Runtime.InspectContainer(ctx, b.ID)
		if err != nil {
			return err
		}
		if status.Code != code || seen.State != runtime.StateExited || seen.Exit.Code != code {
			return failed("expected exit status %d, got %d from Wait and %s, %d from inspect", code, status.Code, seen.State, seen.Exit.Code)
		}
		if err := e.Runtime.RemoveContainer(ctx, b.ID); err != nil {
			return err
		}
	}
	return nil
}

func exitBySignal(ctx context.Context, e *Env) error {
	for _, signal := range []int{1, 2, 6, 9, 10, 11, 15} {
		b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"raise", fmt.Sprint(signal)}})
		if err != nil {
			return err
		}
		status, err := e.Runtime.Wait(ctx, b.ID)
		if err != nil {
			return err
		}
		if status.Code != 128+signal {
			return failed("a process that signal %d ends: expected exit status %d, got %d", signal, 128+signal, status.Code)
		}
		if err := e.Runtime.RemoveContainer(ctx, b.ID); err != nil {
			return err
		}
	}
	return nil
}

func zombiesReaped(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	if _, err := b.Do(ctx, "zombies", "20"); err != nil {
		return err
	}
	if err := poll(ctx, patience, func(ctx context.Context) error {
		var all []probe.Process
		if err := b.JSON(ctx, &all, "ps"); err != nil {
			return err
		}
		for _, p := range all {
			if p.State == "Z" || len(p.Args) > 2 && p.Args[1] == "sleep" && p.Args[2] == "100ms" {
				return failed("expected orphans to be reaped, got %+v", all)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	_, err = b.Do(ctx, "echo", "still here")
	return err
}

func pidOne(ctx context.Context, e *Env) error {
	for _, noInit := range []bool{true, false} {
		out, err := e.Exited(ctx, runtime.ContainerSpec{NoInit: noInit, Command: []string{"id"}})
		if err != nil {
			return err
		}
		var id probe.Identity
		if err := json.Unmarshal([]byte(out.Stdout), &id); err != nil {
			return failed("expected an identity, got %q %q", out.Stdout, out.Stderr)
		}
		if (id.PID == 1) != noInit {
			return failed("NoInit %v: expected the command to be PID 1 accordingly, got PID %d", noInit, id.PID)
		}
	}
	return nil
}

func waiting(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"sleep", "500ms"}})
	if err != nil {
		return err
	}
	for range 2 {
		if status, err := e.Runtime.Wait(ctx, b.Name); err != nil || status.Code != 0 {
			return failed("expected exit status 0, got %d, %v", status.Code, err)
		}
	}
	idle, err := e.Box(ctx)
	if err != nil {
		return err
	}
	began := time.Now()
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	_, err = e.Runtime.Wait(short, idle.ID)
	if err := kind(err, isDeadline, "DeadlineExceeded", "wait with a deadline"); err != nil {
		return err
	}
	if took := time.Since(began); took > patience {
		return failed("a wait of 200 ms took %s", took)
	}
	_, err = e.Runtime.Wait(ctx, e.Name("missing"))
	return kind(err, errdefs.IsNotFound, "NotFound", "wait for a container that is not there")
}

func waitSeveral(ctx context.Context, e *Env) error {
	for _, auto := range []bool{false, true} {
		b, err := e.BoxOf(ctx, runtime.ContainerSpec{AutoRemove: auto, Command: []string{"sleep"}, StopSignal: "SIGINT"})
		if err != nil {
			return err
		}
		const waiters = 4
		results := make(chan error, waiters)
		for range waiters {
			go func() {
				status, err := e.Runtime.Wait(ctx, b.ID)
				if err == nil && status.Code != 137 {
					err = failed("expected exit status 137, got %d", status.Code)
				}
				results <- err
			}()
		}
		select {
		case err := <-results:
			return failed("a waiter returned before the end: %v", err)
		case <-time.After(300 * time.Millisecond):
		}
		if err := e.Runtime.Kill(ctx, b.ID, "SIGKILL"); err != nil {
			return err
		}
		for range waiters {
			if err := <-results; err != nil {
				return failed("AutoRemove %v: %w", auto, err)
			}
		}
	}
	return nil
}

var hardeningTests = []Test{
	{
		Name: "hardening/no-capabilities", Kernel: true,
		Doc: "The zero spec gives no capability in any set, to root and to others, in the main process and in an exec.",
		Run: noCapabilities,
	},
	{
		Name: "hardening/capabilities-as-asked", Kernel: true,
		Doc: "The capabilities asked for are there, and no other.",
		Run: capabilitiesAsked,
	},
	{
		Name: "hardening/seccomp-and-no-new-privileges", Kernel: true,
		Doc: "A seccomp filter is on and no new privileges are to be had, in the main process and in an exec.",
		Run: seccompOn,
	},
	{
		Name: "hardening/forbidden-things", Kernel: true,
		Doc: "Root in a container cannot mount, make namespaces or devices, change owners, host name or kernel settings, open raw sockets or read the kernel's log and memory.",
		Run: forbiddenThings,
	},
	{
		Name: "hardening/read-only-root", Kernel: true,
		Doc: "With ReadOnly nothing of the root can be written; a tmpfs can.",
		Run: readOnlyRoot,
	},
	{
		Name: "hardening/tmpfs", Kernel: true,
		Doc: "A tmpfs has the size and mode asked for, and executes nothing.",
		Run: tmpfs,
	},
	{
		Name: "hardening/own-namespaces", Kernel: true,
		Doc: "A container sees no process of the host or of another container.",
		Run: ownProcesses,
	},
	{
		Name: "hardening/default-limit-of-processes", Kernel: true, Features: []runtime.Feature{runtime.FeaturePIDsLimit},
		Doc: "A spec that names no limit of processes has one.",
		Run: defaultPIDs,
	},
	{
		Name: "hardening/gvisor", Kernel: true, Features: []runtime.Feature{runtime.FeatureGVisor}, Timeout: 2 * DefaultTimeout,
		Doc: "The OCI runtime runsc runs a container under another kernel, with exec.",
		Run: underGVisor,
	},
	{
		Name: "hardening/oci-runtime-by-name", Kernel: true,
		Doc: "Each OCI runtime that Info names (but those that stand for gVisor) can be asked for.",
		Run: ociRuntimes,
	},
}

// status reads /proc/self/status from an exec.
func (b *Box) status(ctx context.Context, user string) (map[string]string, error) {
	out, err := b.ExecOf(ctx, runtime.ExecSpec{Command: []string{probe.Path, "status"}, User: user})
	if err != nil {
		return nil, err
	}
	return statusOf(out)
}

func statusOf(out Output) (map[string]string, error) {
	fields := map[string]string{}
	if err := json.Unmarshal([]byte(out.Stdout), &fields); err != nil {
		return nil, failed("expected a status, got %q %q", out.Stdout, out.Stderr)
	}
	return fields, nil
}

var capabilitySets = []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"}

// statuses are those of a main process and of an exec, as root and as another.
func (e *Env) statuses(ctx context.Context, spec runtime.ContainerSpec) (map[string]map[string]string, error) {
	all := map[string]map[string]string{}
	for _, user := range []string{"", probeUser} {
		main := spec
		main.User, main.Command = user, []string{"status"}
		out, err := e.Exited(ctx, main)
		if err != nil {
			return nil, err
		}
		if all["main process of user "+user], err = statusOf(out); err != nil {
			return nil, err
		}
	}
	b, err := e.BoxOf(ctx, spec)
	if err != nil {
		return nil, err
	}
	for _, user := range []string{"", probeUser} {
		if all["exec of user "+user], err = b.status(ctx, user); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func noCapabilities(ctx context.Context, e *Env) error {
	all, err := e.statuses(ctx, runtime.ContainerSpec{})
	if err != nil {
		return err
	}
	for who, status := range all {
		for _, set := range capabilitySets {
			if strings.Trim(status[set], "0") != "" || status[set] == "" {
				return failed("%s: expected an empty %s, got %q", who, set, status[set])
			}
		}
	}
	return nil
}

func capabilitiesAsked(ctx context.Context, e *Env) error {
	const chown, netRaw = 1 << 0, 1 << 13
	want := fmt.Sprintf("%016x", chown|netRaw)
	spec := runtime.ContainerSpec{Capabilities: []string{"CHOWN", "NET_RAW"}}
	b, err := e.BoxOf(ctx, spec)
	if err != nil {
		return err
	}
	inExec, err := b.status(ctx, "")
	if err != nil {
		return err
	}
	spec.Command = []string{"status"}
	out, err := e.Exited(ctx, spec)
	if err != nil {
		return err
	}
	inMain, err := statusOf(out)
	if err != nil {
		return err
	}
	for who, status := range map[string]map[string]string{"main process": inMain, "exec": inExec} {
		for _, set := range []string{"CapPrm", "CapEff", "CapBnd"} {
			if status[set] != want {
				return failed("%s: expected %s to be %s, got %s", who, set, want, status[set])
			}
		}
	}
	return nil
}

func seccompOn(ctx context.Context, e *Env) error {
	all, err := e.statuses(ctx, runtime.ContainerSpec{})
	if err != nil {
		return err
	}
	for who, status := range all {
		const filter = "2"
		if status["Seccomp"] != filter || status["NoNewPrivs"] != "1" {
			return failed("%s: expected Seccomp 2 and NoNewPrivs 1, got %q and %q", who, status["Seccomp"], status["NoNewPrivs"])
		}
	}
	return nil
}

func forbiddenThings(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	var result probe.Denied
	if err := b.JSON(ctx, &result, "forbidden"); err != nil {
		return err
	}
	if len(result) < 10 {
		return failed("expected ten attempts at least, got %v", result)
	}
	for what, err := range result {
		if err == "" {
			return failed("%s: expected it to be denied, but it was allowed", what)
		}
	}
	return nil
}

func readOnlyRoot(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{ReadOnly: true, Tmpfs: []runtime.Tmpfs{{Target: "/scratch"}}})
	if err != nil {
		return err
	}
	for _, name := range []string{"/file", "/tmp/file", "/etc/passwd", "/data/file", probe.Path} {
		out, err := b.Exec(ctx, "write", name, "x")
		if err != nil {
			return err
		}
		if out.Code == 0 {
			return failed("write %s in a read-only root: expected a failure, but it succeeded", name)
		}
	}
	_, err = b.Do(ctx, "write", "/scratch/file", "x")
	return err
}

func tmpfs(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Tmpfs: []runtime.Tmpfs{
		{Target: "/small", Size: 1 << 20, Mode: 0o700}, {Target: "/data/usual"},
	}})
	if err != nil {
		return err
	}
	var list []probe.File
	if err := b.JSON(ctx, &list, "stat", "/small", "/data/usual"); err != nil {
		return err
	}
	if list[0].Mode != 0o700 || list[1].Mode != 0o1777 {
		return failed("expected modes 700 and 1777, got %o and %o", list[0].Mode, list[1].Mode)
	}
	for _, c := range []struct {
		path string
		size int
		fits bool
	}{{"/small/file", 512 << 10, true}, {"/small/file", 2 << 20, false}, {"/data/usual/file", 32 << 20, true}, {"/data/usual/file", 65 << 20, false}} {
		out, err := b.Exec(ctx, "fill", c.path, fmt.Sprint(c.size))
		if err != nil {
			return err
		}
		if (out.Code == 0) != c.fits {
			return failed("%d bytes in %s: expected them to fit: %v, got exit status %d %s", c.size, c.path, c.fits, out.Code, out.Stderr)
		}
	}
	if _, err := b.Do(ctx, "rm", "/data/usual/file"); err != nil {
		return err
	}
	if _, err := b.Do(ctx, "copy", probe.Path, "/data/usual/program"); err != nil {
		return err
	}
	out, err := b.ExecOf(ctx, runtime.ExecSpec{Command: []string{"/data/usual/program", "echo", "x"}})
	if err == nil && out.Code == 0 {
		return failed("execute a program in a tmpfs: expected a failure, but it succeeded")
	}
	return nil
}

func ownProcesses(ctx context.Context, e *Env) error {
	mark := e.Token()
	if _, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"sleep", "1h", mark}}); err != nil {
		return err
	}
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	var all []probe.Process
	if err := b.JSON(ctx, &all, "ps"); err != nil {
		return err
	}
	if len(all) == 0 || len(all) > 4 {
		return failed("expected the container's own few processes, got %d: %+v", len(all), all)
	}
	for _, p := range all {
		if strings.Contains(strings.Join(p.Args, " "), mark) {
			return failed("expected no process of another container, got %+v", p)
		}
	}
	return nil
}

func defaultPIDs(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	limits := []string{"/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/pids.max"}
	for _, name := range limits {
		out, err := b.Exec(ctx, "read", name)
		if err != nil {
			return err
		}
		if out.Code == 0 {
			got := strings.TrimSpace(out.Stdout)
			return check(got == fmt.Sprint(runtime.DefaultPIDs), "expected a limit of %d processes in %s, got %q", runtime.DefaultPIDs, name, got)
		}
	}
	return failed("the container sees no limit of processes in %q", limits)
}

func underGVisor(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{OCIRuntime: "runsc"})
	if err != nil {
		return err
	}
	version, err := b.Do(ctx, "read", "/proc/version")
	if err != nil {
		return err
	}
	if e.Info.Kernel != "" && strings.Contains(version, e.Info.Kernel) {
		return failed("expected another kernel than the host's, got %q", version)
	}
	out, err := b.Do(ctx, "echo", "hello")
	if err != nil {
		return err
	}
	return check(out == "hello\n", "expected the output of an exec, got %q", out)
}

func ociRuntimes(ctx context.Context, e *Env) error {
	tried := 0
	for _, name := range e.Info.OCIRuntimes {
		if strings.Contains(name, "runsc") || strings.Contains(name, "gvisor") {
			continue // its own test, and its own feature
		}
		out, err := e.Exited(ctx, runtime.ContainerSpec{OCIRuntime: name, Command: []string{"echo", "hello"}})
		if err != nil {
			return failed("OCI runtime %s: %w", name, err)
		}
		if out.Stdout != "hello\n" || out.Code != 0 {
			return failed("OCI runtime %s: expected the process's output, got %+v", name, out)
		}
		tried++
	}
	return check(tried > 0, "expected an OCI runtime other than gVisor, got %q", e.Info.OCIRuntimes)
}

func isDeadline(err error) bool { return errors.Is(err, context.DeadlineExceeded) }
