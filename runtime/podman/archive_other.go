package podman

import (
	"context"
	"io"
)

func (e *engine) archive(ctx context.Context, c apiContainer, file string) (io.ReadCloser, error) {
	return e.getArchive(ctx, c.ID, file)
}
