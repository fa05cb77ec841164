//go:build !linux

package podman

import (
	"context"
	"io"
)

// archive is the service's, where the engine is another machine.
func (e *engine) archive(ctx context.Context, c apiContainer, file string) (io.ReadCloser, error) {
	return e.getArchive(ctx, c.ID, file)
}
