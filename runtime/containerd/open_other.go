//go:build !linux

package containerd

import (
	"context"
	goruntime "runtime"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

const linuxOnly = "bottle's containerd runtime exists on Linux only, and this is " + goruntime.GOOS

// Probe says that there is none here.
func (Driver) Probe(context.Context, runtime.Options) runtime.Status {
	return runtime.Status{
		Engine: engine,
		Reason: linuxOnly,
		Fix:    "use --runtime=docker or --runtime=podman, or run bottle on the Linux machine itself",
	}
}

// Open fails.
func (Driver) Open(context.Context, runtime.Options) (runtime.Runtime, error) {
	return nil, &runtime.Error{
		Engine: engine, Op: "connect",
		Err:  runtime.Errorf(errdefs.ErrUnavailable, linuxOnly),
		Hint: "use --runtime=docker or --runtime=podman, or run bottle on the Linux machine itself",
	}
}
