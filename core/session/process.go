package session

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Life is whether a process lives.
type Life string

// What can be said about a process.
const (
	Alive Life = "alive"
	Dead  Life = "dead"
	// Unknown is a process of another machine or PID namespace, or one about which
	// this system tells too little. It must be taken for alive.
	Unknown Life = "unknown"
)

// System looks at processes. The zero value is not usable; see [ThisSystem].
type System struct {
	// Proc is where procfs is mounted.
	Proc string
	// Hostname tells the machine's name.
	Hostname func() (string, error)
}

// ThisSystem is the machine that this program runs on.
func ThisSystem() System { return System{Proc: "/proc", Hostname: os.Hostname} }

// Self identifies this process.
func (s System) Self() Process {
	p := s.here()
	p.PID, p.UID = os.Getpid(), os.Getuid()
	p.Start, _ = s.start(p.PID)
	return p
}

// here is what all processes of this machine and namespace have in common.
func (s System) here() Process {
	var p Process
	if boot, err := os.ReadFile(filepath.Join(s.Proc, "sys/kernel/random/boot_id")); err == nil {
		p.Boot = strings.TrimSpace(string(boot))
	}
	p.Namespace, _ = os.Readlink(filepath.Join(s.Proc, "self/ns/pid"))
	p.Host, _ = s.Hostname()
	return p
}

// start is when a process began. The error is fs.ErrNotExist if there is none, or
// only what is left of one until it is waited for.
func (s System) start(pid int) (string, error) {
	stat, err := os.ReadFile(filepath.Join(s.Proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return "", err
	}
	// The second field is the program's name in parentheses, and may hold anything.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const state, start = 0, 19 // of proc(5): fields 3 and 22
	if len(fields) <= start {
		return "", errors.New("its stat file is not understood")
	}
	if s := string(fields[state]); s == "Z" || s == "X" {
		return "", fs.ErrNotExist
	}
	return string(fields[start]), nil
}

// Life reports whether a process lives, as far as can be told from here.
func (s System) Life(p Process) Life {
	here := s.here()
	switch {
	case p.PID <= 0 || p.Start == "" || p.Boot == "" || here.Boot == "":
		return Unknown
	case p.Boot != here.Boot && p.Host != here.Host:
		return Unknown // another machine's
	case p.Boot != here.Boot:
		return Dead // the machine was started again since
	case p.Namespace != here.Namespace:
		return Unknown
	}
	start, err := s.start(p.PID)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Dead
	case err != nil:
		return Unknown
	case start != p.Start:
		return Dead // the number was given out again
	}
	return Alive
}
