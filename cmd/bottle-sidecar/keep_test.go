package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// child is the process that a keeper has started.
func (r *running) child() int {
	r.t.Helper()
	pid := r.cmd.Process.Pid
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, thread := range threads {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/children", pid, thread.Name()))
		if err != nil {
			r.t.Fatal(err)
		}
		if fields := strings.Fields(string(text)); len(fields) > 0 {
			child, err := strconv.Atoi(fields[0])
			if err != nil {
				r.t.Fatal(err)
			}
			return child
		}
	}
	r.t.Fatal("the keeper has no child")
	return 0
}

func TestAServerThatIsKilledIsStartedAgain(t *testing.T) {
	dir := t.TempDir()
	r := startSupervise(t, dir, t.TempDir(), "--restart")
	r.expect("started")
	document := `{"config":{"agent":"coder","listen":"127.0.0.1:0","policy":{"allow":[],"routes":[]}}}`
	if _, errOut, code := program(t, document, "put", "--wait", "--run", dir); code != 0 {
		t.Fatalf("put: %d, %s", code, errOut)
	}
	addr, _ := r.expect("listening")["address"].(string)
	if got := asAgent(t, addr, "propose_egress", `{"add":[{"host":"b.example"}],"reason":"r"}`); !strings.Contains(got, "p1") {
		t.Fatal(got)
	}
	for range 2 {
		if err := syscall.Kill(r.child(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r.expect("started again")
		addr, _ = r.expect("listening")["address"].(string)
		if got := asAgent(t, addr, "get_proposal", `{"id":"p1"}`); !strings.Contains(got, "pending") {
			t.Error(got)
		}
	}
	if out, _, code := program(t, "", "proposals", "list", "--run", dir); code != 0 || !strings.Contains(out, "+b.example") {
		t.Errorf("list: %d, %s", code, out)
	}
	// It ends when it is told to.
	r.signal(syscall.SIGTERM)
	r.expect("stopping")
	if err := r.cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestAServerThatIsKilledAgainAndAgainIsGivenUp(t *testing.T) {
	r := startSupervise(t, t.TempDir(), t.TempDir(), "--restart")
	for i := range mostKills + 1 {
		r.expect("started")
		if err := syscall.Kill(r.child(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if i < mostKills {
			r.expect("started again")
		}
	}
	if err := r.cmd.Wait(); err == nil {
		t.Error("it ended as if all were well")
	}
}
