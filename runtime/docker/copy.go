package docker

import (
	"archive/tar"
	"bufio"
	"context"
	"errors"
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
	"github.com/bottle-run/bottle/runtime/internal/safetar"
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
	if dir == "/" || c.HostConfig != nil && c.HostConfig.ReadonlyRootfs {
		_, err = e.cli.CopyToContainer(ctx, c.ID, client.CopyToContainerOptions{DestinationPath: dir, Content: archive})
		return fail(ctx, op, name, copyError(err))
	}
	return fail(ctx, op, name, copyError(e.copyBelow(ctx, c.ID, dir, bufio.NewReader(archive), len(c.Mounts) == 0)))
}

// copyBelow extracts into a directory by way of the root: the daemon refuses
// relative links that leave the directory that it extracts into, although they
// stay inside the container.
func (e *engine) copyBelow(ctx context.Context, id, dir string, archive *bufio.Reader, writable bool) error {
	stat, err := e.cli.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: dir + "/."})
	if err != nil {
		return err
	}
	if !stat.Stat.Mode.IsDir() {
		return runtime.Errorf(errdefs.ErrFailedPrecondition, "%s is not a directory", dir)
	}
	if writable && safetar.Empty(archive) {
		// The daemon would start a program to extract nothing.
		return nil
	}
	r, w := io.Pipe()
	rewritten := make(chan error, 1)
	go func() {
		err := prefixArchive(w, archive, strings.TrimPrefix(dir, "/"))
		rewritten <- err
		w.CloseWithError(err)
	}()
	_, err = e.cli.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: "/", Content: r})
	_ = r.Close()
	if archiveErr := <-rewritten; archiveErr != nil && !errors.Is(archiveErr, io.ErrClosedPipe) {
		return archiveErr
	}
	return err
}

// prefixArchive passes a tar stream on with its entries, and what its hard links
// refer to, below a directory. The directory itself stays as it is.
func prefixArchive(w io.Writer, r io.Reader, dir string) error {
	tr, tw := tar.NewReader(r), tar.NewWriter(w)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return tw.Close()
		}
		if err != nil {
			return archiveError(err)
		}
		if path.Clean(h.Name) == "." {
			continue
		}
		h.Name = dir + "/" + h.Name
		if h.Typeflag == tar.TypeLink {
			h.Linkname = path.Join(dir, h.Linkname)
		}
		// The writer finds out anew what the header needs.
		h.Format = tar.FormatPAX
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := io.Copy(tw, tr); err != nil {
			return archiveError(err)
		}
	}
}

// archiveError is InvalidArgument for an archive that cannot be read as one.
func archiveError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return runtime.Errorf(errdefs.ErrInvalidArgument, "it is not a tar archive: %v", err)
	}
	return err
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
