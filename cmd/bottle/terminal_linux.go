package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// terminalState is a terminal, and the settings to give it back.
type terminalState struct {
	Name  string       `json:"name"`
	State unix.Termios `json:"state"`
}

// stateOf is a terminal as it is now, by a name under which another process finds it.
func stateOf(f *os.File) (terminalState, bool) {
	name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
	if err != nil || !strings.HasPrefix(name, "/dev/") {
		return terminalState{}, false
	}
	state, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		return terminalState{}, false
	}
	return terminalState{name, *state}, true
}

// restore gives the terminal its settings back, and takes from it what a program that was
// cut off may have asked of it.
func (t terminalState) restore() {
	fd, err := unix.Open(t.Name, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return // it has gone
	}
	defer func() { _ = unix.Close(fd) }()
	_ = unix.IoctlSetTermios(fd, unix.TCSETS, &t.State)
	_, _ = unix.Write(fd, []byte(terminalReset))
}
