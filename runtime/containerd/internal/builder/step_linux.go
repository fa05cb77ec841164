package builder

import (
	"context"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/moby/buildkit/executor"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"golang.org/x/sys/unix"
)

// stepRunner gives the containers of steps names, and mounts their file systems
// below a directory of the builder's own, where the next process finds them if this
// one is killed.
type stepRunner struct {
	executor.Executor
	dir string
}

// Run implements [executor.Executor].
func (r *stepRunner) Run(ctx context.Context, id string, root executor.Mount, mounts []executor.Mount, process executor.ProcessInfo, started chan<- struct{}) (resourcestypes.Recorder, error) {
	if id == "" {
		id = "bottlebuild" + strings.ToLower(rand.Text()) // letters and digits only
	}
	root.Src = mounter{root.Src, filepath.Join(r.dir, id)}
	return r.Executor.Run(ctx, id, root, mounts, process, started)
}

// mounter turns what a snapshot says about its mounts into a directory where they
// are mounted.
type mounter struct {
	executor.Mountable
	target string
}

func (m mounter) Mount(ctx context.Context, readonly bool) (executor.MountableRef, error) {
	ref, err := m.Mountable.Mount(ctx, readonly)
	if err != nil {
		return nil, err
	}
	return mounted{ref, m.target}, nil
}

type mounted struct {
	executor.MountableRef
	target string
}

func (m mounted) Mount() (_ []mount.Mount, _ func() error, err error) {
	mounts, release, err := m.MountableRef.Mount()
	if err != nil {
		return nil, nil, err
	}
	if len(mounts) == 1 && mounts[0].Type == "bind" && !slices.Contains(mounts[0].Options, "ro") {
		return mounts, release, nil // a directory already
	}
	undo := func() error {
		err := unmount(m.target)
		if release != nil {
			err = errors.Join(err, release())
		}
		return err
	}
	err = os.MkdirAll(m.target, 0o700)
	if err == nil {
		err = mount.All(mounts, m.target)
	}
	if err != nil {
		return nil, nil, errors.Join(err, undo())
	}
	return []mount.Mount{{Type: "bind", Source: m.target, Options: []string{"rbind", "rw"}}}, undo, nil
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
