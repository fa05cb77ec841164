package docker

import (
	"context"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// sealer cuts the way between a bridge and the network stack of the host: no
// frame that enters the bridge is delivered to the host, so that neither its
// addresses nor its services nor its routes are within reach, whatever a
// container sends and whichever capabilities it has. What containers on the
// bridge send each other never comes by.
//
// Docker's API cannot do this. Where this process may do it itself (it is root in
// the daemon's network namespace) it does; elsewhere internal networks are of a
// kind that needs no seal.
type sealer interface {
	// Local reports whether this process can seal the bridges of this machine.
	Local() bool
	// Unavailable says why it cannot, or is empty.
	Unavailable(ctx context.Context) string
	// Seal cuts the way. It may be called again. errNotLocal says that no such
	// bridge is in this process's network namespace.
	Seal(bridge string) error
	// Unseal removes what Seal made, also if the bridge is gone already.
	Unseal(bridge string) error
	// Seals lists the bridges that are sealed, for inventories.
	Seals() ([]string, error)
}

// errNotLocal means that the daemon's devices are not in this process's network
// namespace.
var errNotLocal = runtime.Errorf(errdefs.ErrFailedPrecondition, "the engine's network devices are not in bottle's network namespace")

// noSealer is the sealer of a process that cannot.
type noSealer struct{ why string }

func (noSealer) Local() bool                          { return false }
func (s noSealer) Unavailable(context.Context) string { return s.why }
func (noSealer) Seal(string) error                    { return errNotLocal }
func (noSealer) Unseal(string) error                  { return nil }
func (noSealer) Seals() ([]string, error)             { return nil, nil }
