package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
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

// killerName is the killer's name in the root of the container that it runs in.
const killerName = ".bottle-kill"

// runKiller runs the killer in the container, or, since nothing can be put into a
// read-only one, in another beside it that sees its processes.
func (x *execution) runKiller(ctx context.Context) error {
	c, err := x.e.cli.ContainerInspect(ctx, x.container, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	if host := c.Container.HostConfig; host != nil && host.ReadonlyRootfs {
		return x.killFromBeside(ctx, c.Container)
	}
	return x.killFromInside(ctx)
}

// putKiller puts the killer into a container, each time anew: who is in it may have changed it.
func (e *engine) putKiller(ctx context.Context, id string) error {
	binary, err := tinyinit.Binary(goArch(e.version.Arch))
	if err != nil {
		return err
	}
	return e.putFiles(ctx, id, "/", []runtime.File{{Mode: 0o755, Content: binary}}, func(int) string { return killerName })
}

func (x *execution) killFromInside(ctx context.Context) error {
	if err := x.e.putKiller(ctx, x.container); err != nil {
		return err
	}
	killer, err := x.e.cli.ExecCreate(ctx, x.container, client.ExecCreateOptions{
		User: x.spec.User, WorkingDir: "/", Cmd: []string{"/" + killerName, "kill", x.token}, AttachStdout: true, AttachStderr: true,
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
			return killerStatus(res.ExitCode, said)
		}
		return nil
	}
}

func killerStatus(code int, said []byte) error {
	return fmt.Errorf("its killer ended with status %d: %q", code, said)
}

// killFromBeside runs the killer in a container of the same image with the processes of
// the read-only one, as the same user and with the same capabilities, and without a network.
func (x *execution) killFromBeside(ctx context.Context, c container.InspectResponse) (err error) {
	user := x.spec.User
	if user == "" {
		user = c.Config.User
	}
	off := false
	made, err := x.e.cli.ContainerCreate(ctx, client.ContainerCreateOptions{
		Name: strings.TrimPrefix(c.Name, "/") + ".kill." + strings.ToLower(rand.Text()[:8]),
		Config: &container.Config{
			Image: c.Image, Entrypoint: []string{"/" + killerName, "kill", x.token}, User: user, WorkingDir: "/", Labels: c.Config.Labels,
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
		},
		HostConfig: &container.HostConfig{
			NetworkMode: network.NetworkNone, PidMode: container.PidMode("container:" + x.container), Init: &off,
			CapDrop: []string{"ALL"}, CapAdd: c.HostConfig.CapAdd, SecurityOpt: c.HostConfig.SecurityOpt, Runtime: c.HostConfig.Runtime,
		},
	})
	if err != nil {
		return err
	}
	defer func() {
		ctx, cancel := cleanup(ctx)
		defer cancel()
		err = errors.Join(err, x.e.forceRemove(ctx, made.ID, true))
	}()
	if err := x.e.putKiller(ctx, made.ID); err != nil {
		return err
	}
	if _, err := x.e.cli.ContainerStart(ctx, made.ID, client.ContainerStartOptions{}); err != nil {
		return err
	}
	code, err := x.e.wait(ctx, made.ID, container.WaitConditionNotRunning)
	if err == nil && code != 0 {
		err = killerStatus(code, nil)
	}
	return err
}
