package supervise

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
	"github.com/bottle-run/bottle/sidecar/supervise/operator"
)

func conf() *config.Supervise {
	return &config.Supervise{
		Agent: "coder", Secrets: []string{"GITHUB_TOKEN"}, File: "/etc/bottle/policy.json",
		Policy: config.Policy{
			Allow:      []policy.Rule{{ID: "a", Host: "example.com"}},
			Routes:     []policy.Route{{ID: "gh", Host: "api.github.com", Methods: []string{"GET"}, Credential: &policy.Credential{Secret: "GITHUB_TOKEN", Kind: policy.CredentialHeader}}},
			Git:        []config.GitRule{{Name: "app", URL: "https://github.com/me/app", Push: &config.GitPush{Branches: []string{"agent/*"}}}},
			Dockerfile: "FROM debian:13\nRUN apt-get update\n",
		},
	}
}

// world is a service on loopback, with its two sides.
type world struct {
	t        *testing.T
	dir      string
	s        *Service
	url      string
	operator *httptest.Server
	log      *bytes.Buffer
	stopped  sync.Once
	served   chan error
}

func start(t *testing.T, dir string, c *config.Supervise) *world {
	t.Helper()
	w := &world{t: t, dir: dir, log: &bytes.Buffer{}, served: make(chan error, 1)}
	file := filepath.Join(dir, "config.json")
	if c != nil {
		data, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.s = New(Options{
		Config: file, State: dir, Log: slog.New(slog.DiscardHandler),
		Audit: func(agent string) *audit.Log { return audit.New(w.log, "supervise", agent) },
	})
	if err := w.s.Reload(); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w.url = "http://" + ln.Addr().String() + "/"
	go func() { w.served <- w.s.Serve(ln) }()
	mux := http.NewServeMux()
	w.s.Control(mux, &sync.Mutex{})
	w.operator = httptest.NewServer(mux)
	t.Cleanup(w.stop)
	return w
}

func (w *world) stop() {
	w.stopped.Do(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.s.Shutdown(ctx); err != nil {
			w.t.Error(err)
		}
		if err := <-w.served; err != nil {
			w.t.Error(err)
		}
		w.operator.Close()
	})
}

// client connects an MCP client of the SDK.
func (w *world) client(progress func(*mcp.ProgressNotificationParams)) *mcp.ClientSession {
	w.t.Helper()
	c := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, &mcp.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, r *mcp.ProgressNotificationClientRequest) {
			if progress != nil {
				progress(r.Params)
			}
		},
	})
	session, err := c.Connect(w.t.Context(), &mcp.StreamableClientTransport{Endpoint: w.url, DisableStandaloneSSE: true, MaxRetries: -1}, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = session.Close() })
	return session
}

// call calls a tool; what fails is told apart.
func call[T any](t *testing.T, session *mcp.ClientSession, ctx context.Context, tool string, args any) (out T, failure string) {
	t.Helper()
	params := &mcp.CallToolParams{Name: tool, Arguments: args}
	if tool == "wait_for_answer" {
		params.SetProgressToken("tok")
	}
	res, err := session.CallTool(ctx, params)
	if err != nil {
		return out, "protocol: " + err.Error()
	}
	if res.IsError {
		return out, res.Content[0].(*mcp.TextContent).Text
	}
	data, err := json.Marshal(res.StructuredContent)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatalf("%s: %v", data, err)
	}
	return out, ""
}

type args map[string]any

// ask speaks as the operator.
func ask[T any](w *world, method, path string, body any) (out T, status int, said string) {
	w.t.Helper()
	var r io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			w.t.Fatal(err)
		}
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.operator.URL+path, r)
	if err != nil {
		w.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(data, &out); err != nil {
			w.t.Fatalf("%s: %v", data, err)
		}
	}
	return out, resp.StatusCode, string(data)
}

func (w *world) approve(id string, edited *change.Change) {
	w.t.Helper()
	v, status, said := ask[operator.View](w, "GET", "/proposals/"+id, nil)
	if status != 200 {
		w.t.Fatal(said)
	}
	b, status, said := ask[ledger.Begun](w, "POST", "/proposals/"+id+"/approve", ledger.Approval{
		Revision: v.Proposal.Revision, PolicyRevision: v.PolicyRevision, By: "op", Edited: edited,
	})
	if status != 200 {
		w.t.Fatal(said)
	}
	if _, status, said := ask[ledger.Proposal](w, "POST", "/proposals/"+id+"/finish", operator.Finish{Token: b.Token, By: "op"}); status != 200 {
		w.t.Fatal(said)
	}
}

