package front

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/intercept"
)

// Shared is what the state of every sidecar has. A state embeds it.
type Shared struct {
	Config config.Common
	// Desk answers and records. Its audit log is set by the service.
	Desk Desk
	// Absent are the names of the secrets without which the sidecar is not ready.
	Absent []string
	// Hosts are those for which certificates are made ahead of their first use.
	Hosts   []string
	Forward *intercept.Forwarder
	// Close lets go of connections that nothing uses. Requests under way go on.
	Close func()
}

func (s *Shared) shared() *Shared { return s }

// State is what a configuration and secrets make: a pointer to a struct that embeds
// [Shared]. It is replaced as a whole, and not changed once it is in force.
type State interface{ shared() *Shared }

// Service is a sidecar whose state is that of the last configuration that was good. It
// is made without one and serves once [Service.Reload] has succeeded.
type Service[S State] struct {
	log  *slog.Logger
	open func(agent string) *audit.Log
	load func() (S, error)

	reload     sync.Mutex
	configured chan struct{} // closed by the first Reload that succeeds
	state      atomic.Pointer[S]

	// Set before configured is closed, and not changed then.
	server *intercept.Server
	audit  *audit.Log
}

// NewService makes a service. Load makes a state of the files as they are; open opens the
// audit log of an agent.
func NewService[S State](log *slog.Logger, open func(agent string) *audit.Log, load func() (S, error)) *Service[S] {
	return &Service[S]{log: log, open: open, load: load, configured: make(chan struct{})}
}

// errUnconfigured is the error of a sidecar that has no configuration yet.
var errUnconfigured = errors.New("waiting for its configuration")

// Configured is closed when the first configuration is in force.
func (s *Service[S]) Configured() <-chan struct{} { return s.configured }

// current returns the state, and whether there is one.
func (s *Service[S]) current() (st S, ok bool) {
	if p := s.state.Load(); p != nil {
		return *p, true
	}
	return st, false
}

// State returns the state in force. There is one for every request that is served.
func (s *Service[S]) State() S { return *s.state.Load() }

// Reload reads configuration and secrets, for the first time or again. A new state
// replaces the old one between two requests; on an error the old one stays. Either is
// logged. The handler is the one of the first call that succeeds.
func (s *Service[S]) Reload(h intercept.Handler) error {
	s.reload.Lock()
	defer s.reload.Unlock()
	old, running := s.current()
	st, err := s.load()
	if err == nil {
		if running {
			err = Fixed(old.shared().Config, st.shared().Config)
		} else {
			s.server, err = Proxy(st.shared().Config, h, s.log)
		}
		if err != nil {
			st.shared().Close()
		}
	}
	switch {
	case err == nil:
	case running:
		s.log.Error("reload refused, the old configuration stays", "error", err.Error())
		return err
	default:
		s.log.Error("configuration refused", "error", err.Error())
		return err
	}
	if !running {
		s.audit = s.open(st.shared().Config.Agent)
	}
	st.shared().Desk.Audit = s.audit
	s.state.Store(&st)
	go s.server.Minter.Warm(st.shared().Hosts...)
	if running {
		old.shared().Close()
		s.log.Info("reloaded")
		return nil
	}
	close(s.configured)
	s.log.Info("configured")
	return nil
}

// Listen returns the address to listen on, "" for the usual one. It needs a configuration.
func (s *Service[S]) Listen() string { return s.State().shared().Config.Listen }

// Serve serves until Shutdown. It needs a configuration.
func (s *Service[S]) Serve(ln net.Listener) error {
	if _, ok := s.current(); !ok {
		return errUnconfigured
	}
	return s.server.Serve(ln)
}

// Shutdown ends Serve, lets requests end until the context does, and writes the last
// records.
func (s *Service[S]) Shutdown(ctx context.Context) error {
	st, ok := s.current()
	if !ok {
		return nil
	}
	s.server.Shutdown(ctx)
	st.shared().Close()
	return s.audit.Close()
}

// Health says whether the sidecar is ready: it has its configuration and its secrets.
func (s *Service[S]) Health() error {
	st, ok := s.current()
	if !ok {
		return errUnconfigured
	}
	return Waiting(st.shared().Absent)
}

// Test has decide say which rule decides a request, without sending it.
func (s *Service[S]) Test(rawURL string, decide func(st S, at Place) Verdict) Verdict {
	st, ok := s.current()
	if !ok {
		return Verdict{Decision: audit.Deny, Rule: "not-ready", Reason: errUnconfigured.Error()}
	}
	at, err := Address(rawURL)
	if err != nil {
		return Verdict{Decision: audit.Deny, Rule: "malformed", Reason: err.Error()}
	}
	return decide(st, at)
}

// Policy returns what of returns for the state in force, nil if there is none.
func (s *Service[S]) Policy(of func(S) any) any {
	if st, ok := s.current(); ok {
		return of(st)
	}
	return nil
}

// Refused answers a request without one agreed address.
func (s *Service[S]) Refused(w http.ResponseWriter, r *intercept.Request, d intercept.Denial) {
	s.State().shared().Desk.Deny(w, r, r.RawTarget, d, intercept.Result{})
}

// Broken records a tunnel that came to nothing.
func (s *Service[S]) Broken(host string, port uint16, reason string) {
	s.audit.Record(audit.Record{Host: s.State().shared().Desk.Mask(host), Port: port, Method: http.MethodConnect, Decision: audit.Deny, Rule: "no-request", Reason: reason})
}

// Ready answers a request, and says so, if the sidecar lacks secrets.
func (s *Shared) Ready(w http.ResponseWriter, r *intercept.Request) bool {
	err := Waiting(s.Absent)
	if err != nil {
		s.Desk.Deny(w, r, r.RawTarget, intercept.Denial{Status: http.StatusServiceUnavailable, Rule: "not-ready", Reason: err.Error()}, intercept.Result{})
	}
	return err == nil
}

// Finish records how a request ended that was allowed by a rule, and answers it if
// nothing was sent yet. Failed says what is told of an error.
func (s *Shared) Finish(w http.ResponseWriter, r *intercept.Request, path, rule string, res intercept.Result, failed func(error) intercept.Denial) {
	switch {
	case res.Err == nil || res.Status != 0:
		s.Desk.Done(r, path, rule, res)
	case r.Context().Err() != nil:
		res.Status = 499 // the client went away: nobody reads an answer
		s.Desk.Done(r, path, rule, res)
	default:
		s.Desk.Deny(w, r, path, failed(res.Err), res)
	}
}
