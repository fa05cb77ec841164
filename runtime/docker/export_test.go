package docker

import (
	"context"

	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

// OpenForTest connects without the checks around it, so that tests reach inside.
func OpenForTest(ctx context.Context, host string) (*engine, error) {
	return connect(ctx, runtime.Options{Host: host})
}

// API is the client below the engine.
func (e *engine) API() *client.Client { return e.cli }

// UseClassicBuilder switches BuildKit off.
func (e *engine) UseClassicBuilder() { e.builder = builderClassic }

// CannotSeal makes the engine behave as one of a process that is not root.
func (e *engine) CannotSeal() { e.seal = noSealer{"the test says so"} }

// Unseal opens a network to the host.
func (e *engine) Unseal(ctx context.Context, network string) error {
	bridge, err := e.bridgeName(ctx, network)
	if err != nil {
		return err
	}
	return e.seal.Unseal(bridge)
}