func TestAnAgentAsksAndAHumanDecides(t *testing.T) {
	w := start(t, t.TempDir(), conf())
	progress := make(chan *mcp.ProgressNotificationParams, 100)
	session := w.client(func(p *mcp.ProgressNotificationParams) { progress <- p })
	ctx := t.Context()
	tools, err := session.ListTools(ctx, nil)
	if err != nil || len(tools.Tools) != 9 {
		t.Fatalf("%d tools, %v", len(tools.Tools), err)
	}
	before, failed := call[change.Configuration](t, session, ctx, "get_configuration", args{})
	if failed != "" || before.Policy.Allow[0].Host != "example.com" || len(before.Kinds) != 4 || before.Revision == "" {
		t.Fatalf("%+v, %s", before, failed)
	}
	a, failed := call[Answer](t, session, ctx, "propose_egress", args{"add": []args{{"host": "new.example.org", "ports": []int{443}}}, "reason": "docs"})
	if failed != "" || a.ID != "p1" || a.State != ledger.Pending || len(a.Permits) != 1 || !strings.Contains(a.Permits[0], "new.example.org on port 443") {
		t.Fatalf("%+v, %s", a, failed)
	}
	answered := make(chan Answer, 1)
	go func() {
		got, failed := call[Answer](t, session, ctx, "wait_for_answer", args{"id": a.ID})
		if failed != "" {
			t.Error(failed)
		}
		answered <- got
	}()
	if p := <-progress; p.ProgressToken != "tok" || !strings.Contains(p.Message, "waiting") {
		t.Errorf("%+v", p)
	}
	w.approve("p1", nil)
	got := <-answered
	if got.State != ledger.Approved || !strings.Contains(got.Message, "in force") {
		t.Errorf("%+v", got)
	}
	after, _ := call[change.Configuration](t, session, ctx, "get_configuration", args{})
	if len(after.Policy.Allow) != 2 || after.Policy.Allow[1].ID != "proposal:p1" || after.Revision == before.Revision {
		t.Errorf("%+v", after.Policy.Allow)
	}
	// Reading the files again does not bring the old policy back.
	if err := w.s.Reload(); err != nil {
		t.Fatal(err)
	}
	if n := len(w.s.ledger.Config().Policy.Allow); n != 2 {
		t.Errorf("after a reload %d rules", n)
	}
	// No, with a reason.
	call[Answer](t, session, ctx, "propose_git_push", args{"repository": "app", "add": args{"branches": []string{"**"}}, "reason": "release"})
	v, _, _ := ask[operator.View](w, "GET", "/proposals/p2", nil)
	if len(v.Effect.Permits) != 1 || !v.Effect.Permits[0].Wildcard || !strings.Contains(v.Diff, `+        "**"`) {
		t.Errorf("%+v\n%s", v.Effect, v.Diff)
	}
	if _, status, said := ask[any](w, "POST", "/proposals/p2/deny", operator.Denial{Revision: "other", By: "op"}); status != http.StatusPreconditionFailed {
		t.Errorf("%d, %s", status, said)
	}
	if _, status, said := ask[any](w, "POST", "/proposals/p2/deny", operator.Denial{Revision: v.Proposal.Revision, By: "op", Reason: "agent/ only"}); status != 200 {
		t.Errorf("%d, %s", status, said)
	}
	if got, _ := call[Answer](t, session, ctx, "wait_for_answer", args{"id": "p2"}); got.State != ledger.Denied || got.Reason != "agent/ only" {
		t.Errorf("%+v", got)
	}
	// Yes, but narrower.
	call[Answer](t, session, ctx, "propose_egress", args{"add": []args{{"host": "*.pypi.org"}}, "reason": "packages"})
	w.approve("p3", &change.Change{Kind: config.ProposeAllow, Allow: &change.Allow{Add: []policy.Rule{{Host: "files.pypi.org", Ports: []uint16{443}}}}})
	if got, _ := call[Answer](t, session, ctx, "get_proposal", args{"id": "p3"}); got.State != ledger.Approved || got.Applied == nil || !strings.Contains(got.Message, "changes of the operator's") {
		t.Errorf("%+v", got)
	}
	call[Answer](t, session, ctx, "propose_dockerfile", args{"edits": []args{{"old_text": "update", "new_text": "upgrade"}}, "reason": "newer"})
	if v, _, _ := ask[operator.View](w, "GET", "/proposals/p4", nil); len(v.Effect.Permits) != 1 || !strings.Contains(fmt.Sprint(v.Effect.Permits[0].Warnings), "RUN apt-get upgrade") || !strings.Contains(v.Diff, "-RUN apt-get update\n+RUN apt-get upgrade\n") {
		t.Errorf("%+v\n%s", v.Effect, v.Diff)
	}
	if got, failed := call[Answer](t, session, ctx, "withdraw_proposal", args{"id": "p4"}); failed != "" || got.State != ledger.Withdrawn {
		t.Errorf("%+v, %s", got, failed)
	}
	if list, _ := call[listAnswer](t, session, ctx, "list_proposals", args{}); len(list.Proposals) != 4 {
		t.Errorf("%+v", list)
	}
	w.stop()
	var events []string
	for line := range strings.Lines(w.log.String()) {
		var r audit.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil || r.Proposal == nil || r.Agent != "coder" {
			t.Fatalf("%s: %v", line, err)
		}
		events = append(events, r.Proposal.ID+" "+r.Proposal.Event+" "+r.Proposal.By)
		if r.Proposal.Event == "approved" && (r.Proposal.PolicyBefore == r.Proposal.PolicyAfter || r.Proposal.PolicyAfter == "") {
			t.Errorf("%s", line)
		}
	}
	if want := "p1 proposed agent, p1 applying op, p1 approved op, p2 proposed agent, p2 denied op, p3 proposed agent, p3 applying op, p3 approved op, p4 proposed agent, p4 withdrawn agent"; strings.Join(events, ", ") != want {
		t.Errorf("%q", events)
	}
}

