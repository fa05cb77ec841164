package supervise

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"

	"github.com/bottle-run/bottle/internal/atomicfile"
	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/internal/front"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
)

// DefaultAddress is where it listens unless the configuration says otherwise.
const DefaultAddress = ":9100"

// Service is the sidecar.
type Service struct {
	failed error  // why it cannot work
	file   string // the configuration that was delivered
	ledger *ledger.Ledger
	log    *slog.Logger
	open   func(agent string) *audit.Log

	mu     sync.Mutex // of Reload
	audit  *audit.Log // nil until there is a configuration
	server *http.Server
	ended  context.Context // when the server is shut down
	end    context.CancelFunc

	requests bucket
	refusals bucket
	waits    chan struct{}
	quiet    time.Duration // see newLively
}

// Options make a service. The zero value of a member is its default.
type Options struct {
	// Config is the file of the configuration. It is rewritten when a proposal has come
	// into force, so that reading it again does not bring the old policy back.
	Config string
	// State is a directory that outlives the process: proposals and the last configuration
	// are kept there. Empty: they end with the process.
	State string
	Log   *slog.Logger
	// Audit opens the audit log for an agent.
	Audit func(agent string) *audit.Log
	// Now is the clock. Default: time.Now.
	Now func() time.Time
}

// New makes a service, with what an earlier one left in the directory of its state. If that
// cannot be read, Health and Reload say so, and nothing is served.
func New(o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	book, err := ledger.Open(o.State, o.Now)
	if err != nil {
		book, _ = ledger.Open("", o.Now) // which reads nothing
	}
	s := &Service{
		failed: err, file: o.Config, ledger: book, log: o.Log, open: o.Audit,
		requests: newBucket(o.Now, 50, 200), refusals: newBucket(o.Now, 0.1, 20), quiet: quiet,
	}
	s.ended, s.end = context.WithCancel(context.Background())
	return s
}

// errUnconfigured is the error of a sidecar that has no configuration yet.
var errUnconfigured = errors.New("waiting for its configuration")

// Reload reads the configuration, for the first time or again. Without a file, that of an
// earlier process is used.
func (s *Service) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.reload()
	if err != nil {
		s.log.Error("reload refused, the old configuration stays", "error", err.Error())
		return err
	}
	s.log.Info("reloaded")
	return nil
}

func (s *Service) reload() error {
	if s.failed != nil {
		return s.failed
	}
	old := s.ledger.Config()
	conf := old
	if _, err := os.Stat(s.file); !errors.Is(err, fs.ErrNotExist) || old == nil {
		if conf, err = config.ReadSupervise(s.file); err != nil {
			return err
		}
	}
	if s.audit != nil && (conf.Agent != old.Agent || conf.Listen != old.Listen || conf.Limits != old.Limits) {
		return errors.New("agent, listen and limits cannot change while the sidecar runs")
	}
	if conf != old {
		if err := s.ledger.Configure(conf); err != nil {
			return err
		}
	}
	if s.audit == nil {
		s.audit = s.open(conf.Agent)
		s.waits = make(chan struct{}, conf.Limits.WithDefaults().Waits)
		s.server = &http.Server{
			Handler: s.handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
			ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // what the agent sends is not logged
		}
	}
	return nil
}

// Restorable reports whether there is a configuration of an earlier process, with which
// Reload succeeds before one is delivered.
func (s *Service) Restorable() bool { return s.ledger.Config() != nil }

// Listen returns the address of the configuration.
func (s *Service) Listen() string {
	if c := s.ledger.Config(); c != nil && c.Listen != "" {
		return c.Listen
	}
	return DefaultAddress
}

// Serve answers agents on a listener until Shutdown. There has to be a configuration.
func (s *Service) Serve(ln net.Listener) error {
	err := s.server.Serve(netutil.LimitListener(ln, s.ledger.Config().Limits.WithDefaults().Connections))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown ends calls that wait, and everything else.
func (s *Service) Shutdown(ctx context.Context) error {
	s.end()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.server == nil {
		return nil
	}
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = s.server.Close()
	}
	return errors.Join(err, s.audit.Close())
}

// Health is nil if the sidecar has its configuration.
func (s *Service) Health() error {
	if s.failed != nil {
		return s.failed
	}
	if s.ledger.Config() == nil {
		return errUnconfigured
	}
	return nil
}

// Policy returns the configuration in force.
func (s *Service) Policy() any {
	if c := s.ledger.Config(); c != nil {
		return c
	}
	return nil
}

// Test denies: this sidecar lets nothing through.
func (s *Service) Test(string, string) front.Verdict {
	return front.Verdict{Decision: audit.Deny, Rule: "supervise", Reason: "the supervise sidecar lets nothing through: ask the firewall or the egress proxy"}
}

// keep writes the configuration in force over the one that was delivered.
func (s *Service) keep() {
	data, err := json.Marshal(s.ledger.Config())
	if err == nil {
		err = atomicfile.Write(s.file, data, 0o400)
	}
	if err == nil {
		return
	}
	// Without a file the one in force stays: an old one would bring the old policy back.
	s.log.Error("the configuration in force cannot be written", "error", err.Error())
	if err := os.Remove(s.file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Error("the old configuration cannot be removed", "error", err.Error())
	}
}

// record writes to the audit log.
func (s *Service) record(decision string, p audit.Proposal, reason string) {
	s.audit.Record(audit.Record{Decision: decision, Rule: "proposal", Reason: reason, Proposal: &p})
}

// bucket limits a rate: it fills with rate a second up to size.
type bucket struct {
	now        func() time.Time
	rate, size float64
	mu         *sync.Mutex
	state      *bucketState
}

type bucketState struct {
	left float64
	at   time.Time
}

func newBucket(now func() time.Time, rate, size float64) bucket {
	return bucket{now, rate, size, &sync.Mutex{}, &bucketState{size, now()}}
}

// take takes one out, and reports whether there was one.
func (b bucket) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if passed := now.Sub(b.state.at).Seconds(); passed > 0 {
		b.state.left = min(b.size, b.state.left+passed*b.rate)
	}
	b.state.at = now
	if b.state.left < 1 {
		return false
	}
	b.state.left--
	return true
}
