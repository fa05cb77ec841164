package containerd

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/procs"
)

// sleeping reports whether a process sleeps for so many seconds.
func sleeping(seconds string) bool {
	lists, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range lists {
		if line, err := os.ReadFile(file); err == nil && bytes.Equal(line, []byte("sleep\x00"+seconds+"\x00")) {
			return true
		}
	}
	return false
}

// A process that is killed amid an exec is the reader that the shim waits for, with all that
// it would tell about the container.
func TestAnExecWhoseProcessWasKilledDoesNotHoldItsContainer(t *testing.T) {
	e := testEngine(t)
	c := run(t, e, runtime.ContainerSpec{Name: "ctd-unread"})
	// As after a kill -9 between the start of the process and the shim's look at its output.
	const dead = "dead00000000"
	if err := os.WriteFile(filepath.Join(e.aliveDir(), dead+".lock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	id := newID()
	dir := filepath.Join(e.run, "exec", dead, id)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "stdout")
	if err := unix.Mkfifo(out, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx := e.ctx(t.Context())
	stored, init, err := e.running(ctx, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	process, err := e.execProcess(stored, init.Pid, id, runtime.ExecSpec{Command: []string{"sleep", "6543"}})
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := json.Marshal(process)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.tasks().Exec(ctx, &tasks.ExecProcessRequest{
		ContainerID: c.ID, ExecID: id, Stdout: out, Spec: &anypb.Any{TypeUrl: processType, Value: encoded},
	}); err != nil {
		t.Fatal(err)
	}
	cut, cancel := context.WithCancel(ctx)
	started := make(chan error, 1)
	go func() {
		_, err := e.tasks().Start(cut, &tasks.StartRequest{ContainerID: c.ID, ExecID: id})
		started <- err
	}()
	eventually(t, "the process runs", func() bool { return sleeping("6543") })
	select {
	case err := <-started:
		t.Fatalf("the shim does not wait for its reader: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	cancel()

	next, err := Driver{}.Open(t.Context(), runtime.Options{Host: needEngine(t)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = next.Close() }()
	removing, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	if err := next.RemoveContainer(removing, c.ID); err != nil {
		t.Errorf("the container is held: %v", err)
	}
	eventually(t, "the process has ended", func() bool { return !sleeping("6543") })
}

func TestAShimWithoutAContainerIsEnded(t *testing.T) {
	e := testEngine(t)
	kept := run(t, e, runtime.ContainerSpec{Name: "ctd-shim"})
	// As containerd leaves it whose Delete is cut off.
	shims := e.shims()
	if len(shims[kept.ID]) != 1 {
		t.Fatalf("the container's shim is not found: %v", shims)
	}
	program, err := os.Readlink(procs.File(shims[kept.ID][0], "exe"))
	if err != nil {
		t.Fatal(err)
	}
	id := newID()
	bundle := t.TempDir()
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A shim that has nowhere to write its log to ends by itself.
	log := filepath.Join(bundle, "log")
	if err := unix.Mkfifo(log, 0o600); err != nil {
		t.Fatal(err)
	}
	reader, err := os.OpenFile(log, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reader.Close() }()
	cmd := exec.Command(program, "-namespace", e.namespace, "-id", id, "-address", e.address, "start")
	cmd.Dir, cmd.Env = bundle, append(os.Environ(), "TTRPC_ADDRESS="+e.address+".ttrpc", "MAX_SHIM_VERSION=2", "GOMAXPROCS=2")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for range 30 { // and it stays
		time.Sleep(10 * time.Millisecond)
		if len(e.shims()[id]) != 1 {
			t.Fatal("there is no shim to be ended")
		}
	}
	if err := e.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the orphan is ended", func() bool { return len(e.shims()[id]) == 0 })
	if out, code := sh(t, e, "ctd-shim", "echo lives"); code != 0 || out != "lives\n" {
		t.Errorf("another container's shim: %q, status %d", out, code)
	}
}

// idleVariable has this program wait for the end of its input, whatever it is called.
const idleVariable = "BOTTLE_TEST_IDLE"

func init() {
	if os.Getenv(idleVariable) != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
}

// What a process calls itself is its own affair: an agent's, too.
func TestNoProcessIsAShimByItsName(t *testing.T) {
	e := &Engine{address: "/run/c.sock", namespace: "bottle"}
	whole := []string{"containerd-shim-runc-v2", "-namespace", "bottle", "-id", "one", "-address", "/run/c.sock"}
	for _, c := range []struct {
		args []string
		own  bool // whether it has a process namespace of its own
		want string
	}{
		{whole[:1], false, ""},
		{whole[:2], false, ""},
		{whole[:5], false, ""},
		{append([]string{"other"}, whole[1:]...), false, ""},
		{append(whole[:6:6], "/run/other.sock"), false, ""},
		{append(whole[:7:7], "start"), false, ""},
		{whole, true, ""},
		{whole, false, "one"},
	} {
		cmd := &exec.Cmd{Path: must(os.Executable()), Args: c.args, Env: append(os.Environ(), idleVariable+"=1")}
		if c.own {
			if os.Geteuid() != 0 {
				continue // only root makes a process namespace
			}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID}
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if got := e.shimOf(cmd.Process.Pid); got != c.want {
			t.Errorf("%q: %q, want %q", c.args, got, c.want)
		}
		_ = in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// A name is in the directory before it is locked, and may be swept in between.
func TestConnectionsGetTheirNamesWhileOthersSweep(t *testing.T) {
	e := testEngine(t)
	done := make(chan struct{})
	var sweeping sync.WaitGroup
	for range 4 {
		sweeping.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, err := e.sweepConnections(e.ctx(t.Context())); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 500 {
		next := &Engine{run: e.run, state: e.state}
		if err := next.live(); err != nil {
			t.Error(err)
			break
		}
		next.alive.remove()
	}
	close(done)
	sweeping.Wait()
}
