package podman

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// The API of 4.x ignores the OCI runtime that a request names, in silence: the
// container would run under the default one. A service that is started with
// --runtime makes containers for that one, and every service runs them.

// creator returns the connection over which a container for an OCI runtime is
// made, and what to call when it has been.
func (e *engine) creator(ctx context.Context, name string) (*engine, func(), error) {
	done := func() {}
	if name == "" || !e.local {
		return e, done, nil
	}
	h, err := e.describe(ctx)
	if err != nil {
		return nil, nil, err
	}
	if known := e.ociRuntimes(h); !slices.Contains(known, name) {
		return nil, nil, runtime.Errorf(errdefs.ErrInvalidArgument, "unknown OCI runtime %q: the engine has %s", name, strings.Join(known, ", "))
	}
	if name == h.Host.OCIRuntime.Name {
		return e, done, nil
	}
	binary, err := exec.LookPath("podman")
	if err != nil {
		return nil, nil, runtime.WithKind(errdefs.ErrNotImplemented, err)
	}
	c := &engine{log: e.log, local: true}
	if c.service, err = startService(ctx, binary, e.log, "--runtime", name); err != nil {
		return nil, nil, err
	}
	c.uri = c.service.uri()
	if c.conn, err = connect(ctx, c.uri); err != nil {
		return nil, nil, errors.Join(err, c.service.close(true))
	}
	return c, func() {
		if err := c.service.close(true); err != nil {
			e.log.Debug("podman: the service for another OCI runtime", "err", err)
		}
	}, nil
}

// checkRuntime refuses a container that got another OCI runtime than asked for.
func checkRuntime(spec runtime.ContainerSpec, c apiContainer) error {
	if spec.OCIRuntime == "" || c.OCIRuntime == spec.OCIRuntime {
		return nil
	}
	return runtime.Errorf(errdefs.ErrNotImplemented, "the engine would run it under %s, not under %s", c.OCIRuntime, spec.OCIRuntime)
}
