package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// startSupervise starts one that keeps its state in a directory.
func startSupervise(t *testing.T, dir, state string, flags ...string) *running {
	t.Helper()
	return startGiven(t, nil, dir, "supervise", append([]string{"--state", state}, flags...)...)
}

// asAgent calls a tool and returns what is in the answer.
func asAgent(t *testing.T, addr, tool, arguments string) string {
	t.Helper()
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, tool, arguments)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestTheLifeOfAProposal(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	r := startSupervise(t, dir, state)
	document := `{"config":{"agent":"coder","listen":"127.0.0.1:0","policy":{"allow":[{"host":"example.com"}],"routes":[]}}}`
	if _, errOut, code := program(t, document, "put", "--wait", "--run", dir); code != 0 {
		t.Fatalf("put: %d, %s", code, errOut)
	}
	addr, _ := r.expect("listening")["address"].(string)
	if got := asAgent(t, addr, "propose_egress", `{"add":[{"host":"b.example"}],"reason":"r"}`); !strings.Contains(got, "p1") {
		t.Fatal(got)
	}
	// It is killed, and its container started again: what was in memory is gone.
	r.signal(syscall.SIGKILL)
	_ = r.cmd.Wait() // it was killed
	if err := os.Remove(filepath.Join(dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	r = startSupervise(t, dir, state)
	addr, _ = r.expect("listening")["address"].(string)
	if out, _, code := program(t, "", "proposals", "list", "--run", dir); code != 0 || !strings.Contains(out, `"title":"+b.example"`) {
		t.Errorf("list: %d, %s", code, out)
	}
	out, _, code := program(t, "", "proposals", "show", "--run", dir, "p1")
	var view struct {
		Proposal struct {
			Revision string `json:"revision"`
		} `json:"proposal"`
		PolicyRevision string `json:"policy_revision"`
	}
	if err := json.Unmarshal([]byte(out), &view); err != nil || code != 0 {
		t.Fatalf("show: %d, %s, %v", code, out, err)
	}
	approval := func(revision string) string {
		return fmt.Sprintf(`{"revision":%q,"policy_revision":%q,"by":"op@host"}`, revision, view.PolicyRevision)
	}
	if _, errOut, code := program(t, approval("other"), "proposals", "approve", "--run", dir, "p1"); code != exitStale || !strings.Contains(errOut, "look at it again") {
		t.Errorf("stale: %d, %s", code, errOut)
	}
	out, errOut, code := program(t, approval(view.Proposal.Revision), "proposals", "approve", "--run", dir, "p1")
	var begun struct {
		Token  string          `json:"token"`
		Policy json.RawMessage `json:"policy"`
	}
	if err := json.Unmarshal([]byte(out), &begun); err != nil || code != 0 || !strings.Contains(string(begun.Policy), "b.example") {
		t.Fatalf("approve: %d, %s, %s", code, out, errOut)
	}
	if out, errOut, code := program(t, fmt.Sprintf(`{"token":%q,"by":"op@host"}`, begun.Token), "proposals", "finish", "--run", dir, "p1"); code != 0 || !strings.Contains(out, `"approved"`) {
		t.Errorf("finish: %d, %s, %s", code, out, errOut)
	}
	if got := asAgent(t, addr, "wait_for_answer", `{"id":"p1"}`); !strings.Contains(got, "approved") {
		t.Error(got)
	}
	r.signal(syscall.SIGHUP)
	r.expect("reloaded")
	if out, _, code := program(t, "", "policy", "show", "--run", dir); code != 0 || !strings.Contains(out, "b.example") {
		t.Errorf("policy show: %d, %s", code, out)
	}
	for _, args := range [][]string{{"proposals"}, {"proposals", "show"}, {"proposals", "show", "--run", dir, "../put"}, {"proposals", "deny", "--run", dir, "p1"}} {
		if _, errOut, code := program(t, "", args...); code == 0 || errOut == "" {
			t.Errorf("%q: %d, %s", args, code, errOut)
		}
	}
	r.signal(syscall.SIGTERM)
	r.expect("stopping")
	if err := r.cmd.Wait(); err != nil {
		t.Error(err)
	}
	for _, event := range []string{`"event":"applying","by":"op@host"`, `"event":"approved","by":"op@host"`, `"policy_after"`} {
		if !strings.Contains(r.out.String(), event) {
			t.Errorf("the audit log lacks %s: %s", event, r.out.String())
		}
	}
	// State that cannot be read is told of, and nothing is served.
	if err := os.WriteFile(filepath.Join(state, "proposals.json"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	r = startSupervise(t, dir, state)
	r.expect("started")
	if _, errOut, code := program(t, document, "put", "--wait", "--run", dir); code == 0 || !strings.Contains(errOut, "proposals.json") {
		t.Errorf("with spoilt state: %d, %s", code, errOut)
	}
	r.signal(syscall.SIGTERM)
	if err := r.cmd.Wait(); err != nil {
		t.Error(err)
	}
}
