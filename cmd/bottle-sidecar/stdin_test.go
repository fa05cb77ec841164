package main

import (
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/sidecar/delivery"
)

func TestTheFirstDocumentComesOnTheStandardInput(t *testing.T) {
	dir := t.TempDir()
	pair, err := ca.NewPair("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	// It comes late, and in pieces.
	stdin, w := io.Pipe()
	r := startGiven(t, stdin, dir, "firewall", delivery.StdinFlag)
	r.expect("started")
	if _, errOut, code := program(t, "", "healthcheck", "--run", dir); code != exitNotReady {
		t.Errorf("before: %d, %s", code, errOut)
	}
	text := document(t, dir, pair, nil, "very-secret-value")
	for _, part := range []string{text[:100], text[100:]} {
		if _, err := io.WriteString(w, part); err != nil {
			t.Fatal(err)
		}
	}
	_ = w.Close()
	addr, _ := r.expect("listening")["address"].(string)
	r.expect("ready")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	// What is put later changes it.
	allow := func(config map[string]any) { config["allow"] = []map[string]any{{"host": "b.test"}} }
	if _, errOut, code := program(t, document(t, dir, pair, allow, ""), "put", "--wait", "--run", dir); code != 0 {
		t.Errorf("put: %d, %s", code, errOut)
	}
	if out, _, code := program(t, "", "policy", "show", "--run", dir); code != 0 || !strings.Contains(out, "b.test") {
		t.Errorf("policy show: %d, %s", code, out)
	}
	r.signal(syscall.SIGTERM)
	rest, _ := io.ReadAll(r.logs)
	if err := r.cmd.Wait(); err != nil {
		t.Error(err)
	}
	if strings.Contains(string(rest)+r.out.String(), "very-secret-value") {
		t.Error("the secret is in the logs")
	}
}

func TestASidecarThatIsNotReadySaysWhyAndEnds(t *testing.T) {
	pair, err := ca.NewPair("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, c := range map[string]struct {
		text func(dir string) string
		says string
	}{
		"nothing":        {func(string) string { return "" }, "no JSON object"},
		"the half of it": {func(dir string) string { d := document(t, dir, pair, nil, "v"); return d[:len(d)/2] }, "reading the delivery"},
		"no authority":   {func(string) string { return `{"config":{"agent":"coder"}}` }, "ca_cert"},
		"a secret lacks": {func(dir string) string { return document(t, dir, pair, nil, "") }, "token"},
		"too much":       {func(string) string { return `{"ca_cert":"` + strings.Repeat("x", delivery.MaxDocument) + `"}` }, "more than"},
		"an address that": {func(dir string) string {
			return document(t, dir, pair, func(config map[string]any) { config["listen"] = taken.Addr().String() }, "v")
		}, "address already in use"},
	} {
		dir := t.TempDir()
		out, errOut, code := program(t, c.text(dir), "firewall", delivery.StdinFlag, "--run", dir)
		if code != exitNotReady || out != "" {
			t.Errorf("%s: exit %d, %s", name, code, out)
		}
		var why error
		for line := range strings.Lines(errOut) {
			ready, reason := delivery.Answer([]byte(line))
			if ready {
				t.Errorf("%s: it says that it is ready: %s", name, errOut)
			}
			if reason != nil {
				why = reason
			}
		}
		if why == nil || !strings.Contains(why.Error(), c.says) {
			t.Errorf("%s: it says %v, want %q:\n%s", name, why, c.says, errOut)
		}
	}
}

func TestAServerThatIsStartedAgainKeepsWhatItWasGiven(t *testing.T) {
	dir := t.TempDir()
	// As an engine has it: a pipe.
	stdin, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r := startGiven(t, stdin, dir, "supervise", "--state", t.TempDir(), "--restart", delivery.StdinFlag)
	_ = stdin.Close()
	r.expect("started")
	if _, err := io.WriteString(w, `{"config":{"agent":"coder","listen":"127.0.0.1:0","policy":{"allow":[],"routes":[]}}}`); err != nil {
		t.Fatal(err)
	}
	_ = w.Close()
	r.expect("ready")
	if err := syscall.Kill(r.child(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.expect("started again")
	addr, _ := r.expect("listening")["address"].(string)
	if got := asAgent(t, addr, "propose_egress", `{"add":[{"host":"b.example"}],"reason":"r"}`); !strings.Contains(got, "p1") {
		t.Error(got)
	}
	r.signal(syscall.SIGTERM)
	r.expect("stopping")
	if err := r.cmd.Wait(); err != nil {
		t.Error(err)
	}
	// One that never was ready ends its keeper, too.
	if _, errOut, code := program(t, "{", "supervise", "--run", t.TempDir(), "--restart", delivery.StdinFlag); code != exitNotReady || !strings.Contains(errOut, "reading the delivery") {
		t.Errorf("exit %d, %s", code, errOut)
	}
}
