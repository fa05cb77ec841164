package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/core/session"
)

func TestTheWatchdogGetsWhatFindsAnEngineAndNoMore(t *testing.T) {
	got := watchdogEnv([]string{"HOME=/h", "TOKEN=x", "DOCKER_HOST=d", "DOCKER_AUTH_CONFIG=secret", "XDG_STATE_HOME=s", "CONTAINER_TOKEN=x", "BOTTLE_HOST=b", "AWS_SECRET_ACCESS_KEY=x", "LC_ALL=C", "odd"})
	if want := []string{"HOME=/h", "DOCKER_HOST=d", "XDG_STATE_HOME=s", "LC_ALL=C"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestTheWatchdogHoldsNothing looks at a real one: a session of its own, nothing secret, no
// file of its parent's; and it ends when its parent needs it no more.
func TestTheWatchdogHoldsNothing(t *testing.T) {
	t.Setenv("TOKEN", "tok-kestrel-secret")
	// As a script leaves a lock open for its children.
	inherited, err := os.Open(os.DevNull)
	check(t, err)
	defer func() { _ = inherited.Close() }()
	_, err = unix.FcntlInt(inherited.Fd(), unix.F_SETFD, 0)
	check(t, err)
	store, err := session.Open(filepath.Join(t.TempDir(), "sessions"), session.ThisSystem())
	check(t, err)
	w, err := startWatchdog(watchdogConfig{Sessions: store.Dir(), Owner: session.ThisSystem().Self()})
	check(t, err)
	check(t, w.ready())
	dog := watchdogOf(os.Getpid())
	if dog == 0 {
		t.Fatal("there is no watchdog")
	}
	proc := fmt.Sprintf("/proc/%d/", dog)
	for _, file := range []string{"environ", "cmdline"} {
		content, err := os.ReadFile(proc + file)
		check(t, err)
		if strings.Contains(string(content), "kestrel") {
			t.Errorf("%s: %q", file, content)
		}
	}
	if sid, err := unix.Getsid(dog); err != nil || sid != dog {
		t.Errorf("it is of session %d: %v", sid, err)
	}
	files, err := os.ReadDir(proc + "fd")
	check(t, err)
	null := 0
	for _, f := range files {
		if target, _ := os.Readlink(proc + "fd/" + f.Name()); target == os.DevNull {
			null++
		}
	}
	if null != 3 {
		t.Errorf("it has %d files open on %s", null, os.DevNull)
	}
	status, err := os.ReadFile(proc + "status")
	check(t, err)
	for line := range strings.Lines(string(status)) {
		if strings.HasPrefix(line, "Vm") || strings.HasPrefix(line, "Rss") {
			t.Log(strings.TrimSpace(line))
		}
	}
	if !w.end() {
		t.Error("it does not end")
	}
}

func TestTheWatchdogGivesTheTerminalBack(t *testing.T) {
	master, slave, err := pty.Open()
	check(t, err)
	defer func() { _, _ = master.Close(), slave.Close() }()
	store, err := session.Open(filepath.Join(t.TempDir(), "sessions"), session.ThisSystem())
	check(t, err)
	w, err := startWatchdog(watchdogConfig{Sessions: store.Dir(), Owner: session.ThisSystem().Self()})
	check(t, err)
	before, known := stateOf(slave)
	if !known {
		t.Fatal("the terminal is not known by a name")
	}
	_, err = rawTerminal(slave)
	check(t, err)
	w.terminal(before)
	check(t, w.ready())
	if !w.end() { // as if this process had been killed
		t.Error("it does not end")
	}
	check(t, master.SetReadDeadline(time.Now().Add(patience)))
	said := make([]byte, 1024)
	n, err := master.Read(said)
	if after, _ := stateOf(slave); err != nil || after != before || !strings.Contains(string(said[:n]), "\x1b[?25h") {
		t.Errorf("%+v, %q, %v", after, said[:n], err)
	}
}
