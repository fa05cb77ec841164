//go:build !linux

package podman

import (
	"os"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

func openInput(int) (*os.File, error) {
	return nil, runtime.Errorf(errdefs.ErrNotImplemented, "the engine is not on this machine")
}
