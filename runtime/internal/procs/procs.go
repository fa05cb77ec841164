// Package procs looks at processes through /proc (proc(5)). Where there is no /proc, there are
// no processes.
package procs

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const root = "/proc"

// All lists the PIDs of the processes that there are, in no order.
func All() []int {
	dir, err := os.Open(root)
	if err != nil {
		return nil
	}
	defer func() { _ = dir.Close() }()
	names, _ := dir.Readdirnames(-1)
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// File is where the kernel tells something of a process.
func File(pid int, name string) string { return filepath.Join(root, strconv.Itoa(pid), name) }

// Args is a process's command line. It is nil if the process has gone, is a zombie or one of
// the kernel's. A process can change its own.
func Args(pid int) []string {
	line, err := os.ReadFile(File(pid, "cmdline"))
	if err != nil || len(line) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
}

// With lists the processes that have an argument, but for this one.
func With(arg string) []int {
	return slices.DeleteFunc(All(), func(pid int) bool { return pid == os.Getpid() || !slices.Contains(Args(pid), arg) })
}

// Stat is some of what /proc/PID/stat says.
type Stat struct {
	PID, Parent, Session int
	// Stopped says that a signal, or who traces it, has stopped it.
	Stopped bool
}

// Read describes a process. It is false if the process has gone, or is a zombie.
func Read(pid int) (Stat, bool) {
	content, err := os.ReadFile(File(pid, "stat"))
	if err != nil {
		return Stat{}, false
	}
	// The process chooses its name: the fields begin after the last ')'.
	end := bytes.LastIndexByte(content, ')')
	if end < 0 {
		return Stat{}, false
	}
	fields := strings.Fields(string(content[end+1:]))
	if len(fields) < 4 || fields[0] == "Z" || fields[0] == "X" {
		return Stat{}, false
	}
	parent, err1 := strconv.Atoi(fields[1])
	session, err2 := strconv.Atoi(fields[3])
	return Stat{pid, parent, session, fields[0] == "T" || fields[0] == "t"}, err1 == nil && err2 == nil
}
