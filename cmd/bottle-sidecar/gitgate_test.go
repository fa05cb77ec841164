package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/bottle-run/bottle/sidecar/delivery"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// TestALifeOfAGitGate puts a gate its configuration, fetches and pushes through it, and
// changes what may be pushed.
func TestALifeOfAGitGate(t *testing.T) {
	dir, home := t.TempDir(), t.TempDir()
	git := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = home
		cmd.Env = append(os.Environ(), "HOME="+home, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C",
			"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@b.c", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@b.c")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	must := func(args ...string) {
		t.Helper()
		if out, err := git(args...); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	upstream := filepath.Join(home, "upstream.git")
	must("init", "-q", "--bare", upstream)
	config := map[string]any{
		"agent": "coder", "listen": "127.0.0.1:0", "secrets": []string{"canary"},
		"repositories": []map[string]any{{"name": "repo", "url": "file://" + upstream, "push": map[string]any{"branches": []string{"agent/*"}}}},
	}
	put := func() (string, int) {
		raw, err := json.Marshal(config)
		if err != nil {
			t.Fatal(err)
		}
		data, err := delivery.Document{Config: raw, Secrets: []secrets.Secret{{Name: "canary", Value: "the-value-of-a-canary"}}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		_, errOut, code := program(t, string(data), "put", "--wait", "--run", dir)
		return errOut, code
	}
	r := start(t, "git-gate", dir)
	r.expect("started")
	if errOut, code := put(); code != 0 {
		t.Fatalf("put: %d, %s", code, errOut)
	}
	addr, _ := r.expect("listening")["address"].(string)
	url := "git://" + addr + "/repo.git"
	work := filepath.Join(home, "work")
	must("clone", "-q", url, work)
	must("-C", work, "commit", "-q", "--allow-empty", "-m", "x")
	must("-C", work, "push", "-q", "origin", "HEAD:refs/heads/agent/x")
	if out, err := git("-C", work, "push", "origin", "HEAD:refs/heads/main"); err == nil || !strings.Contains(out, "only these branches may be pushed: agent/*") {
		t.Errorf("another branch: %v\n%s", err, out)
	}
	must("-C", work, "commit", "-q", "--allow-empty", "-m", "the-value-of-a-canary")
	if out, err := git("-C", work, "push", "origin", "HEAD:refs/heads/agent/x"); err == nil || !strings.Contains(out, "the secret canary of this bottle") || strings.Contains(out, "the-value-of") {
		t.Errorf("a secret: %v\n%s", err, out)
	}
	t.Logf("resident memory is %d KiB", resident(t, r.cmd.Process.Pid))
	if out, _, code := program(t, "", "policy", "test", "--run", dir, "push", url+"#refs/heads/main"); code != exitDenied || !strings.Contains(out, "only these branches") {
		t.Errorf("policy test: %d, %s", code, out)
	}
	if out, _, code := program(t, "", "policy", "show", "--run", dir); code != 0 || !strings.Contains(out, "agent/*") || strings.Contains(out, "the-value-of") {
		t.Errorf("policy show: %d, %s", code, out)
	}
	repo := config["repositories"].([]map[string]any)[0]
	repo["push"] = map[string]any{"branches": []string{"refs/heads/x"}}
	if errOut, code := put(); code != exitFailed || !strings.Contains(errOut, "repositories[0].push.branches[0]") {
		t.Errorf("a bad configuration: %d, %s", code, errOut)
	}
	repo["push"] = map[string]any{"branches": []string{"agent/*", "main"}}
	if errOut, code := put(); code != 0 {
		t.Errorf("a good configuration: %d, %s", code, errOut)
	}
	must("-C", work, "push", "-q", "origin", "HEAD~1:refs/heads/main")
	r.signal(syscall.SIGTERM)
	if err := r.cmd.Wait(); err != nil {
		t.Errorf("the end: %v", err)
	}
	for _, want := range []string{`"sidecar":"git-gate"`, `"method":"push"`, `"decision":"deny","rule":"canary:canary"`, "refs/heads/main"} {
		if !strings.Contains(r.out.String(), want) {
			t.Errorf("the audit log has no %s:\n%s", want, r.out.String())
		}
	}
	if strings.Contains(r.out.String(), "the-value-of") {
		t.Errorf("a secret is in the audit log: %s", r.out.String())
	}
}
