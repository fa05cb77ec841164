package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bottle-run/bottle/core/ca"
)

// asProgram makes the test binary be the program.
const asProgram = "BOTTLE_SIDECAR_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func program(t *testing.T, stdin string, args ...string) (string, string, int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), self, args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var out, errOut bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &errOut
	err = cmd.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		t.Fatal(err)
	}
	return out.String(), errOut.String(), cmd.ProcessState.ExitCode()
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{}, {"nonsense"}, {"secrets"}, {"firewall"}, {"policy", "test", "GET"}, {"check"}} {
		if _, errOut, code := program(t, "", args...); code != exitUsage || errOut == "" {
			t.Errorf("%q: exit %d, %s", args, code, errOut)
		}
	}
	if out, _, code := program(t, "", "version"); code != 0 || out != "unknown\n" {
		t.Errorf("version: %q, %d", out, code)
	}
	if _, errOut, code := program(t, "", "healthcheck", "--run", t.TempDir()); code != exitNotReady {
		t.Errorf("nothing runs: exit %d, %s", code, errOut)
	}
}

// resident returns the resident memory of a process, in KiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Skipf("no /proc here: %v", err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(v)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

func TestALife(t *testing.T) {
	dir := t.TempDir()
	pair, err := ca.NewPair("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	config := map[string]any{
		"agent": "coder", "listen": addr, "ca_cert": file("ca.pem", pair.Agent.CertPEM), "ca_key": file("ca.key", pair.Agent.KeyPEM),
		"allow": []map[string]any{{"host": "a.test"}}, "secrets": []string{"token"},
	}
	render := func() string {
		data, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		return file("config.json", data)
	}
	path := render()
	if _, errOut, code := program(t, "", "check", "--firewall", path); code != 0 {
		t.Fatalf("check: %d, %s", code, errOut)
	}
	if _, errOut, code := program(t, "", "check", "--egress-proxy", path); code != exitFailed || !strings.Contains(errOut, "the address of the firewall") {
		t.Errorf("check as another: %d, %s", code, errOut)
	}
	self, _ := os.Executable()
	cmd := exec.CommandContext(t.Context(), self, "firewall", "--config", path, "--run", dir)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var out bytes.Buffer
	cmd.Stdout = &out
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	logs := bufio.NewReader(stderr)
	expect := func(want string) {
		t.Helper()
		for {
			line, err := logs.ReadString('\n')
			if err != nil {
				t.Fatalf("waiting for %q: %v", want, err)
			}
			var v map[string]any
			if json.Unmarshal([]byte(line), &v) != nil {
				t.Fatalf("a log line is no JSON: %s", line)
			}
			if v["msg"] == want {
				return
			}
		}
	}
	expect("started")
	t.Logf("started after %v", time.Since(begin))
	if _, errOut, code := program(t, "", "healthcheck", "--run", dir); code != exitNotReady || !strings.Contains(errOut, "token") {
		t.Errorf("without its secret: %d, %s", code, errOut)
	}
	if _, errOut, code := program(t, `{"secrets":[{"name":"token","value":"very-secret-value"}]}`, "secrets", "put", "--run", dir); code != 0 {
		t.Fatalf("secrets put: %d, %s", code, errOut)
	}
	if _, errOut, code := program(t, "", "healthcheck", "--run", dir); code != 0 {
		t.Errorf("with its secret: %d, %s", code, errOut)
	}
	t.Logf("resident memory is %d KiB", resident(t, cmd.Process.Pid))
	verdict, _, code := program(t, "", "policy", "test", "--run", dir, "GET", "https://b.test/x")
	if code != exitDenied || !strings.Contains(verdict, "default-deny") {
		t.Errorf("policy test: %d, %s", code, verdict)
	}
	if show, _, code := program(t, "", "policy", "show", "--run", dir); code != 0 || !strings.Contains(show, "a.test") || strings.Contains(show, "very-secret") {
		t.Errorf("policy show: %d, %s", code, show)
	}
	config["allow"] = []map[string]any{{"host": "*"}}
	render()
	if _, errOut, code := program(t, "", "reload", "--run", dir); code != exitFailed || !strings.Contains(errOut, "allow[0].host") {
		t.Errorf("a bad policy: %d, %s", code, errOut)
	}
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	expect("reload refused, the old configuration stays")
	config["allow"] = []map[string]any{{"host": "b.test"}}
	render()
	if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	expect("reloaded")
	if verdict, _, code := program(t, "", "policy", "test", "--run", dir, "GET", "https://b.test/x"); code != 0 {
		t.Errorf("after a reload: %d, %s", code, verdict)
	}
	resp, err := http.Get("http://" + addr + "/health")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	req, _ := http.NewRequest("GET", "http://"+addr+"/not-a-proxy-request", nil)
	if resp, err = http.DefaultTransport.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	rest, _ := io.ReadAll(logs)
	if err := cmd.Wait(); err != nil {
		t.Errorf("the end: %v\n%s", err, rest)
	}
	if !strings.Contains(out.String(), `"rule":"not-a-proxy-request"`) {
		t.Errorf("the audit log: %s", out.String())
	}
}
