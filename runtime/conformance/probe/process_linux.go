package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func init() {
	register(map[string]command{
		// id: who and where this process is.
		"id": identity,
		// status: /proc/self/status, as JSON.
		"status": status,
		// ps: the processes that can be seen.
		"ps": func(_ context.Context, c *Call) int { return c.json(processes()) },
		// raise SIGNAL: ends this process by the signal, given by number.
		"raise": func(_ context.Context, c *Call) int {
			// Go's runtime catches most signals and would print or exit in its own way:
			// without a handler the kernel's default holds.
			s := syscall.Signal(atoi(c.arg(0)))
			defaultAction(s)
			if err := syscall.Kill(os.Getpid(), s); err != nil {
				return c.done(err)
			}
			time.Sleep(time.Hour) // until it is delivered
			return 0
		},
		// trap STATUS: says each signal that it gets; exits at SIGTERM.
		"trap": trap,
		// stubborn: ignores every signal that it can, and does not end.
		"stubborn": func(ctx context.Context, c *Call) int {
			signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGPIPE)
			_, _ = fmt.Fprintln(c.Stdout, "ready")
			return sleep(ctx, &Call{Args: []string{"sleep"}})
		},
		// zombies N: leaves N orphans behind, which end at once.
		"zombies": orphans,
		// family: a stubborn child, and a stubborn grandchild in a session of its
		// own whose parent is gone.
		"family": relatives,
		// orphan: starts the command that follows in a session of its own and ends.
		"orphan": func(_ context.Context, c *Call) int { return c.done(detached(c.rest(0)...).Start()) },
		// background: a child in a session of its own that keeps stdout open.
		"background": func(_ context.Context, c *Call) int {
			child := detached("sleep")
			child.Stdout, child.Stderr = os.Stdout, os.Stderr
			if err := child.Start(); err != nil {
				return c.done(err)
			}
			_, _ = fmt.Fprintln(c.Stdout, "started")
			return 0
		},
		// forks N: tries to have N children at once; prints how many there were.
		"forks": forks,
		// complain TEXT STATUS: writes to both streams and fails.
		"complain": func(_ context.Context, c *Call) int {
			_, _ = fmt.Fprintln(c.Stdout, c.arg(0), "to stdout")
			_, _ = fmt.Fprintln(c.Stderr, c.arg(0), "to stderr")
			return atoi(c.arg(1))
		},
		// say-and-sleep TEXT DURATION
		"say-and-sleep": func(ctx context.Context, c *Call) int {
			_, _ = fmt.Fprintln(c.Stdout, c.arg(0), "ready")
			return sleep(ctx, &Call{Args: c.rest(0), Stderr: c.Stderr})
		},
		// stamp PATH: a file of what no other call writes.
		"stamp": func(_ context.Context, c *Call) int {
			return c.done(os.WriteFile(c.arg(0), []byte(rand.Text()), 0o644))
		},
		// save PATH COMMAND…: the output of a command of the probe.
		"save": func(ctx context.Context, c *Call) int {
			f, err := os.Create(c.arg(0))
			if err != nil {
				return c.done(err)
			}
			code := Main(ctx, &Call{Args: c.rest(1), Env: c.Env, Stdin: c.Stdin, Stdout: f, Stderr: c.Stderr})
			if err := f.Close(); err != nil {
				return c.done(err)
			}
			return code
		},
		// loopback-alone PATH: whether what ifaces saved holds no other address.
		"loopback-alone": func(_ context.Context, c *Call) int {
			b, err := os.ReadFile(c.arg(0))
			if err != nil {
				return c.done(err)
			}
			var links []Interface
			if err := json.Unmarshal(b, &links); err != nil {
				return c.done(err)
			}
			for _, l := range links {
				for _, p := range l.Addrs {
					if !p.Addr().IsLoopback() {
						return c.json(l)
					}
				}
			}
			return c.json(true)
		},
		// alloc BYTES: takes memory and touches it.
		"alloc": alloc,
		// burn DURATION: uses two processors; prints the processor time it got.
		"burn": burn,
		// files N: opens N files; prints how many it could.
		"files": openFiles,
	})
}

