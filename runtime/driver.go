package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
)

// Driver knows one kind of engine: how to tell whether it is here, and how to
// connect to it. Each engine's package exports one.
type Driver interface {
	// Name is what --runtime takes.
	Name() string
	// Probe says what is known about the engine without changing anything. It
	// asks the daemon who it is; the presence of a binary proves nothing.
	Probe(ctx context.Context, opts Options) Status
	// Open connects, starting the engine's service if that is the engine's way.
	// It is Unavailable, with what was tried and a hint, if none answers.
	Open(ctx context.Context, opts Options) (Runtime, error)
}

// HostSweeper is a [Driver] whose connections keep something on this host for themselves:
// a service, files.
type HostSweeper interface {
	// SweepHost removes what such connections of processes left that died, and connects to
	// nothing.
	SweepHost()
}

// SweepHost has every engine remove from this host what processes left that died.
func (r *Registry) SweepHost() {
	for _, d := range r.drivers {
		if s, ok := d.(HostSweeper); ok {
			s.SweepHost()
		}
	}
}

// Options are what a [Driver] needs to connect. The zero value is the default
// endpoint.
type Options struct {
	// Host is the endpoint: unix:///path, and tcp://host:port or
	// ssh://user@host/path where the engine has it. Empty means the engine's own
	// way of finding it (DOCKER_HOST, CONTAINER_HOST, CONTAINERD_ADDRESS, then the
	// usual sockets).
	Host string
	// StateDir is where an implementation keeps what the engine does not keep for
	// it (address allocation, hosts files, builder cache). Empty means the
	// engine's default below the user's state directory, or /var/lib for root.
	StateDir string
	// SubnetPool is what networks without a subnet get theirs from; the zero
	// Prefix means [DefaultSubnetPool].
	SubnetPool netip.Prefix
	// Patience bounds how long Open and Probe wait for the engine to say that it is there;
	// zero means [DefaultPatience].
	Patience time.Duration
	// Logger receives debugging output; nil discards it.
	Logger *slog.Logger
}

// DefaultSubnetPool is where networks come from unless the caller says
// otherwise. It holds 32,768 networks of /27 and lies away from the ranges that
// engines and common VPNs hand out by default.
var DefaultSubnetPool = netip.MustParsePrefix("10.208.0.0/12")

// DefaultPatience is how long an engine may take to answer when it is connected to: a
// machine may be busy, and a daemon that has just been started too.
const DefaultPatience = 30 * time.Second

// probePatience is how long it may take when it is only asked whether it is there.
const probePatience = 10 * time.Second

// Probing are the options for [Driver.Probe], which waits less.
func (o Options) Probing() Options {
	if o.Patience <= 0 || o.Patience > probePatience {
		o.Patience = probePatience
	}
	return o
}

// Ask puts the first question to an engine. If that has not been answered when the time is
// over, the error says so, and is Unavailable.
func (o Options) Ask(ctx context.Context, question func(context.Context) error) error {
	patience := o.Patience
	if patience <= 0 {
		patience = DefaultPatience
	}
	late := Errorf(errdefs.ErrUnavailable, "it accepts connections and has not answered for %v: it hangs, or something else is at its endpoint", patience)
	asking, cancel := context.WithTimeoutCause(ctx, patience, late)
	defer cancel()
	err := question(asking)
	if err != nil && ctx.Err() == nil && asking.Err() != nil {
		return late
	}
	return err
}

// Log returns the logger, never nil.
func (o Options) Log() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// Status is what a [Driver] found out about its engine.
type Status struct {
	Engine   string
	Endpoint string
	// Installed reports that something of the engine is on this host, or that an
	// endpoint was named.
	Installed bool
	// Healthy reports that Open would succeed, as far as can be told.
	Healthy  bool
	Rootless bool
	Version  string
	// Reason says why it is not healthy: what was tried and what happened.
	Reason string
	// Fix says what the user can do about it.
	Fix string
}

// Registry is the set of engines that a program knows.
type Registry struct {
	drivers []Driver
}

// NewRegistry makes a registry. The order is the order of preference among
// engines that are alike.
func NewRegistry(drivers ...Driver) *Registry { return &Registry{drivers: drivers} }

// Names returns the engines' names, in order.
func (r *Registry) Names() []string {
	names := make([]string, len(r.drivers))
	for i, d := range r.drivers {
		names[i] = d.Name()
	}
	return names
}

// Open connects to the engine of that name and to no other. An unknown name is
// InvalidArgument.
func (r *Registry) Open(ctx context.Context, name string, opts Options) (Runtime, error) {
	for _, d := range r.drivers {
		if d.Name() == name {
			rt, err := d.Open(ctx, opts)
			if err != nil {
				return nil, err
			}
			return Checked(rt), nil
		}
	}
	return nil, Errorf(errdefs.ErrInvalidArgument, "unknown runtime %q: it is one of %s, auto", name, strings.Join(r.Names(), ", "))
}

// Drivers returns the engines' drivers, in order.
func (r *Registry) Drivers() []Driver { return slices.Clone(r.drivers) }

// ProbeAll asks every engine at once and returns their states in order.
func (r *Registry) ProbeAll(ctx context.Context, opts Options) []Status {
	states := make([]Status, len(r.drivers))
	var wg sync.WaitGroup
	for i, d := range r.drivers {
		wg.Go(func() { states[i] = d.Probe(ctx, opts) })
	}
	wg.Wait()
	return states
}

// Detect connects to the best engine that answers: a rootless one before a
// rootful one, and among those alike the first registered. It returns why it
// took it. When none answers, the error is Unavailable and has one line per
// engine: what was tried and what to do.
func (r *Registry) Detect(ctx context.Context, opts Options) (Runtime, string, error) {
	states := r.ProbeAll(ctx, opts)
	var errs []error
	for _, rootless := range []bool{true, false} {
		for _, s := range states {
			if !s.Healthy || s.Rootless != rootless {
				continue
			}
			rt, err := r.Open(ctx, s.Engine, opts)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			why := "the first engine that answers"
			if rootless {
				why = "a rootless engine that answers"
			}
			return rt, fmt.Sprintf("%s %s at %s (%s)", s.Engine, s.Version, s.Endpoint, why), nil
		}
	}
	for _, s := range states {
		if s.Healthy {
			continue
		}
		line := s.Engine + ": " + s.Reason
		if s.Fix != "" {
			line += "; " + s.Fix
		}
		errs = append(errs, errors.New(line))
	}
	return nil, "", WithKind(errdefs.ErrUnavailable, fmt.Errorf("no container engine answers\n%w", errors.Join(errs...)))
}
