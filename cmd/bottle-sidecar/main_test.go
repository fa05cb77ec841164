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
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/internal/needs"
	"github.com/bottle-run/bottle/sidecar/delivery"
	"github.com/bottle-run/bottle/sidecar/secrets"
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
	for _, args := range [][]string{{}, {"nonsense"}, {"secrets"}, {"firewall", "x"}, {"policy", "test", "GET"}, {"put", "--nonsense"}} {
		if _, errOut, code := program(t, "", args...); code != exitUsage || errOut == "" {
			t.Errorf("%q: exit %d, %s", args, code, errOut)
		}
	}
	if out, _, code := program(t, "", "version"); code != 0 || out != "unknown (dev.bottle.sidecar.delivery=2)\n" {
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
		needs.Missing(t, "resident memory is read from /proc: %v", err)
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

// running is a sidecar in a process of its own.
type running struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	logs *bufio.Reader
	out  bytes.Buffer
}

func start(t *testing.T, name, dir string) *running {
	t.Helper()
	return startGiven(t, nil, dir, name)
}

// startGiven starts a sidecar that has something on its standard input.
func startGiven(t *testing.T, stdin io.Reader, dir, name string, flags ...string) *running {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &running{t: t, dir: dir, cmd: exec.CommandContext(t.Context(), self, append([]string{name, "--run", dir}, flags...)...)}
	r.cmd.Env = append(os.Environ(), asProgram+"=1")
	r.cmd.Stdin = stdin
	r.cmd.Stdout = &r.out
	stderr, err := r.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r.logs = bufio.NewReader(stderr)
	return r
}

// expect reads logs until a message, and returns its line.
func (r *running) expect(want string) map[string]any {
	r.t.Helper()
	for {
		line, err := r.logs.ReadString('\n')
		if err != nil {
			r.t.Fatalf("waiting for %q: %v", want, err)
		}
		var v map[string]any
		if json.Unmarshal([]byte(line), &v) != nil {
			r.t.Fatalf("a log line is no JSON: %s", line)
		}
		if v["msg"] == want {
			return v
		}
	}
}

func (r *running) signal(sig syscall.Signal) {
	r.t.Helper()
	if err := r.cmd.Process.Signal(sig); err != nil {
		r.t.Fatal(err)
	}
}