func identity(_ context.Context, c *Call) int {
	groups, err := os.Getgroups()
	if err != nil {
		return c.done(err)
	}
	dir, err := os.Getwd()
	if err != nil {
		return c.done(err)
	}
	host, err := os.Hostname()
	if err != nil {
		return c.done(err)
	}
	return c.json(Identity{UID: os.Getuid(), GID: os.Getgid(), Groups: groups, Dir: dir, Host: host, PID: os.Getpid(), PPID: os.Getppid()})
}

func status(_ context.Context, c *Call) int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return c.done(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, ":"); ok {
			fields[k] = strings.TrimSpace(v)
		}
	}
	return c.json(fields)
}

func processes() []Process {
	list := []Process{}
	dirs, _ := os.ReadDir("/proc")
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + d.Name() + "/stat")
		if err != nil {
			continue // it has ended
		}
		// The name, in parentheses, may hold anything.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		p := Process{PID: pid, State: fields[0], PPID: atoi(fields[1])}
		line, _ := os.ReadFile("/proc/" + d.Name() + "/cmdline")
		if s := strings.TrimRight(string(line), "\x00"); s != "" {
			p.Args = strings.Split(s, "\x00")
		}
		list = append(list, p)
	}
	return list
}

func trap(_ context.Context, c *Call) int {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	_, _ = fmt.Fprintln(c.Stdout, "ready")
	for s := range signals {
		_, _ = fmt.Fprintln(c.Stdout, "signal", int(s.(syscall.Signal)))
		if s == syscall.SIGTERM {
			return atoi(c.arg(0))
		}
	}
	return exitFailed
}

// detached is a command of this program in a session of its own.
func detached(args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	return cmd
}

func orphans(_ context.Context, c *Call) int {
	for range atoi(c.arg(0)) {
		// The child in between ends first: its own child is orphaned.
		if err := exec.Command("/proc/self/exe", "orphan", "sleep", "100ms").Run(); err != nil {
			return c.done(err)
		}
	}
	return 0
}

func relatives(ctx context.Context, c *Call) int {
	child := exec.Command("/proc/self/exe", "stubborn", c.arg(0))
	if err := child.Start(); err != nil {
		return c.done(err)
	}
	if err := exec.Command("/proc/self/exe", "orphan", "stubborn", c.arg(0)).Run(); err != nil {
		return c.done(err)
	}
	_, _ = fmt.Fprintln(c.Stdout, "ready")
	return sleep(ctx, &Call{Args: []string{"sleep"}})
}

func forks(_ context.Context, c *Call) int {
	n := 0
	var children []*exec.Cmd
	for range atoi(c.arg(0)) {
		child := exec.Command("/proc/self/exe", "sleep", "30s")
		if child.Start() != nil {
			break
		}
		children = append(children, child)
		n++
	}
	for _, child := range children {
		_ = child.Process.Kill()
	}
	for _, child := range children {
		_ = child.Wait()
	}
	return c.json(n)
}

func alloc(_ context.Context, c *Call) int {
	size, err := strconv.Atoi(c.arg(0))
	if err != nil {
		return c.done(err)
	}
	b, err := syscall.Mmap(-1, 0, size, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return c.done(err)
	}
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	return c.json(size)
}

func burn(_ context.Context, c *Call) int {
	d, err := time.ParseDuration(c.arg(0))
	if err != nil {
		return c.done(err)
	}
	runtime.GOMAXPROCS(2)
	end := time.Now().Add(d)
	done := make(chan struct{})
	for range 2 {
		go func() {
			for time.Now().Before(end) {
			}
			done <- struct{}{}
		}()
	}
	<-done
	<-done
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return c.done(err)
	}
	return c.json(time.Duration(use.Utime.Nano() + use.Stime.Nano()).Seconds())
}

func openFiles(_ context.Context, c *Call) int {
	n := 0
	for range atoi(c.arg(0)) {
		if _, err := syscall.Open("/proc/self/exe", syscall.O_RDONLY, 0); err != nil {
			break
		}
		n++
	}
	return c.json(n)
}

// defaultAction removes the handler of a signal.
func defaultAction(s syscall.Signal) {
	// The kernel's sigaction with SIG_DFL is all zeros; the last argument is the
	// size of its mask.
	var action [64]byte
	_, _, _ = syscall.RawSyscall6(syscall.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
}
