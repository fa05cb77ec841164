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

	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime/internal/tinyinit"
)

// killAttempts bounds how often the killer is started: in a container whose
// processes multiply there may be no room for it at first.
const killAttempts = 5

// kill ends the process of the execution and its descendants, and returns when
// the daemon knows that it has ended. Docker's API cannot kill an exec, so a small
// program does it from inside the container. It runs as the user of the exec and
// with no privilege: what runs it belongs to a container that is not trusted.
func (x *execution) kill(ctx context.Context) error {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	var last error
	for attempt := range killAttempts {
		if over, err := x.over(ctx); over || err != nil {
			return err
		}
		if last = x.runKiller(ctx); last == nil {
			break
		}
		if err := pause(ctx, time.Duration(attempt+1)*50*time.Millisecond); err != nil {
			break
		}
	}
	if last != nil {
		return fmt.Errorf("the command could not be killed and may still run: %w", last)
	}
	for delay := 2 * time.Millisecond; ; delay = min(2*delay, 100*time.Millisecond) {
		over, err := x.over(ctx)
		if over || err != nil {
			return err
		}
		if err := pause(ctx, delay); err != nil {
			return errors.New("the command was killed, but the daemon does not report its end")
		}
	}
}

// over reports whether nothing of the execution can be running any more.
func (x *execution) over(ctx context.Context) (bool, error) {
	c, err := x.e.cli.ContainerInspect(ctx, x.container, client.ContainerInspectOptions{})
	if err != nil || c.Container.State == nil || !c.Container.State.Running {
		return true, nil //nolint:nilerr // a container that is gone or unknown has no process
	}
	res, err := x.e.cli.ExecInspect(ctx, x.id, client.ExecInspectOptions{})
	if err != nil {
		return false, err
	}
	return x.killed && !res.Running, nil
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
		x.killed = true
		return nil
	}
}
