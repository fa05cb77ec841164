package containerd

import (
	"bytes"
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime/internal/procs"
	"github.com/bottle-run/bottle/runtime/internal/tinyinit"
)

// kill ends the process with its descendants, its session and whatever carries its
// ID in the environment. First all are stopped, until a scan finds none that runs:
// what is stopped makes no child behind the scan's back. The rest of the container
// goes on meanwhile, and the shim is not asked: it may be busy with this very process.
func (x *execution) kill(ctx context.Context) {
	ctx, cancel := undoing(ctx)
	defer cancel()
	init, err := x.engine.process(ctx, x.container)
	if err != nil || init == nil || init.Pid == 0 {
		return
	}
	const stopRounds, rounds = 30, 60
	for round := range rounds {
		victims, running := x.victims(int(init.Pid))
		if len(victims) == 0 {
			return
		}
		if running && round < stopRounds {
			for _, pid := range victims {
				_ = unix.Kill(pid, unix.SIGSTOP)
			}
			// A stop takes effect at once, but for what sleeps in the kernel.
			if round > 2 {
				time.Sleep(time.Millisecond << min(round-2, 6))
			}
			continue
		}
		for _, pid := range victims {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		awaitEnd(victims, time.Second)
		if ctx.Err() != nil {
			return
		}
	}
}

// awaitEnd waits until processes are gone or zombies.
func awaitEnd(pids []int, limit time.Duration) {
	deadline := time.Now().Add(limit)
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		for left := time.Until(deadline); left > 0; left = time.Until(deadline) {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, err := unix.Poll(poll, int(left.Milliseconds())+1); n > 0 || err != nil && err != unix.EINTR {
				break
			}
		}
		_ = unix.Close(fd)
	}
}

// victims lists what belongs to the execution, with PIDs of this host, and whether
// some of it is not stopped.
func (x *execution) victims(init int) (victims []int, running bool) {
	space, err := os.Readlink(procs.File(init, "ns/pid"))
	if err != nil {
		return nil, false
	}
	type process struct {
		procs.Stat
		marked bool
	}
	all := map[int]*process{}
	sessions := map[int]bool{}
	variable := []byte(tinyinit.ExecID + "=" + x.id)
	initSession := -1
	for _, pid := range procs.All() {
		st, ok := procs.Read(pid)
		if !ok {
			continue
		}
		if pid == init {
			initSession = st.Session
			continue
		}
		p := &process{Stat: st}
		p.marked = pid == int(x.pid)
		if !p.marked {
			// The environment is read of this container's processes alone.
			ns, err := os.Readlink(procs.File(pid, "ns/pid"))
			p.marked = err == nil && ns == space && hasVariable(pid, variable)
		} else if ns, err := os.Readlink(procs.File(pid, "ns/pid")); err != nil || ns != space {
			// The PID is another process's by now.
			p.marked = false
		}
		if p.marked && st.Session > 0 {
			sessions[st.Session] = true
		}
		all[pid] = p
	}
	delete(sessions, initSession)
	for changed := true; changed; {
		changed = false
		for _, p := range all {
			if p.marked {
				continue
			}
			parent := all[p.Parent]
			if sessions[p.Session] || parent != nil && parent.marked {
				p.marked, changed = true, true
			}
		}
	}
	for pid, p := range all {
		if p.marked {
			victims = append(victims, pid)
			running = running || !p.Stopped
		}
	}
	return victims, running
}

func hasVariable(pid int, variable []byte) bool {
	content, err := os.ReadFile(procs.File(pid, "environ"))
	if err != nil {
		return false
	}
	for kv := range bytes.SplitSeq(content, []byte{0}) {
		if bytes.Equal(kv, variable) {
			return true
		}
	}
	return false
}
