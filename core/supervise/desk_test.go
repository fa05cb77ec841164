package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/supervise"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
	"github.com/bottle-run/bottle/sidecar/supervise/operator"
)

// bottle is a real sidecar, asked without a container.
type bottle struct {
	url     string
	applied []ledger.Begun
	fails   error

	unsavable, unsaved error
	saved              int
}

func (b *bottle) BottleName() string { return "coder" }

func (b *bottle) Apply(_ context.Context, begun ledger.Begun) error {
	b.applied = append(b.applied, begun)
	return b.fails
}

func (b *bottle) Save(context.Context, string, change.Change) (func() error, error) {
	if b.unsavable != nil {
		return nil, b.unsavable
	}
	return func() error { b.saved++; return b.unsaved }, nil
}

func (b *bottle) Ask(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	path, method := "/proposals", http.MethodGet
	switch verb := args[1]; verb {
	case "list":
	case "watch":
		path += "/watch"
	case "show":
		path += "/" + args[3]
	default:
		path, method = path+"/"+args[3]+"/"+verb, http.MethodPost
	}
	req, err := http.NewRequestWithContext(ctx, method, b.url+path, stdin)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		said, _ := io.ReadAll(resp.Body)
		status := 1
		if resp.StatusCode == http.StatusPreconditionFailed {
			status = statusStale
		}
		return &core.AskError{Role: "supervise", Status: status, Said: string(said)}
	}
	_, err = io.Copy(stdout, resp.Body)
	return err
}

// start starts a sidecar that holds one proposal, made before it started.
func start(t *testing.T) *bottle {
	t.Helper()
	dir := t.TempDir()
	conf := &config.Supervise{Agent: "claude"}
	data, err := json.Marshal(conf)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	book, err := ledger.Open(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := book.Configure(conf); err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"a.example", "b.example"} {
		if _, err := book.Propose(change.Change{Kind: config.ProposeAllow, Allow: &change.Allow{Add: []policy.Rule{{Host: host}}}}, "docs"); err != nil {
			t.Fatal(err)
		}
	}
	s := supervise.New(supervise.Options{
		Config: filepath.Join(dir, "config.json"), State: dir, Log: slog.New(slog.DiscardHandler),
		Audit: func(agent string) *audit.Log { return audit.New(io.Discard, "supervise", agent) },
	})
	if err := s.Reload(); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	s.Control(mux, &sync.Mutex{})
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		server.Close()
	})
	return &bottle{url: server.URL}
}

func TestAnswers(t *testing.T) {
	b, ctx := start(t), t.Context()
	l, err := List(ctx, b)
	if err != nil || len(l.Proposals) != 2 || l.Agent != "claude" {
		t.Fatalf("%+v, %v", l, err)
	}
	v, err := Show(ctx, b, "p1")
	if err != nil || len(v.Effect.Permits) != 1 {
		t.Fatalf("%+v, %v", v, err)
	}
	// It does not come into force: whoever waits goes on waiting.
	b.fails = errors.New("the firewall does not answer")
	if _, err := Approve(ctx, b, v, ledger.Approval{By: "op"}); !errors.Is(err, b.fails) {
		t.Error(err)
	}
	if v, err = Show(ctx, b, "p1"); err != nil || v.Proposal.State != ledger.Pending {
		t.Fatalf("%+v, %v", v, err)
	}
	b.fails = nil
	other, err := Show(ctx, b, "p2")
	if err != nil {
		t.Fatal(err)
	}
	// What cannot be written is not approved.
	b.unsavable = errors.New("the manifest is gone")
	if _, err := Approve(ctx, b, v, ledger.Approval{By: "op", Scope: ledger.ForManifest}); !errors.Is(err, b.unsavable) || len(b.applied) != 1 {
		t.Error(err)
	}
	b.unsavable = nil
	// As edited, and to the manifest.
	narrow := change.Change{Kind: config.ProposeAllow, Allow: &change.Allow{Add: []policy.Rule{{Host: "a.example", Ports: []uint16{443}}}}}
	if p, err := Preview(ctx, b, "p1", narrow); err != nil || !strings.Contains(p.Effect.Permits[0].Text, "on port 443") {
		t.Errorf("%+v, %v", p, err)
	}
	begun, err := Approve(ctx, b, v, ledger.Approval{By: "op", Scope: ledger.ForManifest, Edited: &narrow})
	if err != nil || begun.Proposal.State != ledger.Approved || begun.Proposal.Decision.Scope != ledger.ForManifest {
		t.Fatalf("%+v, %v", begun, err)
	}
	if b.saved != 1 {
		t.Errorf("written %d times", b.saved)
	}
	if got := b.applied[1].Policy.Allow; len(b.applied) != 2 || len(got) != 1 || got[0].Ports[0] != 443 {
		t.Errorf("%+v", b.applied)
	}
	// The other was shown before.
	if _, err := Approve(ctx, b, other, ledger.Approval{By: "op"}); !errors.Is(err, ErrStale) || len(b.applied) != 2 {
		t.Error(err)
	}
	if p, err := Deny(ctx, b, other, "op", "no"); err != nil || p.State != ledger.Denied {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := Show(ctx, b, "p9"); err == nil || !strings.Contains(err.Error(), "no such proposal") {
		t.Error(err)
	}
}

func TestWatch(t *testing.T) {
	b := start(t)
	ctx, stop := context.WithCancel(t.Context())
	v, err := Show(ctx, b, "p1")
	if err != nil {
		t.Fatal(err)
	}
	states := make(chan ledger.State, 8)
	ended := make(chan error, 1)
	go func() {
		ended <- Watch(ctx, b, func(l operator.List) { states <- l.Proposals[0].State })
	}()
	if s := <-states; s != ledger.Pending {
		t.Error(s)
	}
	if _, err := Deny(ctx, b, v, "op", ""); err != nil {
		t.Fatal(err)
	}
	if s := <-states; s != ledger.Denied {
		t.Error(s)
	}
	stop()
	if err := <-ended; err == nil {
		t.Error("following ended without a reason")
	}
}
