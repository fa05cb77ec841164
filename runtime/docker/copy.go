package docker

import (
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

// CopyTo extracts a tar stream into a directory of a container. The daemon
// resolves every name inside the container's root, from which it cannot leave.
func (e *engine) CopyTo(ctx context.Context, name, dir string, archive io.Reader) error {
	const op = "copy to container"
	c, err := e.own(ctx, name)
	if err == nil {
		err = e.refuseMemory(ctx, c, dir)
	}
	if err != nil {
		return fail(ctx, op, name, err)
	}
	_, err = e.cli.CopyToContainer(ctx, c.ID, client.CopyToContainerOptions{DestinationPath: dir, Content: archive})
	return fail(ctx, op, name, copyError(err))
}

// copyError gives what the daemon said a kind.
func copyError(err error) error {
	if err == nil {
		return nil
	}
	switch {
	case containsAny(err, "read-only"):
		return runtime.Errorf(errdefs.ErrFailedPrecondition, "%s", message(err))
	case containsAny(err, "not a directory", "cannot overwrite"):
		return runtime.Errorf(errdefs.ErrFailedPrecondition, "%s", message(err))
	case containsAny(err, "no space left", "disk quota"):
		return runtime.Errorf(errdefs.ErrResourceExhausted, "%s", message(err))
	case containsAny(err, "no such file or directory"):
		return runtime.Errorf(errdefs.ErrNotFound, "%s", message(err))
	}
	return err
}

// refuseMemory refuses a path below a memory-backed file system: the daemon would
// copy to or from what lies below the mount.
func (e *engine) refuseMemory(ctx context.Context, c container.InspectResponse, target string) error {
	paths := []string{target}
	// A link at the end of the path is resolved by the daemon; inside the path it
	// is not reported, and the copy then goes below the mount.
	if stat, err := e.cli.ContainerStatPath(ctx, c.ID, client.ContainerStatPathOptions{Path: target}); err == nil && stat.Stat.LinkTarget != "" {
		paths = append(paths, stat.Stat.LinkTarget)
	}
	for _, p := range paths {
		if mounted := memoryMount(c, p); mounted != "" {
			return fmt.Errorf("%s lies in the tmpfs %s: %w", p, mounted,
				runtime.NotImplemented(runtime.FeatureCopyTmpfs, "Docker copies below the mount, where nobody sees it"))
		}
	}
	return nil
}

// memoryMount is the memory-backed file system that a path of the container lies
// in, or empty.
func memoryMount(c container.InspectResponse, target string) string {
	mounts := []string{"/dev", "/proc", "/sys"}
	if c.HostConfig != nil {
		mounts = slices.AppendSeq(mounts, maps.Keys(c.HostConfig.Tmpfs))
	}
	// A volume or bind mount below a tmpfs is seen by the daemon.
	best, memory := "", false
	consider := func(dir string, isMemory bool) {
		dir = path.Clean(dir)
		if (target == dir || strings.HasPrefix(target, strings.TrimSuffix(dir, "/")+"/")) && len(dir) >= len(best) {
			best, memory = dir, isMemory
		}
	}
	for _, m := range mounts {
		consider(m, true)
	}
	for _, m := range c.Mounts {
		consider(m.Destination, m.Type == mount.TypeTmpfs)
	}
	if !memory {
		return ""
	}
	return best
}

// CopyFrom returns a tar stream of a file or directory of a container.
func (e *engine) CopyFrom(ctx context.Context, name, source string) (io.ReadCloser, error) {
	const op = "copy from container"
	c, err := e.own(ctx, name)
	if err == nil {
		err = e.refuseMemory(ctx, c, source)
	}
	if err != nil {
		return nil, fail(ctx, op, name, err)
	}
	if source == "/" {
		// Otherwise the daemon calls the root by names that differ by version.
		source = "/."
	}
	res, err := e.cli.CopyFromContainer(ctx, c.ID, client.CopyFromContainerOptions{SourcePath: source})
	if err != nil && containsAny(err, "not a directory") {
		err = runtime.Errorf(errdefs.ErrNotFound, "no such path: %s", source)
	}
	if err != nil {
		return nil, fail(ctx, op, name, copyError(err))
	}
	return res.Content, nil
}
