package podman

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime/internal/tinyinit"
)

var errTooMany = errors.New("its processes multiply faster than they can be killed")

// proc is a process as /proc shows it.
type proc struct{ pid, parent, session int }

// killToken kills every process of a container whose environment holds the token,
// with their descendants and sessions, until none is left. It reports whether it
// found one. The user who runs a rootless engine may signal and look at all of its
// processes, whatever their user in the container.
func killToken(ctx context.Context, initPid int, token string) (found bool, err error) {
	namespace, err := os.Readlink(procPath(initPid, "ns/pid"))
	if err != nil {
		return false, nil // the container has ended
	}
	for round := range 200 {
		victims := victimsOf(initPid, namespace, token)
		if len(victims) == 0 {
			return found, nil
		}
		found = true
		// Stopped first, so that none makes a child behind our back; killed as soon
		// as stopping shows no new one.
		signal := unix.SIGSTOP
		if round > 0 {
			signal = unix.SIGKILL
		}
		for pid := range victims {
			_ = unix.Kill(pid, signal)
		}
		if round > 1 {
			// A killed process takes its time to go.
			select {
			case <-ctx.Done():
				return found, context.Cause(ctx)
			case <-time.After(2 * time.Millisecond):
			}
		}
	}
	return found, errTooMany
}

// victimsOf finds the processes to kill, zombies left out.
func victimsOf(initPid int, namespace, token string) map[int]bool {
	marker := []byte(tinyinit.ExecID + "=" + token)
	var all []proc
	victims, sessions := map[int]bool{}, map[int]bool{}
	initSession := 0
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			continue
		}
		if ns, err := os.Readlink(filepath.Join(d, "ns/pid")); err != nil || ns != namespace {
			continue
		}
		p, ok := readStat(pid)
		if !ok {
			continue
		}
		if pid == initPid {
			initSession = p.session
			continue
		}
		all = append(all, p)
	}
	for i, env := range environments(initPid, all) {
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(kv, marker) {
				victims[all[i].pid] = true
				sessions[all[i].session] = true
			}
		}
	}
	delete(sessions, initSession)
	delete(sessions, 0)
	for grew := true; grew; {
		grew = false
		for _, p := range all {
			if !victims[p.pid] && (victims[p.parent] || sessions[p.session]) {
				victims[p.pid], grew = true, true
				if p.session != initSession && p.session != 0 {
					sessions[p.session] = true
				}
			}
		}
	}
	return victims
}

// maxEnviron bounds what is read of an environment; the kernel's own limit of one
// string is 128 KiB.
const maxEnviron = 4 << 20

// environments reads the environments of processes. Those of other users than this
// one can be opened only from within their user namespace.
func environments(initPid int, all []proc) [][]byte {
	envs := make([][]byte, len(all))
	var closed []int
	var paths []string
	for i, p := range all {
		f, err := os.Open(procPath(p.pid, "environ"))
		if errors.Is(err, os.ErrPermission) {
			closed, paths = append(closed, i), append(paths, procPath(p.pid, "environ"))
		}
		if err == nil {
			envs[i], _ = io.ReadAll(io.LimitReader(f, maxEnviron))
			_ = f.Close()
		}
	}
	if len(closed) == 0 || os.Geteuid() == 0 {
		return envs
	}
	userNS, err := os.Open(procPath(initPid, "ns/user"))
	if err != nil {
		return envs
	}
	defer userNS.Close()
	for len(paths) > 0 {
		n := min(len(paths), maxOpen)
		files, _ := openThroughUser(userNS, paths[:n], os.O_RDONLY)
		for j, f := range files {
			if f != nil {
				envs[closed[j]], _ = io.ReadAll(io.LimitReader(f, maxEnviron))
				_ = f.Close()
			}
		}
		paths, closed = paths[n:], closed[n:]
	}
	return envs
}

// readStat reads what is needed of a process that is not a zombie.
func readStat(pid int) (proc, bool) {
	b, err := os.ReadFile(procPath(pid, "stat"))
	if err != nil {
		return proc{}, false
	}
	// The name is in parentheses and may hold anything.
	_, rest, ok := strings.Cut(string(b[max(0, bytes.LastIndexByte(b, ')')):]), ") ")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 4 || fields[0] == "Z" || fields[0] == "X" {
		return proc{}, false
	}
	parent, err1 := strconv.Atoi(fields[1])
	session, err2 := strconv.Atoi(fields[3])
	return proc{pid: pid, parent: parent, session: session}, err1 == nil && err2 == nil
}

// killBuild kills the processes of a build's step, known by the size of their
// /dev/shm. It reports whether there were any.
func killBuild(mark int64) bool {
	size := fmt.Sprintf("size=%dk", mark/1024)
	found := false
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		b, err := os.ReadFile(filepath.Join(d, "mountinfo"))
		if err != nil || !hasShm(b, size) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(d)); err == nil {
			if _, alive := readStat(pid); alive && unix.Kill(pid, unix.SIGKILL) == nil {
				found = true
			}
		}
	}
	return found
}

// hasShm looks for a /dev/shm of a size in a mount table.
func hasShm(mountinfo []byte, size string) bool {
	for line := range bytes.Lines(mountinfo) {
		fields := strings.Fields(string(line))
		if len(fields) > 6 && fields[4] == "/dev/shm" && slices.Contains(strings.Split(fields[len(fields)-1], ","), size) {
			return true
		}
	}
	return false
}
