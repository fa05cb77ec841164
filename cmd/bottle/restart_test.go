package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// moments are those at which the engine's daemon goes, each by what bottle says then.
var moments = []struct{ name, text string }{
	{"it is restarted amid a launch", "create internal network"},
	{"it is restarted amid a launch, later", "start supervise"},
	{"it is restarted while the agent runs", "ready"},
	{"it is restarted amid a teardown", "remove agent container"},
}

// TestTheDaemonGoes lets the engine's daemon go and come back while a bottle with
// everything lives: nothing hangs, and nothing is left in the end. BOTTLE_TEST_RESTARTS says
// at how many moments.
func TestTheDaemonGoes(t *testing.T) {
	s := newScene(t, "sleep 2")
	defer s.end()
	for range 2 {
		out, err := s.bottle("run", "e2e-life").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, m := range moments[:min(len(moments), number(t, "BOTTLE_TEST_RESTARTS", 1))] {
		s.restart() // what a restart changes once
		s.mark()
		cmd := s.bottle("run", "e2e-life")
		out := &watched{text: m.text}
		cmd.Stdout, cmd.Stderr = out, out
		out.seen = s.restart
		begun := time.Now()
		check(t, cmd.Start())
		deadline := time.AfterFunc(150*time.Second, func() {
			t.Errorf("%s: it hangs", m.name)
			_ = cmd.Process.Signal(syscall.SIGQUIT)
		})
		_ = cmd.Wait()
		deadline.Stop()
		ended := time.Since(begun)
		out.wait()
		// The watchdog tries again every now and then, and a command does it at once.
		said, err := s.bottle("ps").CombinedOutput()
		check(t, err)
		took, left := s.nothingLeft(3*killedTime(), s.daemons)
		t.Logf("%s: status %d after %v; nothing left %v later\n%s%s", m.name, cmd.ProcessState.ExitCode(), ended.Round(time.Millisecond), took.Round(time.Millisecond), out.String(), said)
		if len(left) > 0 {
			t.Errorf("%s: this is left:\n%s", m.name, strings.Join(left, "\n"))
		}
		if !out.saw() {
			t.Errorf("%s: %q was never said", m.name, m.text)
		}
		if strings.Contains(out.String(), "panic") || strings.Contains(out.String(), "error of bottle itself") {
			t.Errorf("%s: it broke", m.name)
		}
	}
}

// daemons reports what is the daemon's own: rules that it puts in again, and the volume that
// dockerd was making when it shut down, of which it keeps the directory and forgets the labels.
func (s *scene) daemons(it string) bool {
	if strings.HasPrefix(it, "host: firewall rules: rule 2 nat ") && strings.HasSuffix(it, "Verdict&{Kind:-3 Chain:DOCKER}") {
		return true
	}
	// Amid a start, dockerd leaves the shim of a container that it then does not know: nothing
	// runs in it yet.
	if shim, ok := strings.CutPrefix(it, "processes: "); ok && s.name == "docker" && strings.Contains(shim, "containerd-shim-runc-v2 -namespace moby") {
		if pid, err := strconv.Atoi(strings.Fields(shim)[0]); err == nil {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		s.t.Logf("dockerd left %s", shim)
		return true
	}
	volume, ok := strings.CutPrefix(it, "engine: volumes: ")
	if !ok || s.name != "docker" {
		return false
	}
	labels, err := exec.Command("docker", "volume", "inspect", "--format", "{{len .Labels}}", volume).Output()
	if err != nil || strings.TrimSpace(string(labels)) != "0" {
		return false
	}
	check(s.t, exec.Command("docker", "volume", "rm", volume).Run())
	s.t.Logf("dockerd forgot the labels of volume %s", volume)
	return true
}

// restart ends the engine's daemon and starts it again.
func (s *scene) restart() {
	if s.name == "podman" {
		lists, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range lists {
			line, err := os.ReadFile(f)
			if args := strings.Split(string(line), "\x00"); err != nil || !slices.Contains(args, "system") || !slices.Contains(args, "service") {
				continue
			}
			// Not the one by which this test looks.
			parent := parentOf(filepath.Dir(f))
			if parent == os.Getpid() || parentOf(fmt.Sprintf("/proc/%d", parent)) == os.Getpid() && strings.Contains(programOf(parent), "podman") {
				continue
			}
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(f))); err == nil {
				_ = syscall.Kill(pid, syscall.SIGTERM) // whoever needs it starts another
			}
		}
		return
	}
	cmd := exec.Command(os.Getenv("BOTTLE_TEST_ENGINES"), "restart", s.name)
	log, err := os.Create(filepath.Join(s.dir, "restart.log")) // not a pipe: the daemon has it, too
	check(s.t, err)
	cmd.Stdout, cmd.Stderr = log, log
	err = cmd.Run()
	_ = log.Close()
	if err != nil {
		said, _ := os.ReadFile(log.Name())
		s.t.Errorf("restart %s: %v: %s", s.name, err, said)
	}
}

// parentOf is the parent of a process, by its directory in /proc; 0 if it has ended.
func parentOf(dir string) int {
	stat, err := os.ReadFile(filepath.Join(dir, "stat"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	pid, _ := strconv.Atoi(fields[1])
	return pid
}

func programOf(pid int) string {
	program, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	return string(program)
}

// watched is a writer that does something once, when a text has been written.
type watched struct {
	text string
	seen func()

	mu      sync.Mutex
	all     bytes.Buffer
	began   bool
	running sync.WaitGroup
}

var _ io.Writer = (*watched)(nil)

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all.Write(p)
	if !w.began && strings.Contains(w.all.String(), w.text) {
		w.began = true
		w.running.Go(w.seen)
	}
	return len(p), nil
}

func (w *watched) wait() { w.running.Wait() }

func (w *watched) saw() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.began
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.all.String()
}
