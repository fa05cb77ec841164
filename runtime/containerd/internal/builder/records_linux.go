package builder

import (
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache/metadata"
)

// What BuildKit keeps about a record of its cache (its cache/metadata.go has no
// exported names for them; a test holds them against what a build writes).
const (
	keySnapshot   = "cache.snapshot"
	keyBlob       = "cache.blob"
	keyBlobOnly   = "cache.blobonly"
	keyMutable    = "cache.equalMutable"
	keyCommitted  = "snapshot.committed"
	keyMerged     = "cache.mergeParents"
	keyLowerDiff  = "cache.lowerDiffParent"
	keyUpperDiff  = "cache.upperDiffParent"
	variantsLease = "-variants"
)

// stock is what containerd has in the namespace.
type stock struct{ leases, snapshots, blobs map[string]bool }

// dropLost removes the records of steps whose results containerd does not have any
// more, or is free to remove: a record is believed by BuildKit, whatever became of
// containerd's side, and each build that finds the step "cached" would fail.
//
// The two are kept in different places and do not live and die together: containerd's
// data may have been removed, moved or restored from a backup while Root stayed, and
// whoever has root may remove leases, content and snapshots by hand.
//
// BuildKit itself drops the records that were built on those dropped here, when it
// loads what is left; so this comes first.
func (s *solver) dropLost(ctx context.Context, records *metadata.Store, manager leases.Manager) error {
	items, err := records.All()
	if err != nil {
		return fmt.Errorf("list the builder's records: %w", err)
	}
	if len(items) == 0 {
		return nil
	}
	there, err := s.takeStock(ctx)
	if err != nil {
		return err
	}
	byID := make(map[string]*metadata.StorageItem, len(items))
	for _, item := range items {
		byID[item.ID()] = item
	}
	for _, item := range items {
		if there.holds(item, byID) {
			continue
		}
		s.opts.Log.Debug("containerd has lost what a build step made", "record", item.ID())
		if err := records.Clear(item.ID()); err != nil {
			return fmt.Errorf("drop the record %s: %w", item.ID(), err)
		}
		for _, id := range []string{item.ID(), item.ID() + variantsLease} {
			if err := manager.Delete(ctx, leases.Lease{ID: id}); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("remove lease %s: %w", id, err)
			}
		}
	}
	return nil
}

func (s *solver) takeStock(ctx context.Context) (*stock, error) {
	there := &stock{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	// First: what a lease of this list holds is there when the rest is listed.
	held, err := s.client.LeasesService().List(ctx, fmt.Sprintf("labels.%q==%q", LabelBuilder, s.opts.Root))
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	for _, l := range held {
		there.leases[l.ID] = true
	}
	if err := s.client.SnapshotService(s.opts.Snapshotter).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		there.snapshots[info.Name] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	if err := s.client.ContentStore().Walk(ctx, func(info content.Info) error {
		there.blobs[info.Digest.String()] = true
		return nil
	}); err != nil {
		return nil, fmt.Errorf("list content: %w", err)
	}
	return there, nil
}

// holds reports whether containerd has what a record stands for, and has to keep it.
func (there *stock) holds(item *metadata.StorageItem, byID map[string]*metadata.StorageItem) bool {
	if mutable := byID[text(item, keyMutable)]; mutable != nil && there.holds(mutable, nil) {
		// Not committed yet: another record's snapshot is its own, and its lease.
		return true
	}
	// BuildKit makes a lease of the record's name for all that the record has.
	if !there.leases[item.ID()] {
		return false
	}
	if flag(item, keyBlobOnly) {
		// BuildKit looks for itself: the snapshot is made when it is wanted, and the
		// blob fetched.
		return true
	}
	if blob := text(item, keyBlob); blob != "" && !there.blobs[blob] {
		return false
	}
	for _, key := range []string{keyMerged, keyLowerDiff, keyUpperDiff} {
		if item.Get(key) != nil {
			return true // the snapshot is made out of others' when it is wanted
		}
	}
	snapshot := text(item, keySnapshot)
	if snapshot == "" || !flag(item, keyCommitted) {
		snapshot = item.ID()
	}
	return there.snapshots[snapshot]
}

// text is a value of a record; empty if it has none.
func text(item *metadata.StorageItem, key string) (value string) {
	if v := item.Get(key); v == nil || v.Unmarshal(&value) != nil {
		return ""
	}
	return value
}

// flag is a value of a record; false if it has none.
func flag(item *metadata.StorageItem, key string) (value bool) {
	if v := item.Get(key); v == nil || v.Unmarshal(&value) != nil {
		return false
	}
	return value
}
