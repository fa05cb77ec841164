package procs_test

import (
	"os"
	"os/exec"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime/internal/procs"
)

func TestThisProcess(t *testing.T) {
	pid := os.Getpid()
	if !slices.Contains(procs.All(), pid) {
		t.Error("it is not among all")
	}
	if got := procs.Args(pid); !slices.Equal(got, os.Args) {
		t.Errorf("its arguments are %q, want %q", got, os.Args)
	}
	session, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	want := procs.Stat{PID: pid, Parent: os.Getppid(), Session: session}
	if st, ok := procs.Read(pid); !ok || st != want {
		t.Errorf("%+v, %v, want %+v", st, ok, want)
	}
	for _, arg := range os.Args {
		if slices.Contains(procs.With(arg), pid) {
			t.Error("it finds itself")
		}
	}
}

// TestAnother looks at a process whose name is made to be misread, while it runs, is stopped and
// has ended without being waited for.
func TestAnother(t *testing.T) {
	dir := t.TempDir()
	program := dir + "/a) Z 1 (b"
	if err := os.Symlink("/bin/sleep", program); err != nil {
		t.Fatal(err)
	}
	mark := "1000." + strconv.Itoa(os.Getpid())
	cmd := exec.Command(program, mark)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	defer func() { _ = cmd.Wait() }()
	defer func() { _ = cmd.Process.Kill() }()
	if got := procs.With(mark); !slices.Equal(got, []int{pid}) {
		t.Errorf("processes with its argument: %v, want %d", got, pid)
	}
	want := procs.Stat{PID: pid, Parent: os.Getpid(), Session: pid}
	if st, ok := procs.Read(pid); !ok || st != want {
		t.Errorf("%+v, %v, want %+v", st, ok, want)
	}
	if err := cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	want.Stopped = true
	until(t, func() bool { st, ok := procs.Read(pid); return ok && st == want })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, func() bool { _, ok := procs.Read(pid); return !ok })
	if got := procs.Args(pid); got != nil {
		t.Errorf("a zombie has the arguments %q", got)
	}
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not come to be")
		}
	}
}
