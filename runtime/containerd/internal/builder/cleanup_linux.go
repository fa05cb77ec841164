package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Cleanup removes what a killed process left: containers of steps, mounts and
// images that are not done. The next build does the same. It does nothing while
// another process builds, and nothing if there never was a build.
func (b *Builder) Cleanup(ctx context.Context) error {
	if _, err := os.Stat(b.opts.Root); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	select {
	case b.gate <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { <-b.gate }()
	if b.solver != nil {
		return nil // done when it started
	}
	lock, err := tryRoot(b.opts.Root)
	if err != nil || lock == nil {
		return err // built in by another
	}
	defer lock.release()
	c, err := connect(b.opts)
	if err != nil {
		return fmt.Errorf("connect the builder to containerd: %w", err)
	}
	s := &solver{opts: b.opts, client: c}
	return errors.Join(s.cleanUp(ctx), c.Close())
}

// cleanUp does it. The root is locked, so whatever carries its mark is dead.
func (s *solver) cleanUp(ctx context.Context) error {
	if err := s.removeContainers(ctx); err != nil {
		return err
	}
	if err := s.removeMounts(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(s.dir("net")); err != nil {
		return err
	}
	hosts, err := filepath.Glob(filepath.Join(s.dir("worker"), "hosts*"))
	if err != nil {
		return err
	}
	for _, f := range hosts {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return s.removeImages(ctx)
}

// removeContainers removes the containers with this root's mark.
func (s *solver) removeContainers(ctx context.Context) error {
	list, err := s.client.Containers(ctx, fmt.Sprintf("labels.%q==%q", LabelBuilder, s.opts.Root))
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	for _, c := range list {
		task, err := c.Task(ctx, nil)
		if err == nil {
			_, err = task.Delete(ctx, client.WithProcessKill)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("end the step in container %s: %w", c.ID(), err)
		}
		if err := c.Delete(ctx); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove container %s: %w", c.ID(), err)
		}
	}
	return nil
}

// removeMounts unmounts what steps had for a root, and what BuildKit mounted for
// itself (for COPY and the like) in the directory for temporary files.
func (s *solver) removeMounts(ctx context.Context) error {
	entries, err := os.ReadDir(s.mounts())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, e := range entries {
		if err := unmount(filepath.Join(s.mounts(), e.Name())); err != nil {
			return fmt.Errorf("unmount a step's file system: %w", err)
		}
	}
	suspects, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.HasPrefix(filepath.Base(m.Mountpoint), "buildkit-mount"), false
	})
	if err != nil || len(suspects) == 0 {
		return err
	}
	// Another BuildKit names its mounts the same: ours are those of snapshots in
	// our namespace.
	ours, err := s.snapshotMounts(ctx)
	if err != nil {
		return err
	}
	for _, m := range suspects {
		if !slices.ContainsFunc(ours, func(o mount.Mount) bool { return isMountOf(m, o) }) {
			continue
		}
		if err := unmount(m.Mountpoint); err != nil {
			return fmt.Errorf("unmount a layer: %w", err)
		}
	}
	return nil
}

func (s *solver) snapshotMounts(ctx context.Context) ([]mount.Mount, error) {
	var all []mount.Mount
	store := s.client.SnapshotService(s.opts.Snapshotter)
	err := store.Walk(ctx, func(ctx context.Context, info snapshots.Info) error {
		if info.Kind == snapshots.KindCommitted {
			return nil
		}
		mounts, err := store.Mounts(ctx, info.Name)
		if errdefs.IsNotFound(err) {
			return nil
		}
		all = append(all, mounts...)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", err)
	}
	return all, nil
}

// isMountOf reports whether a mount was made as a snapshot says.
func isMountOf(m *mountinfo.Info, o mount.Mount) bool {
	if o.Type == "overlay" {
		if m.FSType != "overlay" {
			return false
		}
		options := strings.Split(m.VFSOptions, ",")
		key := "upperdir="
		if !slices.ContainsFunc(o.Options, func(s string) bool { return strings.HasPrefix(s, key) }) {
			key = "lowerdir="
		}
		i := slices.IndexFunc(o.Options, func(s string) bool { return strings.HasPrefix(s, key) })
		return i >= 0 && slices.Contains(options, o.Options[i])
	}
	// A bind mount is the directory that it shows.
	var here, there unix.Stat_t
	return unix.Stat(m.Mountpoint, &here) == nil && unix.Stat(o.Source, &there) == nil &&
		here.Dev == there.Dev && here.Ino == there.Ino
}

// removeImages removes images whose build did not end.
func (s *solver) removeImages(ctx context.Context) error {
	list, err := s.client.ImageService().List(ctx, fmt.Sprintf("name~=%q", "^"+regexp.QuoteMeta(temporaryPrefix)))
	if err != nil {
		return fmt.Errorf("list images: %w", err)
	}
	for _, img := range list {
		if err := s.client.ImageService().Delete(ctx, img.Name); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image %s: %w", img.Name, err)
		}
	}
	return nil
}

// unmount unmounts what is mounted at a directory and removes it, empty.
func unmount(dir string) error {
	for {
		err := unix.Unmount(dir, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break // nothing mounted
		}
		if err != nil {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
