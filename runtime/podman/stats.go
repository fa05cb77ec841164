package podman

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// Stats implements [runtime.Containers].
func (e *engine) Stats(ctx context.Context, name string) (runtime.Stats, error) {
	const op = "read figures of container"
	s, err := e.stats(ctx, name)
	return s, wrap(ctx, op, name, err)
}

func (e *engine) stats(ctx context.Context, name string) (s runtime.Stats, err error) {
	c, err := e.own(ctx, name)
	if err != nil {
		return s, err
	}
	host, err := e.describe(ctx)
	if err != nil {
		return s, err
	}
	why, missing := missingFeatures(host)[runtime.FeatureStats]
	switch {
	case missing:
		return s, runtime.NotImplemented(runtime.FeatureStats, why)
	case state(c.State.Status) != runtime.StateRunning:
		return s, runtime.Errorf(errdefs.ErrFailedPrecondition, "it does not run")
	}
	var got struct {
		Error any
		Stats []struct {
			CPUNano, MemUsage, MemLimit, PIDs uint64
		}
	}
	query := url.Values{"containers": {c.ID}, "stream": {"false"}}
	if err := e.ask(ctx, call{method: http.MethodGet, path: "/containers/stats", query: query}, &got); err != nil {
		return s, err
	}
	if len(got.Stats) != 1 {
		return s, runtime.Errorf(errdefs.ErrFailedPrecondition, "it does not run any more: %v", got.Error)
	}
	r := got.Stats[0]
	return runtime.Stats{
		CPU: time.Duration(r.CPUNano), Memory: int64(r.MemUsage), PIDs: int64(r.PIDs), //nolint:gosec // they are no such numbers
		MemoryLimit: runtime.LimitOf(r.MemLimit, host.Host.MemTotal),
	}, nil
}
