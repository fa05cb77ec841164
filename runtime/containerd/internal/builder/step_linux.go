package builder

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
)

// stepRunner gives the containers of steps names by which people know them.
type stepRunner struct{ executor.Executor }

// Run implements [executor.Executor].
func (r stepRunner) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	if id == "" {
		id = "bottlebuild" + strings.ToLower(rand.Text()) // letters and digits only
	}
	return r.Executor.Run(ctx, id, root, mounts, process, started)
}
