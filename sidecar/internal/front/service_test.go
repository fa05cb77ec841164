package front

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/intercept"
	"github.com/bottle-run/bottle/sidecar/policy"
)

type fakeState struct {
	Shared
	name   string
	closed int
}

type fakeHandler struct{ *Service[*fakeState] }

func (h fakeHandler) Serve(w http.ResponseWriter, _ *intercept.Request) {
	_, _ = io.WriteString(w, h.State().name)
}
func (h fakeHandler) Tunnel(string, uint16) *intercept.Denial { return nil }

func TestService(t *testing.T) {
	pair, err := ca.NewPair("test", 0)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
	if err := errors.Join(os.WriteFile(cert, pair.Agent.CertPEM, 0o600), os.WriteFile(key, pair.Agent.KeyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	var next *fakeState
	var fails error
	opened := 0
	s := NewService(slog.New(slog.DiscardHandler), func(agent string) *audit.Log {
		opened++
		return audit.New(io.Discard, "test", agent)
	}, func() (*fakeState, error) { return next, fails })
	h := fakeHandler{s}
	state := func(name, agent string) *fakeState {
		st := &fakeState{name: name, Shared: Shared{Config: config.Common{Agent: agent, CACert: cert, CAKey: key}}}
		st.Close = func() { st.closed++ }
		st.Desk.Mask = func(s string) string { return s }
		return st
	}
	verdict := func() Verdict {
		return s.Test("https://a.test/x", func(st *fakeState, at Place) Verdict { return at.Verdict(policy.Decision{Allow: true, Rule: st.name}) })
	}
	show := func() any { return s.Policy(func(st *fakeState) any { return st.name }) }

	// Without a configuration it is not ready, and asking it does no harm.
	if s.Health() == nil || show() != nil || verdict().Rule != "not-ready" || s.Serve(nil) == nil || s.Shutdown(t.Context()) != nil {
		t.Errorf("unconfigured: health %v, policy %v, verdict %+v", s.Health(), show(), verdict())
	}
	fails = errors.New("bad")
	if err := s.Reload(h); !errors.Is(err, fails) || s.Health() == nil || opened != 0 {
		t.Errorf("a bad first one: %v", err)
	}
	fails = nil
	lost := state("lost", "coder")
	lost.Config.CAKey = filepath.Join(dir, "none")
	next = lost
	if err := s.Reload(h); err == nil || lost.closed != 1 {
		t.Errorf("a first one without its key: %v, closed %d times", err, lost.closed)
	}
	select {
	case <-s.Configured():
		t.Error("configured by a bad one")
	default:
	}

	first := state("first", "coder")
	first.Absent = []string{"token"}
	next = first
	if err := s.Reload(h); err != nil {
		t.Fatal(err)
	}
	<-s.Configured()
	if err := s.Health(); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("without its secret: %v", err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	get := func() string {
		req, _ := http.NewRequest(http.MethodGet, "http://"+ln.Addr().String()+"/", nil)
		req.URL.Opaque = "http://a.test/" // as it is sent to a proxy
		req.Host = "a.test"
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(resp.Body)
		return string(body)
	}
	if got := get(); got != "first" {
		t.Errorf("served %q", got)
	}

	second := state("second", "coder")
	next = second
	if err := s.Reload(h); err != nil || first.closed != 1 || s.Health() != nil || get() != "second" || show() != "second" || verdict().Rule != "second" {
		t.Errorf("the second: %v, %v, the first was closed %d times", err, s.Health(), first.closed)
	}
	other := state("other", "somebody else")
	next = other
	if err := s.Reload(h); err == nil || other.closed != 1 || second.closed != 0 || get() != "second" {
		t.Errorf("one that changes what cannot be: %v", err)
	}
	fails = errors.New("bad")
	if err := s.Reload(h); !errors.Is(err, fails) || get() != "second" {
		t.Errorf("a bad one later: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // nothing is under way
	if err := s.Shutdown(ctx); err != nil || second.closed != 1 || opened != 1 {
		t.Errorf("shutdown: %v, closed %d times, %d audit logs", err, second.closed, opened)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
