package supervise

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
	"github.com/bottle-run/bottle/sidecar/supervise/operator"
)

func propose(t *testing.T, w *world, host string) string {
	t.Helper()
	a, failed := call[Answer](t, w.client(nil), t.Context(), "propose_egress", args{"add": []args{{"host": host}}, "reason": "test"})
	if failed != "" {
		t.Fatal(failed)
	}
	return a.ID
}

func TestWaitingGoesOnAfterALostConnectionAndARestart(t *testing.T) {
	dir := t.TempDir()
	w := start(t, dir, conf())
	id := propose(t, w, "b.example")
	// The connection is cut in the middle of a call.
	ctx, cut := context.WithCancel(t.Context())
	begun, ended := make(chan struct{}, 1), make(chan string, 1)
	session := w.client(nil)
	go func() {
		begun <- struct{}{}
		_, failed := call[Answer](t, session, ctx, "wait_for_answer", args{"id": id})
		ended <- failed
	}()
	<-begun
	waitFor(t, func() bool { return len(w.s.waits) == 1 })
	cut()
	if failed := <-ended; failed == "" {
		t.Error("a call that was cut has an answer")
	}
	waitFor(t, func() bool { return len(w.s.waits) == 0 })
	// A client that is still connected, from before the restart, waits again after it.
	old := w.client(nil)
	if _, failed := call[Answer](t, old, t.Context(), "get_proposal", args{"id": id}); failed != "" {
		t.Fatal(failed)
	}
	go func() {
		_, failed := call[Answer](t, old, t.Context(), "wait_for_answer", args{"id": id})
		ended <- failed
	}()
	waitFor(t, func() bool { return len(w.s.waits) == 1 })
	address := strings.Trim(strings.TrimPrefix(w.url, "http://"), "/")
	w.stop()
	<-ended
	// Its container is started again: what was delivered into memory is gone.
	if err := os.Remove(filepath.Join(dir, "config.json")); err != nil {
		t.Fatal(err)
	}
	again := start(t, dir, nil)
	proxy(t, address, strings.Trim(strings.TrimPrefix(again.url, "http://"), "/"))
	answered := make(chan Answer, 1)
	go func() {
		a, failed := call[Answer](t, old, t.Context(), "wait_for_answer", args{"id": id})
		if failed != "" {
			t.Error(failed)
		}
		answered <- a
	}()
	waitFor(t, func() bool { return len(again.s.waits) == 1 })
	again.approve(id, nil)
	if a := <-answered; a.State != ledger.Approved {
		t.Errorf("%+v", a)
	}
	again.stop()
	// And what came into force is in force after another one.
	third := start(t, dir, nil)
	if n := len(third.s.ledger.Config().Policy.Allow); n != 2 {
		t.Errorf("%d rules", n)
	}
	if id := propose(t, third, "c.example"); id != "p2" {
		t.Errorf("an id is used again: %s", id)
	}
}

// waitFor waits for something that another goroutine does soon.
func waitFor(t *testing.T, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatal("it has not happened")
		}
		time.Sleep(time.Millisecond)
	}
}

// proxy has an address lead to another one.
func proxy(t *testing.T, from, to string) {
	ln, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			b, err := net.Dial("tcp", to)
			if err != nil {
				_ = a.Close()
				continue
			}
			go func() { _, _ = io.Copy(a, b); _ = a.Close() }()
			go func() { _, _ = io.Copy(b, a); _ = b.Close() }()
		}
	}()
}

