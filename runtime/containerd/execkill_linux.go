package containerd

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime/internal/tinyinit"
)

// kill ends the process with its descendants, its session and whatever carries its
// ID in the environment. The container is paused meanwhile, so that nothing makes
// a child behind the scan's back.
func (x *execution) kill(ctx context.Context) {
	ctx, cancel := undoing(ctx)
	defer cancel()
	e := x.engine
	init, err := e.process(ctx, x.container)
	if err != nil || init == nil {
		return
	}
	for round := range 5 {
		_, pauseErr := e.tasks().Pause(ctx, &tasks.PauseTaskRequest{ContainerID: x.container})
		victims := x.victims(int(init.Pid))
		for _, pid := range victims {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if pauseErr == nil {
			_, _ = e.tasks().Resume(ctx, &tasks.ResumeTaskRequest{ContainerID: x.container})
		}
		if len(victims) == 0 {
			return
		}
		// They die when they run again.
		awaitEnd(victims, time.Duration(round+1)*time.Second)
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

// victims lists what belongs to the execution, with PIDs of this host.
func (x *execution) victims(init int) []int {
	space, err := os.Readlink(procFile(init, "ns/pid"))
	if err != nil {
		return nil
	}
	type process struct {
		parent, session int
		marked          bool
	}
	all := map[int]*process{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	sessions := map[int]bool{}
	variable := []byte(tinyinit.ExecID + "=" + x.id)
	initSession := -1
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		parent, session, ok := readStat(pid)
		if !ok {
			continue
		}
		if pid == init {
			initSession = session
			continue
		}
		p := &process{parent: parent, session: session}
		p.marked = pid == int(x.pid)
		if !p.marked {
			// The environment is read of this container's processes alone.
			ns, err := os.Readlink(procFile(pid, "ns/pid"))
			p.marked = err == nil && ns == space && hasVariable(pid, variable)
		} else if ns, err := os.Readlink(procFile(pid, "ns/pid")); err != nil || ns != space {
			// The PID is another process's by now.
			p.marked = false
		}
		if p.marked && session > 0 {
			sessions[session] = true
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
			parent := all[p.parent]
			if sessions[p.session] || parent != nil && parent.marked {
				p.marked, changed = true, true
			}
		}
	}
	var victims []int
	for pid, p := range all {
		if p.marked {
			victims = append(victims, pid)
		}
	}
	return victims
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}

// readStat returns the parent and session of a process that is no zombie.
func readStat(pid int) (parent, session int, ok bool) {
	content, err := os.ReadFile(procFile(pid, "stat"))
	if err != nil {
		return 0, 0, false
	}
	// The process chooses its name: the fields begin after the last ')'.
	end := bytes.LastIndexByte(content, ')')
	if end < 0 {
		return 0, 0, false
	}
	fields := strings.Fields(string(content[end+1:]))
	if len(fields) < 4 || fields[0] == "Z" || fields[0] == "X" {
		return 0, 0, false
	}
	parent, err1 := strconv.Atoi(fields[1])
	session, err2 := strconv.Atoi(fields[3])
	return parent, session, err1 == nil && err2 == nil
}

func hasVariable(pid int, variable []byte) bool {
	content, err := os.ReadFile(procFile(pid, "environ"))
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
