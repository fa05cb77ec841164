//go:build !linux

package podman

import (
	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// seal is impossible where the engine's host is another machine.
func (*engine) seal(apiContainer, []apiNetwork) error {
	return runtime.Errorf(errdefs.ErrNotImplemented, "the engine is not on this machine")
}

func (*engine) unseal(string) {}