// document is what core would put, for a directory of the test's.
func document(t *testing.T, dir string, pair *ca.Pair, change func(config map[string]any), secret string) string {
	t.Helper()
	config := map[string]any{
		"agent": "coder", "listen": "127.0.0.1:0", "ca_cert": delivery.In(dir, delivery.CACert), "ca_key": delivery.In(dir, delivery.CAKey),
		"allow": []map[string]any{{"host": "a.test"}}, "secrets": []string{"token"},
	}
	if change != nil {
		change(config)
	}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	doc := delivery.Document{Config: raw, CACert: string(pair.Agent.CertPEM), CAKey: string(pair.Agent.KeyPEM)}
	if secret != "" {
		doc.Secrets = []secrets.Secret{{Name: "token", Value: secrets.Value(secret)}}
	}
	data, err := doc.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestALife(t *testing.T) {
	dir := t.TempDir()
	pair, err := ca.NewPair("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	// Putting waits for a sidecar that is not there yet.
	type result struct {
		out  string
		code int
	}
	first := make(chan result, 1)
	go func() {
		_, errOut, code := program(t, document(t, dir, pair, nil, ""), "put", "--wait", "--run", dir)
		first <- result{errOut, code}
	}()
	begin := time.Now()
	r := start(t, "firewall", dir)
	r.expect("started")
	t.Logf("started after %v", time.Since(begin))
	addr, _ := r.expect("listening")["address"].(string)
	// It is configured, and lacks its secret.
	if got := <-first; got.code != exitNotReady || !strings.Contains(got.out, "token") {
		t.Errorf("without its secret: %d, %s", got.code, got.out)
	}
	if _, errOut, code := program(t, "", "healthcheck", "--run", dir); code != exitNotReady || !strings.Contains(errOut, "token") {
		t.Errorf("without its secret: %d, %s", code, errOut)
	}
	if _, errOut, code := program(t, `{"secrets":[{"name":"token","value":"very-secret-value"}]}`, "put", "--wait", "--run", dir); code != 0 {
		t.Fatalf("put: %d, %s", code, errOut)
	}
	if _, errOut, code := program(t, "", "healthcheck", "--run", dir); code != 0 {
		t.Errorf("with its secret: %d, %s", code, errOut)
	}
	t.Logf("resident memory is %d KiB", resident(t, r.cmd.Process.Pid))
	verdict, _, code := program(t, "", "policy", "test", "--run", dir, "GET", "https://b.test/x")
	if code != exitDenied || !strings.Contains(verdict, "default-deny") {
		t.Errorf("policy test: %d, %s", code, verdict)
	}
	if show, _, code := program(t, "", "policy", "show", "--run", dir); code != 0 || !strings.Contains(show, "a.test") || strings.Contains(show, "very-secret") {
		t.Errorf("policy show: %d, %s", code, show)
	}
	allow := func(host string) func(map[string]any) {
		return func(config map[string]any) { config["allow"] = []map[string]any{{"host": host}} }
	}
	// A bad policy is told with its place; the old one stays, on a reload too.
	if _, errOut, code := program(t, document(t, dir, pair, allow("*"), ""), "put", "--run", dir); code != exitFailed || !strings.Contains(errOut, "allow[0].host") {
		t.Errorf("a bad policy: %d, %s", code, errOut)
	}
	r.expect("reload refused, the old configuration stays")
	r.signal(syscall.SIGHUP)
	r.expect("reloaded")
	if verdict, _, code := program(t, "", "policy", "test", "--run", dir, "GET", "https://a.test/x"); code != 0 {
		t.Errorf("after a bad policy: %d, %s", code, verdict)
	}
	if _, errOut, code := program(t, document(t, dir, pair, allow("b.test"), ""), "put", "--wait", "--run", dir); code != 0 {
		t.Errorf("a good policy: %d, %s", code, errOut)
	}
	if verdict, _, code := program(t, "", "policy", "test", "--run", dir, "GET", "https://b.test/x"); code != 0 {
		t.Errorf("after a good policy: %d, %s", code, verdict)
	}
	other, err := ca.NewPair("other", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, errOut, code := program(t, document(t, dir, other, nil, ""), "put", "--run", dir); code != exitFailed || !strings.Contains(errOut, "cannot change") {
		t.Errorf("another authority: %d, %s", code, errOut)
	}
	if _, errOut, code := program(t, "", "reload", "--run", dir); code != 0 {
		t.Errorf("reload: %d, %s", code, errOut)
	}
	if _, errOut, code := program(t, "", "healthcheck", "--url", "http://"+addr+"/health"); code != 0 {
		t.Errorf("health by URL: %d, %s", code, errOut)
	}
	req, _ := http.NewRequest("GET", "http://"+addr+"/not-a-proxy-request", nil)
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	r.signal(syscall.SIGTERM)
	rest, _ := io.ReadAll(r.logs)
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("the end: %v\n%s", err, rest)
	}
	if !strings.Contains(r.out.String(), `"rule":"not-a-proxy-request"`) {
		t.Errorf("the audit log: %s", r.out.String())
	}
	if strings.Contains(string(rest)+r.out.String(), "very-secret-value") {
		t.Error("the secret is in the logs")
	}
}

func TestWithoutAConfigurationNothingIsServed(t *testing.T) {
	dir := t.TempDir()
	pair, err := ca.NewPair("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	// An address that is taken: the proxy is not open, and says so.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := taken.Addr().String()
	listen := func(config map[string]any) { config["listen"] = addr }
	r := start(t, "firewall", dir)
	r.expect("started")
	if _, errOut, code := program(t, "", "healthcheck", "--run", dir); code != exitNotReady || !strings.Contains(errOut, "configuration") {
		t.Errorf("without anything: %d, %s", code, errOut)
	}
	if _, errOut, code := program(t, `{"config":{"agent":"coder"}}`, "put", "--wait", "--run", dir); code != exitFailed || !strings.Contains(errOut, "ca_cert") {
		t.Errorf("without an authority: %d, %s", code, errOut)
	}
	if _, errOut, code := program(t, document(t, dir, pair, listen, "very-secret-value"), "put", "--wait", "--run", dir); code != exitFailed || !strings.Contains(errOut, "address already in use") {
		t.Errorf("an address that is taken: %d, %s", code, errOut)
	}
	if _, errOut, code := program(t, "", "healthcheck", "--run", dir); code != exitNotReady {
		t.Errorf("the proxy is not open: %d, %s", code, errOut)
	}
	taken.Close()
	if conn, err := net.Dial("tcp", addr); err == nil {
		conn.Close()
		t.Error("the proxy is open")
	}
	if _, errOut, code := program(t, document(t, dir, pair, listen, "very-secret-value"), "put", "--wait", "--run", dir); code != 0 {
		t.Errorf("the second try: %d, %s", code, errOut)
	}
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	r.signal(syscall.SIGTERM)
	if _, err := io.Copy(io.Discard, r.logs); err != nil {
		t.Error(err)
	}
	if err := r.cmd.Wait(); err != nil {
		t.Error(err)
	}
}