func TestWhatCannotBeIsRefusedAtOnce(t *testing.T) {
	c := conf()
	c.Limits.PerMinute = 100
	w := start(t, t.TempDir(), c)
	session := w.client(nil)
	for name, x := range map[string]struct {
		tool string
		args args
		says string
	}{
		"no reason":          {"propose_egress", args{"add": []args{{"host": "b.example"}}, "reason": " "}, "reason is missing"},
		"long reason":        {"propose_egress", args{"add": []args{{"host": "b.example"}}, "reason": strings.Repeat("x", 3000)}, "2000 are allowed"},
		"nothing":            {"propose_egress", args{"reason": "r"}, "not neither"},
		"both":               {"propose_egress", args{"add": []args{{"host": "b.example"}}, "replace": []args{}, "reason": "r"}, "not both"},
		"no change":          {"propose_egress", args{"add": []args{{"host": "EXAMPLE.com."}}, "reason": "r"}, "nothing would change"},
		"everything":         {"propose_egress", args{"add": []args{{"host": "*"}}, "reason": "r"}, "every host"},
		"a top level domain": {"propose_egress", args{"add": []args{{"host": "*.com"}}, "reason": "r"}, "top level domain"},
		"a url":              {"propose_egress", args{"add": []args{{"host": "https://b.example/"}}, "reason": "r"}, "no host"},
		"itself":             {"propose_egress", args{"add": []args{{"host": "supervise", "ports": []int{9100}}}, "reason": "r"}, "part of the bottle"},
		"metadata":           {"propose_egress", args{"add": []args{{"host": "169.254.169.254"}}, "reason": "r"}, "metadata"},
		"its own id":         {"propose_egress", args{"add": []args{{"host": "b.example", "id": "allow:good"}}, "reason": "r"}, "id"},
		"port":               {"propose_egress", args{"add": []args{{"host": "b.example", "ports": []int{0}}}, "reason": "r"}, "0 is no port"},
		"big port":           {"propose_egress", args{"add": []args{{"host": "b.example", "ports": []int{70000}}}, "reason": "r"}, "70000"},
		"remove":             {"propose_egress", args{"remove": []string{"x"}, "reason": "r"}, "no entry"},
		"overlap":            {"propose_routes", args{"add": []args{{"host": "*.github.com"}}, "reason": "r"}, "overlaps"},
		"secret":             {"propose_routes", args{"add": []args{{"host": "b.example", "credential": args{"secret": "AWS_SECRET_ACCESS_KEY", "kind": "header"}}}, "reason": "r"}, "no secret"},
		"connect":            {"propose_routes", args{"add": []args{{"host": "b.example", "methods": []string{"CONNECT"}}}, "reason": "r"}, "CONNECT"},
		"repository":         {"propose_git_push", args{"repository": "other", "add": args{"tags": []string{"v*"}}, "reason": "r"}, "one of app"},
		"refs":               {"propose_git_push", args{"repository": "app", "add": args{"tags": []string{"refs/tags/x"}}, "reason": "r"}, "without refs/"},
		"no from":            {"propose_dockerfile", args{"content": "RUN true\n", "reason": "r"}, "no FROM"},
		"frontend":           {"propose_dockerfile", args{"content": "# syntax=evil/frontend\nFROM debian:13\n", "reason": "r"}, "syntax"},
		"mount":              {"propose_dockerfile", args{"content": "FROM debian:13\nRUN \\\n --mount=type=secret,id=x cat\n", "reason": "r"}, "line 2: --mount=type=secret,id=x: a build of a proposal gets no mounts"},
		"insecure":           {"propose_dockerfile", args{"content": "FROM debian:13\nRUN --security=insecure id\n", "reason": "r"}, "privileges"},
		"edit":               {"propose_dockerfile", args{"edits": []args{{"old_text": "a", "new_text": "b"}}, "reason": "r"}, "times"},
		"unknown id":         {"get_proposal", args{"id": "p99"}, "no such proposal"},
		"unknown wait":       {"wait_for_answer", args{"id": "p99"}, "no such proposal"},
		"unknown withdrawal": {"withdraw_proposal", args{"id": "p99"}, "no such proposal"},
		"unknown member":     {"propose_egress", args{"add": []args{{"host": "b.example"}}, "approve": true, "reason": "r"}, "approve"},
	} {
		if a, failed := call[Answer](t, session, t.Context(), x.tool, x.args); !strings.Contains(failed, x.says) {
			t.Errorf("%s: %q, %+v", name, failed, a)
		}
	}
	if n := len(w.s.ledger.List()); n != 0 {
		t.Errorf("%d proposals", n)
	}
}
