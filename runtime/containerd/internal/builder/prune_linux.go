package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	bkclient "github.com/moby/buildkit/client"
)

const (
	// collectEvery is how often the cache's limits are looked after: it takes a
	// moment with a large cache, so not after each build.
	collectEvery   = time.Hour
	collectTimeout = time.Minute
)

// Prune empties the cache of steps, but for what images on the engine need or a
// running build uses. It returns the bytes that were freed.
func (b *Builder) Prune(ctx context.Context) (int64, error) {
	if _, err := os.Stat(b.opts.Root); errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	ctx, s, done, err := b.use(ctx, nil)
	if err != nil {
		return 0, err
	}
	defer done()
	return s.prune(ctx, bkclient.PruneInfo{All: true})
}

// Purge empties the cache and removes the root. Builds that run are ended; the
// builder is closed.
func (b *Builder) Purge(ctx context.Context) error {
	_, err := b.Prune(ctx)
	if err := errors.Join(err, b.Close()); err != nil {
		return err
	}
	if _, err := os.Stat(b.opts.Root); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lock, err := takeRoot(ctx, b.opts.Root, func() {})
	if err != nil {
		return err
	}
	defer lock.release()
	c, err := connect(b.opts)
	if err != nil {
		return err
	}
	s := &solver{opts: b.opts, client: c}
	err = s.cleanUp(ctx)
	if err == nil {
		err = s.removeLeases(ctx)
	}
	if err := errors.Join(err, c.Close()); err != nil {
		return err
	}
	return os.RemoveAll(b.opts.Root)
}

// removeLeases removes those of cache records: what the databases knew of is gone,
// what they had forgotten is not.
func (s *solver) removeLeases(ctx context.Context) error {
	manager := s.client.LeasesService()
	list, err := manager.List(ctx, fmt.Sprintf("labels.%q==%q", LabelBuilder, s.opts.Root))
	if err != nil {
		return fmt.Errorf("list leases: %w", err)
	}
	for i, l := range list {
		var opts []leases.DeleteOpt
		if i == len(list)-1 {
			opts = append(opts, leases.SynchronousDelete)
		}
		if err := manager.Delete(ctx, l, opts...); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove lease %s: %w", l.ID, err)
		}
	}
	return nil
}

// collectSometimes brings the cache within its limits, unless that was done of late.
func (s *solver) collectSometimes() error {
	stamp := s.dir("collected")
	if info, err := os.Stat(stamp); err == nil && time.Since(info.ModTime()) < collectEvery {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), collectTimeout)
	defer cancel()
	if _, err := s.prune(ctx, limits(s.opts)...); err != nil {
		return fmt.Errorf("collect the builder's garbage: %w", err)
	}
	return os.WriteFile(stamp, nil, 0o600)
}

// limits are applied in turn: what can be had again for the cost of a copy, then
// what is old, then what is too much.
func limits(opts Options) []bkclient.PruneInfo {
	return []bkclient.PruneInfo{
		{Filter: []string{"type==source.local"}, KeepDuration: min(48*time.Hour, opts.KeepFor), MaxUsedSpace: opts.KeepBytes / 20},
		{All: true, KeepDuration: opts.KeepFor},
		{All: true, MaxUsedSpace: opts.KeepBytes},
	}
}

// prune removes records, and then what they alone held.
func (s *solver) prune(ctx context.Context, what ...bkclient.PruneInfo) (int64, error) {
	removed := make(chan bkclient.UsageInfo)
	freed := make(chan int64)
	go func() {
		var sum int64
		for r := range removed {
			sum += r.Size
		}
		freed <- sum
	}()
	err := s.worker.Prune(ctx, removed, what...)
	close(removed)
	sum := <-freed
	if sum > 0 {
		err = errors.Join(err, s.cache.ReleaseUnreferenced(ctx))
	}
	if err != nil {
		return sum, fmt.Errorf("prune the builder's cache: %w", err)
	}
	return sum, nil
}