func TestAStaleApprovalIsRefused(t *testing.T) {
	w := start(t, t.TempDir(), conf())
	id, other := propose(t, w, "b.example"), propose(t, w, "c.example")
	v, _, _ := ask[operator.View](w, "GET", "/proposals/"+id, nil)
	shown := ledger.Approval{Revision: v.Proposal.Revision, PolicyRevision: v.PolicyRevision, By: "op"}
	post := func(path string, body any) (ledger.Begun, int, string) {
		return ask[ledger.Begun](w, "POST", "/proposals/"+path, body)
	}
	w.approve(other, nil)
	if _, status, said := post(id+"/approve", shown); status != http.StatusPreconditionFailed || !strings.Contains(said, "policy") {
		t.Errorf("the policy has changed: %d, %s", status, said)
	}
	v, _, _ = ask[operator.View](w, "GET", "/proposals/"+id, nil)
	shown.PolicyRevision, shown.Revision = v.PolicyRevision, strings.Repeat("0", 64)
	if _, status, said := post(id+"/approve", shown); status != http.StatusPreconditionFailed || !strings.Contains(said, "proposal") {
		t.Errorf("another proposal: %d, %s", status, said)
	}
	shown.Revision = v.Proposal.Revision
	for name, bad := range map[string]any{
		"nobody": ledger.Approval{Revision: shown.Revision, PolicyRevision: shown.PolicyRevision}, "scope": ledger.Approval{Revision: shown.Revision, PolicyRevision: shown.PolicyRevision, By: "op", Scope: "all"},
		"member": args{"force": true}, "no json": "x",
		"edited to nothing": ledger.Approval{Revision: shown.Revision, PolicyRevision: shown.PolicyRevision, By: "op", Edited: &change.Change{Kind: config.ProposeAllow, Allow: &change.Allow{Add: []policy.Rule{{Host: "example.com"}}}}},
	} {
		if _, status, said := post(id+"/approve", bad); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d, %s", name, status, said)
		}
	}
	// Two at a time: one begins. It can be taken over, and then only the new one finishes.
	b, status, said := post(id+"/approve", shown)
	if status != 200 || len(b.Policy.Allow) != 3 {
		t.Fatalf("%d, %s", status, said)
	}
	if _, status, _ := post(id+"/approve", shown); status != http.StatusConflict {
		t.Errorf("begun twice: %d", status)
	}
	if _, status, _ := ask[any](w, "POST", "/proposals/"+id+"/deny", operator.Denial{Revision: shown.Revision, By: "op"}); status != http.StatusConflict {
		t.Errorf("denied while applied: %d", status)
	}
	if _, failed := call[Answer](t, w.client(nil), t.Context(), "withdraw_proposal", args{"id": id}); !strings.Contains(failed, "applying") {
		t.Errorf("withdrawn while applied: %s", failed)
	}
	shown.TakeOver = true
	c, status, said := post(id+"/approve", shown)
	if status != 200 {
		t.Fatalf("%d, %s", status, said)
	}
	if _, status, _ := ask[any](w, "POST", "/proposals/"+id+"/finish", operator.Finish{Token: b.Token, By: "op"}); status != http.StatusPreconditionFailed {
		t.Errorf("finished by who was replaced: %d", status)
	}
	// It did not come into force: it waits again.
	if p, status, said := ask[ledger.Proposal](w, "POST", "/proposals/"+id+"/finish", operator.Finish{Token: c.Token, By: "op", Failed: "the firewall is gone"}); status != 200 || p.State != ledger.Pending {
		t.Errorf("%d, %s", status, said)
	}
	w.approve(id, nil)
	// The policy is put anew while something is being applied.
	last := propose(t, w, "d.example")
	v, _, _ = ask[operator.View](w, "GET", "/proposals/"+last, nil)
	b, _, _ = post(last+"/approve", ledger.Approval{Revision: v.Proposal.Revision, PolicyRevision: v.PolicyRevision, By: "op"})
	if err := w.s.ledger.Configure(conf()); err != nil {
		t.Fatal(err)
	}
	if _, status, said := ask[any](w, "POST", "/proposals/"+last+"/finish", operator.Finish{Token: b.Token, By: "op"}); status != http.StatusPreconditionFailed {
		t.Errorf("%d, %s", status, said)
	}
	if p, _ := w.s.ledger.Get(last); p.State != ledger.Pending {
		t.Errorf("%+v", p)
	}
	if _, status, _ := ask[any](w, "GET", "/proposals/p99", nil); status != http.StatusNotFound {
		t.Errorf("%d", status)
	}
}

