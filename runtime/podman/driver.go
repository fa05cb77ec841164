package podman

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containers/podman/v5/pkg/bindings"

	"github.com/bottle-run/bottle/runtime"
)

const opOpen = "connect to Podman"

const fixInstall = "install podman, or name a host that has it with --host"

// endpoint is a place where a service may answer.
type endpoint struct {
	uri   string
	named bool // by the user: nothing else is tried
}

// endpoints returns where a service may be, and whether we may start one.
func endpoints(host string, env func(string) string, root bool) (list []endpoint, own bool, err error) {
	if host == "" {
		host = env("CONTAINER_HOST")
	}
	if host != "" {
		u, err := url.Parse(host)
		if err != nil {
			return nil, false, runtime.WithKind(errdefs.ErrInvalidArgument, fmt.Errorf("host: %w", err))
		}
		switch u.Scheme {
		case "unix", "tcp", "ssh":
		default:
			return nil, false, runtime.Errorf(errdefs.ErrInvalidArgument,
				"host %q: Podman is reached by unix:///path, tcp://host:port or ssh://user@host/path", host)
		}
		return []endpoint{{uri: host, named: true}}, false, nil
	}
	if root {
		return []endpoint{{uri: "unix:///run/podman/podman.sock"}}, true, nil
	}
	return []endpoint{{uri: "unix://" + filepath.Join(runtimeDir(), "podman", "podman.sock")}}, true, nil
}

// Open implements [runtime.Driver].
func (Driver) Open(ctx context.Context, opts runtime.Options) (runtime.Runtime, error) {
	e, err := open(ctx, opts)
	if err != nil {
		return nil, &runtime.Error{Engine: Name, Op: opOpen, Object: opts.Host, Err: err, Hint: openHint(err)}
	}
	return e, nil
}

func openHint(err error) string {
	if h := hint(err); h != "" {
		return h
	}
	if errors.Is(err, exec.ErrNotFound) {
		return fixInstall
	}
	return "see `podman info`, which says what is amiss"
}

func open(ctx context.Context, opts runtime.Options) (*engine, error) {
	list, own, err := endpoints(opts.Host, os.Getenv, os.Geteuid() == 0)
	if err != nil {
		return nil, err
	}
	e := &engine{log: opts.Log(), pool: opts.SubnetPool}
	var tried []error
	for _, p := range list {
		if !p.named {
			// Dialling costs nothing; most users run no service.
			if _, err := os.Stat(strings.TrimPrefix(p.uri, "unix://")); err != nil {
				tried = append(tried, fmt.Errorf("no service at %s", p.uri))
				continue
			}
		}
		var conn context.Context
		err := opts.Ask(ctx, func(ctx context.Context) (err error) {
			conn, err = connect(ctx, p.uri)
			return err
		})
		if err == nil {
			e.uri, e.conn = p.uri, conn
			e.local = strings.HasPrefix(p.uri, "unix:") && localSocket(socketPath(p.uri))
			break
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		tried = append(tried, fmt.Errorf("%s: %w", p.uri, err))
	}
	if e.local {
		sweepBase()
	}
	if e.conn == nil && own {
		binary, err := exec.LookPath("podman")
		if err != nil {
			tried = append(tried, err)
		} else if e.service, err = startService(ctx, binary, e.log); err != nil {
			tried = append(tried, err)
		} else {
			e.uri, e.local = e.service.uri(), true
			if e.conn, err = connect(ctx, e.uri); err != nil {
				tried = append(tried, err)
				_ = e.service.close(false)
			}
		}
	}
	if e.conn == nil {
		err := errors.Join(tried...)
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, runtime.WithKind(errdefs.ErrUnavailable, oneLine{err})
	}
	return e, nil
}

// oneLine prints joined errors on one line.
type oneLine struct{ error }

func (o oneLine) Error() string { return strings.ReplaceAll(o.error.Error(), "\n", "; ") }
func (o oneLine) Unwrap() error { return o.error }

func socketPath(uri string) string {
	p := strings.TrimPrefix(uri, "unix:")
	return "/" + strings.TrimLeft(p, "/")
}

// Probe implements [runtime.Driver]. Where no service runs it starts one, asks it
// and ends it: only so does it know that one would start.
func (Driver) Probe(ctx context.Context, opts runtime.Options) runtime.Status {
	s := runtime.Status{Engine: Name, Endpoint: opts.Host, Installed: opts.Host != ""}
	if _, err := exec.LookPath("podman"); err == nil {
		s.Installed = true
	}
	opts = opts.Probing()
	e, err := open(ctx, opts)
	if err != nil {
		s.Reason, s.Fix = err.Error(), openHint(err)
		return s
	}
	defer func() { _ = e.Close() }()
	s.Installed, s.Healthy, s.Endpoint = true, true, e.uri
	if e.service != nil {
		// It is this user's, and answered the version when it was connected to: the
		// rest of what it knows takes it long to tell.
		s.Endpoint, s.Rootless = "a service of bottle's own", os.Geteuid() != 0
		s.Version = bindings.ServiceVersion(e.conn).String()
		return s
	}
	var info *hostInfo
	err = opts.Ask(ctx, func(ctx context.Context) (err error) {
		info, err = e.describe(ctx)
		return err
	})
	if err != nil {
		s.Healthy, s.Reason, s.Fix = false, err.Error(), openHint(err)
		return s
	}
	s.Rootless, s.Version = info.Host.Security.Rootless, info.Version.Version
	return s
}

// Close implements [runtime.Runtime].
func (e *engine) Close() error {
	defer e.forgetProfiles()
	if e.service == nil {
		if conn, err := e.connection(context.Background()); err == nil {
			conn.Client.CloseIdleConnections()
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), serviceStop)
	defer cancel()
	inUse := true
	if list, err := e.listContainers(ctx, runtime.Filter{}); err == nil {
		inUse = len(list) > 0
	}
	return e.service.close(inUse)
}
