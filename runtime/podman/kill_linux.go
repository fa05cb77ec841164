package podman

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime/internal/procs"
	"github.com/bottle-run/bottle/runtime/internal/tinyinit"
)

var errTooMany = errors.New("its processes multiply faster than they can be killed")

// killToken kills every process of a container whose environment holds the token,
// with their descendants and sessions, until none is left. It reports whether it
// found one. The user who runs a rootless engine may signal and look at all of its
// processes, whatever their user in the container.
func killToken(ctx context.Context, initPid int, token string) (found bool, err error) {
	namespace, err := os.Readlink(procs.File(initPid, "ns/pid"))
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
	var all []procs.Stat
	victims, sessions := map[int]bool{}, map[int]bool{}
	initSession := 0
	for _, pid := range procs.All() {
		if ns, err := os.Readlink(procs.File(pid, "ns/pid")); err != nil || ns != namespace {
			continue
		}
		p, ok := procs.Read(pid)
		if !ok {
			continue
		}
		if pid == initPid {
			initSession = p.Session
			continue
		}
		all = append(all, p)
	}
	for i, env := range environments(initPid, all) {
		for kv := range bytes.SplitSeq(env, []byte{0}) {
			if bytes.Equal(kv, marker) {
				victims[all[i].PID] = true
				sessions[all[i].Session] = true
			}
		}
	}
	delete(sessions, initSession)
	delete(sessions, 0)
	for grew := true; grew; {
		grew = false
		for _, p := range all {
			if !victims[p.PID] && (victims[p.Parent] || sessions[p.Session]) {
				victims[p.PID], grew = true, true
				if p.Session != initSession && p.Session != 0 {
					sessions[p.Session] = true
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
func environments(initPid int, all []procs.Stat) [][]byte {
	envs := make([][]byte, len(all))
	var closed []int
	var paths []string
	for i, p := range all {
		f, err := os.Open(procs.File(p.PID, "environ"))
		if errors.Is(err, os.ErrPermission) {
			closed, paths = append(closed, i), append(paths, procs.File(p.PID, "environ"))
		}
		if err == nil {
			envs[i], _ = io.ReadAll(io.LimitReader(f, maxEnviron))
			_ = f.Close()
		}
	}
	if len(closed) == 0 || os.Geteuid() == 0 {
		return envs
	}
	userNS, err := os.Open(procs.File(initPid, "ns/user"))
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

// killBuild kills the processes of a build's step, known by the size of their
// /dev/shm. It reports whether there were any.
func killBuild(mark int64) bool {
	size := fmt.Sprintf("size=%dk", mark/1024)
	found := false
	for _, pid := range procs.All() {
		b, err := os.ReadFile(procs.File(pid, "mountinfo"))
		if err != nil || !hasShm(b, size) {
			continue
		}
		if _, alive := procs.Read(pid); alive && unix.Kill(pid, unix.SIGKILL) == nil {
			found = true
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
