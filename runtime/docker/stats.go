package docker

import (
	"context"
	"encoding/json"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

// Stats implements [runtime.Containers].
func (e *engine) Stats(ctx context.Context, name string) (runtime.Stats, error) {
	const op = "read figures of container"
	s, err := e.stats(ctx, name)
	return s, fail(ctx, op, name, err)
}

func (e *engine) stats(ctx context.Context, name string) (s runtime.Stats, err error) {
	c, err := e.own(ctx, name)
	if err != nil {
		return s, err
	}
	if c.State != nil && !c.State.Running {
		return s, runtime.Errorf(errdefs.ErrFailedPrecondition, "it does not run")
	}
	got, err := e.cli.ContainerStats(ctx, c.ID, client.ContainerStatsOptions{})
	if err != nil {
		return s, err
	}
	defer got.Body.Close() //nolint:errcheck // only read
	var r container.StatsResponse
	if err := json.NewDecoder(got.Body).Decode(&r); err != nil {
		return s, err
	}
	if r.CPUStats.CPUUsage.TotalUsage == 0 && r.MemoryStats.Usage == 0 {
		if info, err := e.Info(ctx); err == nil && !info.Has(runtime.FeatureStats) {
			return s, runtime.NotImplemented(runtime.FeatureStats, info.Missing[runtime.FeatureStats])
		}
		return s, runtime.Errorf(errdefs.ErrFailedPrecondition, "it does not run any more")
	}
	used := r.MemoryStats.Usage
	// Version 1 of control groups, or version 2.
	for _, key := range []string{"total_inactive_file", "inactive_file"} {
		if idle, ok := r.MemoryStats.Stats[key]; ok {
			used -= min(used, idle)
			break
		}
	}
	limit := r.MemoryStats.Limit
	if c.HostConfig != nil && c.HostConfig.Memory == 0 {
		limit = 0 // what is told then is what the machine has
	}
	return runtime.Stats{
		CPU: time.Duration(r.CPUStats.CPUUsage.TotalUsage), Memory: int64(used), //nolint:gosec // they are no such numbers
		MemoryLimit: runtime.LimitOf(limit, 0), PIDs: int64(r.PidsStats.Current), //nolint:gosec // see above
	}, nil
}
