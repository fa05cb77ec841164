package docker

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime/internal/tinyinit"
)

// startTime bounds how long a process may take to appear after the daemon took the
// request to start it.
const startTime = 2 * time.Second

// kill ends the process of the execution and its descendants, and returns when
// the daemon knows that it has ended. Docker's API cannot kill an exec, so a small
// program does it from inside the container. It runs as the user of the exec and
// with no privilege: what runs it belongs to a container that is not trusted.
//
// It is run until nothing is left: the process may not have started yet, and in a
// container whose processes multiply there may be no room for the killer at first.
func (x *execution) kill(ctx context.Context) error {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	began := time.Now()
	for delay := 5 * time.Millisecond; ; delay = min(2*delay, 250*time.Millisecond) {
		err := x.runKiller(ctx)
		over, inspectErr := x.over(ctx, time.Since(began) > startTime)
		if over && (err == nil || x.containerGone) {
			return nil
		}
		if waitErr := pause(ctx, delay); waitErr != nil {
			return fmt.Errorf("the command could not be killed and may still run: %w", errors.Join(err, inspectErr, waitErr))
		}
	}
}

// over reports whether the daemon knows that the process has ended. One that never
// started counts after a while.
func (x *execution) over(ctx context.Context, late bool) (bool, error) {
	c, err := x.e.cli.ContainerInspect(ctx, x.container, client.ContainerInspectOptions{})
	if errdefs.IsNotFound(err) || err == nil && c.Container.State != nil && !c.Container.State.Running {
		x.containerGone = true // and with it every process
		return true, nil
	}
	if err != nil {
		return false, err
	}
	res, err := x.e.cli.ExecInspect(ctx, x.id, client.ExecInspectOptions{})
	if err != nil {
		return false, err
	}
	started := res.PID != 0 || res.ExitCode != 0
	return !res.Running && (started || late), nil
}

// runKiller puts the killer into the container, unless it is there, and runs it.
func (x *execution) runKiller(ctx context.Context) error {
	program := path.Join(volumeDir, killerName)
	if !x.readOnly {
		program = "/" + killerName
		binary, err := tinyinit.Binary(goArch(x.e.version.Arch))
		if err != nil {
			return err
		}
		// Each time anew: the container may have changed it.
		var archive bytes.Buffer
		tw := tar.NewWriter(&archive)
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: killerName, Mode: 0o755, Size: int64(len(binary)), ModTime: time.Now()}); err != nil {
			return err
		}
		if _, err := tw.Write(binary); err != nil {
			return err
		}
		if err := tw.Close(); err != nil {
			return err
		}
		if _, err := x.e.cli.CopyToContainer(ctx, x.container, client.CopyToContainerOptions{DestinationPath: "/", Content: &archive}); err != nil {
			return err
		}
	}
	killer, err := x.e.cli.ExecCreate(ctx, x.container, client.ExecCreateOptions{
		User: x.spec.User, WorkingDir: "/", Cmd: []string{program, "kill", x.token}, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return err
	}
	conn, err := x.e.cli.ExecAttach(ctx, killer.ID, client.ExecAttachOptions{})
	if err != nil {
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	said, _ := io.ReadAll(io.LimitReader(conn.Reader, 4096)) // what matters is its status
	for delay := time.Millisecond; ; delay = min(2*delay, 100*time.Millisecond) {
		res, err := x.e.cli.ExecInspect(ctx, killer.ID, client.ExecInspectOptions{})
		switch {
		case err != nil:
			return err
		case res.Running:
			if err := pause(ctx, delay); err != nil {
				return err
			}
			continue
		case res.ExitCode != 0:
			return fmt.Errorf("its killer ended with status %d: %q", res.ExitCode, said)
		}
		return nil
	}
}
