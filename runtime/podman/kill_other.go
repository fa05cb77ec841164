//go:build !linux

package podman

import (
	"context"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

func killToken(context.Context, int, string) (bool, error) {
	return false, runtime.Errorf(errdefs.ErrNotImplemented, "the engine is not on this machine")
}

func killBuild(int64) bool { return false }
