package docker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"
	"github.com/moby/moby/client/pkg/versions"

	"github.com/bottle-run/bottle/runtime"
)

// Name is what --runtime takes.
const Name = "docker"

// Driver finds and opens Docker.
type Driver struct{}

var _ runtime.Driver = Driver{}

// Name is what --runtime takes.
func (Driver) Name() string { return Name }

// Probe asks the daemon at the first endpoint that there is who it is.
func (Driver) Probe(ctx context.Context, opts runtime.Options) runtime.Status {
	opts = opts.Probing()
	status := runtime.Status{Engine: Name}
	e, err := connect(ctx, opts)
	if err != nil {
		var inner *runtime.Error
		if errors.As(err, &inner) {
			status.Reason, status.Fix = inner.Err.Error(), inner.Hint
		} else {
			status.Reason = err.Error()
		}
		if ep, err := findEndpoint(opts.Host); err == nil {
			status.Endpoint, status.Installed = ep.host, ep.named || ep.present
		}
		if _, err := exec.LookPath("dockerd"); err == nil {
			status.Installed = true
		}
		return status
	}
	defer e.Close() //nolint:errcheck // nothing was written
	status.Endpoint, status.Installed, status.Healthy = e.endpoint.host, true, true
	status.Version = e.version.Version
	var info client.SystemInfoResult
	err = opts.Ask(ctx, func(ctx context.Context) (err error) {
		info, err = e.cli.Info(ctx, client.InfoOptions{})
		return err
	})
	if err != nil {
		status.Healthy, status.Reason = false, message(err)
		return status
	}
	status.Rootless = isRootless(info.Info.SecurityOptions)
	return status
}

// Open connects to Docker.
func (Driver) Open(ctx context.Context, opts runtime.Options) (runtime.Runtime, error) {
	return connect(ctx, opts)
}

// engine is a connection to one daemon.
type engine struct {
	cli      *client.Client
	endpoint endpoint
	version  client.ServerVersionResult
	log      *slog.Logger
	pool     netip.Prefix
	seal     sealer

	builderLock sync.Mutex
	builder     builderChoice

	idLock sync.Mutex
	id     string // the daemon's own, see daemonID

	// missing is what the daemon's first description of itself said is missing: it takes
	// time to make, since the daemon starts programs for it.
	missingLock sync.Mutex
	missing     map[runtime.Feature]string
}

var _ runtime.Runtime = (*engine)(nil)

// connect finds the endpoint, negotiates the API version and makes sure that it
// is Docker that answers.
func connect(ctx context.Context, opts runtime.Options) (*engine, error) {
	const op = "connect"
	ep, err := findEndpoint(opts.Host)
	if err != nil {
		return nil, fail(ctx, op, opts.Host, err)
	}
	e := &engine{endpoint: ep, log: opts.Log(), pool: opts.SubnetPool, builder: builderFromEnv()}
	if e.cli, err = newClient(ep); err != nil {
		return nil, fail(ctx, op, ep.host, runtime.WithKind(errdefs.ErrInvalidArgument, err))
	}
	err = opts.Ask(ctx, func(ctx context.Context) (err error) {
		e.version, err = e.cli.ServerVersion(ctx, client.ServerVersionOptions{})
		return err
	})
	if err != nil {
		_ = e.cli.Close()
		if ctx.Err() == nil && !errdefs.IsUnavailable(err) {
			err = runtime.WithKind(errdefs.ErrUnavailable, err)
		}
		err = fail(ctx, op, ep.host, err)
		var re *runtime.Error
		if errors.As(err, &re) {
			re.Hint = ep.fix()
		}
		return nil, err
	}
	for _, c := range e.version.Components {
		if strings.Contains(c.Name, "Podman") {
			_ = e.cli.Close()
			return nil, &runtime.Error{Engine: Name, Op: op, Object: ep.host,
				Err:  runtime.Errorf(errdefs.ErrUnavailable, "it is Podman %s that answers there, not Docker", c.Version),
				Hint: "use --runtime=podman"}
		}
	}
	if versions.LessThan(e.version.APIVersion, minAPI) {
		_ = e.cli.Close()
		return nil, &runtime.Error{Engine: Name, Op: op, Object: ep.host,
			Err:  runtime.Errorf(errdefs.ErrUnavailable, "Docker %s speaks API %s, and %s is the oldest that works", e.version.Version, e.version.APIVersion, minAPI),
			Hint: "install Docker 20.10 or newer"}
	}
	if e.version.Os != "" && e.version.Os != "linux" {
		_ = e.cli.Close()
		return nil, &runtime.Error{Engine: Name, Op: op, Object: ep.host,
			Err:  runtime.Errorf(errdefs.ErrUnavailable, "the daemon runs %s containers", e.version.Os),
			Hint: "switch it to Linux containers"}
	}
	e.seal = newSealer(e)
	return e, nil
}

// minAPI is Docker 20.10's.
const minAPI = "1.41"

// newClient makes a client for an endpoint.
func newClient(ep endpoint) (*client.Client, error) {
	opts := []client.Opt{client.WithUserAgent("bottle")}
	switch ep.scheme() {
	case "ssh":
		dial, err := sshDialer(ep.host)
		if err != nil {
			return nil, err
		}
		// The host's name appears in messages only.
		opts = append(opts, client.WithHost("tcp://ssh.localhost"), client.WithDialContext(
			func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }))
	default:
		opts = append(opts, client.WithHost(ep.host))
		switch {
		case ep.tls != nil:
			opts = append(opts, client.WithTLSClientConfig(ep.tls.ca, ep.tls.cert, ep.tls.key))
		case ep.scheme() == "tcp":
			opts = append(opts, client.WithTLSClientConfigFromEnv())
		}
	}
	opts = append(opts, client.WithAPIVersionFromEnv())
	return client.New(opts...)
}

// api reports whether the negotiated API has at least the version.
func (e *engine) api(version string) bool {
	return versions.GreaterThanOrEqualTo(e.cli.ClientVersion(), version)
}

// daemonID identifies the daemon; it is constant over its life.
func (e *engine) daemonID(ctx context.Context) (string, error) {
	e.idLock.Lock()
	defer e.idLock.Unlock()
	if e.id != "" {
		return e.id, nil
	}
	info, err := e.cli.Info(ctx, client.InfoOptions{})
	if err != nil {
		return "", fmt.Errorf("ask the daemon who it is: %w", err)
	}
	e.id = info.Info.ID + "/" + info.Info.DockerRootDir
	return e.id, nil
}

// reconnect makes the next request one on a new connection. A daemon that is shutting down
// takes none, but goes on answering on those it has: with lists that are empty, although
// what is missing there comes back with the daemon.
func (e *engine) reconnect() {
	if e.endpoint.scheme() != "ssh" { // where a connection is a process on another machine
		_ = e.cli.Close() // those that are idle
	}
}

// Close releases the connection. Objects on the engine stay.
func (e *engine) Close() error { return e.cli.Close() }
