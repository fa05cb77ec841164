package docker

import (
	"archive/tar"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

// volumeDir is where a read-only container has the volume that its files come from.
const volumeDir = "/.bottle-files"

// fileVolume is an anonymous volume with the files of a read-only container. The
// daemon refuses to copy into such a container, and offers no other way to put
// something there, except mounts: so the files go into a volume, which a container
// that is never started holds while the real one is made, and each is mounted
// where it belongs. The volume is anonymous to the real container too, and so goes
// with it, also if it removes itself.
type fileVolume struct {
	e      *engine
	holder string
	name   string // the volume's
	source string // its directory on the engine's host
	files  []runtime.File
}

// fillVolume makes the volume and the container that holds it.
func (e *engine) fillVolume(ctx context.Context, spec runtime.ContainerSpec) (*fileVolume, error) {
	off := false
	res, err := detached(ctx, func(ctx context.Context) (client.ContainerCreateResult, error) {
		return e.cli.ContainerCreate(ctx, client.ContainerCreateOptions{
			Name: spec.Name + ".files." + strings.ToLower(rand.Text()[:8]),
			Config: &container.Config{
				Image: spec.Image, Entrypoint: []string{volumeDir}, Labels: containerLabels(spec.Labels),
				Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
			},
			HostConfig: &container.HostConfig{
				NetworkMode: network.NetworkNone, CapDrop: []string{"ALL"}, Init: &off,
				Mounts: []mount.Mount{{
					Type: mount.TypeVolume, Target: volumeDir, VolumeOptions: &mount.VolumeOptions{Labels: withManaged(nil)},
				}},
			},
		})
	}, func(ctx context.Context, res client.ContainerCreateResult) error {
		return e.discardContainer(ctx, res.ID)
	})
	if err != nil {
		return nil, err
	}
	v := &fileVolume{e: e, holder: res.ID, files: spec.Files}
	if err := v.fill(ctx); err != nil {
		return nil, errors.Join(err, v.discard(ctx))
	}
	return v, nil
}

// find learns what the daemon called the volume, and where it is.
func (v *fileVolume) find(ctx context.Context) error {
	res, err := v.e.cli.ContainerInspect(ctx, v.holder, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	for _, m := range res.Container.Mounts {
		if m.Destination == volumeDir {
			v.name, v.source = m.Name, m.Source
		}
	}
	if v.source == "" {
		return errors.New("the daemon made no volume for the container's files")
	}
	return nil
}

func (v *fileVolume) fill(ctx context.Context) error {
	if err := v.find(ctx); err != nil {
		return err
	}
	return v.e.putFiles(ctx, v.holder, volumeDir, v.files, strconv.Itoa)
}

// mountIn gives the volume and each file of it to a container that is to be made.
func (v *fileVolume) mountIn(host *container.HostConfig) {
	host.VolumesFrom = []string{v.holder + ":ro"}
	for i, f := range v.files {
		host.Mounts = append(host.Mounts, mount.Mount{
			Type: mount.TypeBind, Source: path.Join(v.source, strconv.Itoa(i)), Target: f.Path, ReadOnly: true,
		})
	}
}

// release removes the holder. The volume stays with the container that uses it.
func (v *fileVolume) release(ctx context.Context) error {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	if err := v.e.forceRemove(ctx, v.holder, false); err != nil {
		return fmt.Errorf("remove the container that held the files: %w", err)
	}
	return nil
}

// discard removes the holder and the volume; the container that was to use it is
// gone. The daemon keeps quiet about a volume that it does not remove with its
// container because a request that was cut off still uses it, so it is asked for
// the volume itself.
func (v *fileVolume) discard(ctx context.Context) error {
	undo, cancel := cleanup(ctx)
	defer cancel()
	if v.name == "" {
		_ = v.find(undo)
	}
	if err := v.e.forceRemove(undo, v.holder, true); err != nil {
		return fmt.Errorf("remove the container that held the files: %w", err)
	}
	for v.name != "" {
		_, err := v.e.cli.VolumeRemove(undo, v.name, client.VolumeRemoveOptions{})
		if err == nil || errdefs.IsNotFound(err) {
			return nil
		}
		if !errdefs.IsConflict(err) || pause(undo, 50*time.Millisecond) != nil {
			return fmt.Errorf("remove the volume that held the files: %w", err)
		}
	}
	return nil
}

// putFiles extracts files below a directory of a container, each under the name
// that it is given. Missing parents become root's, with mode 0755.
func (e *engine) putFiles(ctx context.Context, id, dir string, files []runtime.File, name func(int) string) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeFiles(w, files, name)) }()
	_, err := e.cli.CopyToContainer(ctx, id, client.CopyToContainerOptions{DestinationPath: dir, Content: r})
	_ = r.Close()
	if err != nil {
		return fmt.Errorf("put files into the container: %w", err)
	}
	return nil
}

func writeFiles(w io.Writer, files []runtime.File, name func(int) string) error {
	tw := tar.NewWriter(w)
	now := time.Now()
	for i, f := range files {
		mode := int64(f.Mode)
		if mode == 0 {
			mode = 0o644
		}
		h := &tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(name(i), "/"), Mode: mode, Uid: f.UID, Gid: f.GID,
			Size: int64(len(f.Content)), ModTime: now, Format: tar.FormatPAX,
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(f.Content); err != nil {
			return err
		}
	}
	return tw.Close()
}