func TestNothingOnThePortDecides(t *testing.T) {
	w := start(t, t.TempDir(), conf())
	id := propose(t, w, "b.example")
	p, err := w.s.ledger.Get(id)
	if err != nil {
		t.Fatal(err)
	}
	before := change.Revision(w.s.ledger.Config().Policy)
	approval := fmt.Sprintf(`{"revision":%q,"policy_revision":%q,"by":"op"}`, p.Revision, before)
	rpc := func(method, params string) string {
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, method, params)
	}
	bodies := []string{
		approval, "", "{", "[]", "null", strings.Repeat("[", 100000), rpc("tools/call", `{"name":"approve","arguments":`+approval+`}`),
		rpc("tools/call", `{"name":"wait_for_answer","arguments":{"id":"p1","state":"approved"}}`), rpc("approve", approval),
		rpc("tools/call", `{"name":"get_proposal","arguments":{"id":"../p1/approve"}}`), rpc("logging/setLevel", `{"level":"debug"}`),
		rpc("resources/read", `{"uri":"file:///etc/passwd"}`), rpc("completion/complete", `{}`),
	}
	paths := []string{"", "mcp", "proposals", "proposals/" + id, "proposals/" + id + "/approve", "proposals/" + id + "/finish", "proposals/" + id + "/deny", "put", "reload", "policy", "..%2fproposals", "//proposals"}
	for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "X"} {
		for _, path := range paths {
			for i, body := range bodies {
				if method != "POST" && i > 0 || path != "" && path != "mcp" && i > 0 {
					continue
				}
				w.s.requests.state.left = 100
				req, err := http.NewRequestWithContext(t.Context(), method, w.url+path, strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Content-Type", "application/json")
				req.Header.Set("Accept", "application/json, text/event-stream")
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				resp, err := http.DefaultClient.Do(req.WithContext(ctx))
				if err != nil {
					cancel()
					continue
				}
				data, _ := io.ReadAll(resp.Body)
				resp.Body.Close()
				cancel()
				if strings.Contains(string(data), `"token"`) {
					t.Errorf("%s /%s: %s", method, path, data)
				}
			}
		}
	}
	if got, _ := w.s.ledger.Get(id); got.State != ledger.Pending || change.Revision(w.s.ledger.Config().Policy) != before {
		t.Errorf("%+v", got)
	}
}

func TestAHostileClientExhaustsNothing(t *testing.T) {
	c := conf()
	c.Limits = config.SuperviseLimits{Pending: 3, PerMinute: 5, Waits: 2, Connections: 16}
	w := start(t, t.TempDir(), c)
	session := w.client(nil)
	var refused []string
	for i := range 8 {
		if _, failed := call[Answer](t, session, t.Context(), "propose_egress", args{"add": []args{{"host": fmt.Sprintf("h%d.example", i)}}, "reason": "r"}); failed != "" {
			refused = append(refused, failed)
		}
	}
	if len(refused) != 5 || !strings.Contains(refused[0], "wait for an answer") || !strings.Contains(refused[4], "in a minute") {
		t.Errorf("%q", refused)
	}
	for range 2 {
		waiting := w.client(nil)
		go func() {
			// It ends with the sidecar.
			_, _ = waiting.CallTool(t.Context(), &mcp.CallToolParams{Name: "wait_for_answer", Arguments: args{"id": "p1"}})
		}()
	}
	waitFor(t, func() bool { return len(w.s.waits) == 2 })
	if _, failed := call[Answer](t, session, t.Context(), "wait_for_answer", args{"id": "p1"}); !strings.Contains(failed, "2 calls wait already") {
		t.Error(failed)
	}
	post := func(body io.Reader) int {
		req, err := http.NewRequestWithContext(t.Context(), "POST", w.url, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/json, text/event-stream")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return 0
		}
		defer resp.Body.Close()
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	if status := post(io.LimitReader(zeros{}, 1<<30)); status != http.StatusRequestEntityTooLarge && status != 0 {
		t.Errorf("a body of a gigabyte: %d", status)
	}
	seen := map[int]int{}
	for range 300 {
		seen[post(strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"ping"}`))]++
	}
	if seen[http.StatusTooManyRequests] == 0 {
		t.Errorf("%v", seen)
	}
	// The operator is not concerned.
	if l, status, said := ask[operator.List](w, "GET", "/proposals", nil); status != 200 || len(l.Proposals) != 3 {
		t.Errorf("%d, %s", status, said)
	}
	w.stop()
	if n := strings.Count(w.log.String(), "\n"); n != 3+5 {
		t.Errorf("%d lines in the audit log:\n%s", n, w.log)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestAQuietCallStaysAlive(t *testing.T) {
	w := start(t, t.TempDir(), conf())
	w.s.quiet = 20 * time.Millisecond
	id := propose(t, w, "b.example")
	// Without a token there is no progress, and comments keep the stream alive.
	req, err := http.NewRequestWithContext(t.Context(), "POST", w.url, strings.NewReader(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"wait_for_answer","arguments":{"id":"`+id+`"}}}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := http.DefaultClient.Do(req) // returns with the first comment
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("%v", resp.Header)
	}
	lines := bufio.NewScanner(resp.Body)
	comments := 0
	for lines.Scan() {
		if lines.Text() == ": waiting" {
			if comments++; comments == 3 {
				w.approve(id, nil)
			}
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if comments < 3 || !strings.Contains(data, `approved`) {
				t.Errorf("%d comments, %s", comments, data)
			}
			return
		}
	}
	t.Errorf("no answer after %d comments: %v", comments, lines.Err())
}

func TestManyAtOnce(t *testing.T) {
	c := conf()
	c.Limits = config.SuperviseLimits{PerMinute: 1000, Pending: 100}
	w := start(t, t.TempDir(), c)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			session := w.client(nil)
			a, failed := call[Answer](t, session, t.Context(), "propose_egress", args{"add": []args{{"host": fmt.Sprintf("h%d.example", i)}}, "reason": "r"})
			if failed != "" {
				t.Error(failed)
				return
			}
			got, failed := call[Answer](t, session, t.Context(), "wait_for_answer", args{"id": a.ID})
			if failed != "" || got.State != ledger.Approved && got.State != ledger.Denied {
				t.Errorf("%+v, %s", got, failed)
			}
		})
	}
	var approved sync.Map
	for range 4 {
		wg.Go(func() {
			for answered := 0; answered < 8; {
				answered = 0
				for _, p := range w.s.ledger.List() {
					if p.State.Final() {
						answered++
						continue
					}
					b, status, _ := ask[ledger.Begun](w, "POST", "/proposals/"+p.ID+"/approve", ledger.Approval{
						Revision: p.Revision, PolicyRevision: change.Revision(w.s.ledger.Config().Policy), By: "op",
					})
					if status != 200 {
						continue
					}
					if _, twice := approved.LoadOrStore(p.ID, true); twice {
						t.Errorf("%s was approved twice", p.ID)
					}
					if _, status, said := ask[any](w, "POST", "/proposals/"+p.ID+"/finish", operator.Finish{Token: b.Token, By: "op"}); status != 200 {
						t.Error(said)
					}
				}
			}
		})
	}
	wg.Wait()
	if n := len(w.s.ledger.Config().Policy.Allow); n != 9 {
		t.Errorf("%d rules", n)
	}
}

func TestWhatTheOperatorIsShownIsEscaped(t *testing.T) {
	w := start(t, t.TempDir(), conf())
	_, failed := call[Answer](t, w.client(nil), t.Context(), "propose_dockerfile", args{
		"content": "FROM debian:13\nRUN echo \u202e evil\n# \x1b[2J\n", "reason": "harmless\x1b[2K\r\u2066ok\u200b",
	})
	if failed != "" {
		t.Fatal(failed)
	}
	for _, path := range []string{"/proposals", "/proposals/p1"} {
		_, _, said := ask[any](w, "GET", path, nil)
		if i := strings.IndexFunc(said, func(r rune) bool { return r != '\n' && (r < ' ' || r >= 0x7f) }); i >= 0 {
			t.Errorf("%s: %q", path, said[i:])
		}
	}
	v, _, _ := ask[operator.View](w, "GET", "/proposals/p1", nil)
	if v.Reason != `harmless\u{1b}[2K\r\u{2066}ok\u{200b}` || !strings.Contains(v.Diff, `\u{202e} evil`) || !strings.Contains(v.Diff, `\u{1b}[2J`) {
		t.Errorf("%q\n%q", v.Reason, v.Diff)
	}
	_, _, said := ask[any](w, "POST", "/proposals/p1/approve", args{"\u202e": 1})
	if strings.Contains(said, "\u202e") {
		t.Errorf("%q", said)
	}
}

func TestTheOperatorFollows(t *testing.T) {
	w := start(t, t.TempDir(), conf())
	resp, err := http.Get(w.operator.URL + "/proposals/watch")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	if !lines.Scan() || !strings.Contains(lines.Text(), `"proposals":[]`) {
		t.Fatal(lines.Text())
	}
	id := propose(t, w, "b.example")
	if !lines.Scan() || !strings.Contains(lines.Text(), `"id":"`+id+`"`) {
		t.Error(lines.Text())
	}
}
