package docker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

// find inspects a container by its exact name or ID; the daemon would also take
// the beginning of another one's ID.
func (e *engine) find(ctx context.Context, name string) (container.InspectResponse, error) {
	res, err := e.cli.ContainerInspect(ctx, name, client.ContainerInspectOptions{})
	if err != nil {
		return container.InspectResponse{}, err
	}
	if c := res.Container; c.ID == name || c.Name == "/"+name {
		return c, nil
	}
	return container.InspectResponse{}, runtime.Errorf(errdefs.ErrNotFound, "no such container")
}

// own finds a container that bottle made; another one is PermissionDenied.
func (e *engine) own(ctx context.Context, name string) (container.InspectResponse, error) {
	c, err := e.find(ctx, name)
	if err == nil && (c.Config == nil || !ownContainer(c.Config.Labels)) {
		err = errForeign("container")
	}
	return c, err
}

// labelContainer tells a container that bottle made from one that somebody made
// of an image of bottle's: the daemon gives a container its image's labels too.
const labelContainer = "dev.bottle.docker.container"

func ownContainer(labels map[string]string) bool {
	return managed(labels) && labels[labelContainer] == "true"
}

// containerLabels is a copy of labels with bottle's own.
func containerLabels(labels map[string]string) map[string]string {
	out := withManaged(labels)
	out[labelContainer] = "true"
	return out
}

// InspectContainer describes a container of bottle's.
func (e *engine) InspectContainer(ctx context.Context, name string) (runtime.Container, error) {
	const op = "inspect container"
	c, err := e.own(ctx, name)
	if errdefs.IsPermissionDenied(err) {
		err = runtime.Errorf(errdefs.ErrNotFound, "no such container of bottle's")
	}
	if err != nil {
		return runtime.Container{}, fail(ctx, op, name, err)
	}
	return toContainer(c), nil
}

// ListContainers implements [runtime.Containers].
func (e *engine) ListContainers(ctx context.Context, filter runtime.Filter) ([]runtime.Container, error) {
	e.reconnect()
	res, err := e.cli.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: labelFilter(filter).Add("label", labelContainer+"=true")})
	if err != nil {
		return nil, fail(ctx, "list containers", "", err)
	}
	list := []runtime.Container{}
	for _, s := range slices.Backward(res.Items) { // the newest is the daemon's first
		if !filter.Match(s.Labels) {
			continue
		}
		c := runtime.Container{
			ID: s.ID, Name: containerName(s.Names, s.ID), Labels: maps.Clone(s.Labels), State: state(s.State), Created: time.Unix(s.Created, 0).UTC(),
		}
		delete(c.Labels, labelContainer)
		list = append(list, c)
	}
	return list, nil
}

func state(s container.ContainerState) runtime.State {
	switch s {
	case container.StateCreated:
		return runtime.StateCreated
	case container.StateRunning, container.StateRestarting:
		return runtime.StateRunning
	case container.StatePaused:
		return runtime.StatePaused
	case container.StateExited, container.StateDead, container.StateRemoving:
		return runtime.StateExited
	}
	return runtime.StateUnknown
}

func toContainer(c container.InspectResponse) runtime.Container {
	out := runtime.Container{ID: c.ID, Name: strings.TrimPrefix(c.Name, "/"), ImageID: c.Image, State: runtime.StateUnknown}
	out.Created, _ = time.Parse(time.RFC3339Nano, c.Created) // the zero time says as much as an error would
	if c.Config != nil {
		out.Image, out.Labels = c.Config.Image, maps.Clone(c.Config.Labels)
		delete(out.Labels, labelContainer)
	}
	if s := c.State; s != nil {
		if out.State = state(s.Status); out.State == runtime.StateExited {
			out.Exit = runtime.ExitStatus{Code: s.ExitCode, OOMKilled: s.OOMKilled}
		}
	}
	if c.NetworkSettings != nil {
		for _, name := range slices.Sorted(maps.Keys(c.NetworkSettings.Networks)) {
			ep := c.NetworkSettings.Networks[name]
			if name == "none" || ep == nil {
				continue
			}
			out.Networks = append(out.Networks, runtime.Endpoint{Network: name, Address: ep.IPAddress, Aliases: slices.Clone(ep.Aliases)})
		}
	}
	return out
}

func containerName(names []string, id string) string {
	if len(names) > 0 {
		return strings.TrimPrefix(names[0], "/")
	}
	return id
}

// Wait returns when the container's process has ended.
func (e *engine) Wait(ctx context.Context, name string) (runtime.ExitStatus, error) {
	const op = "wait for container"
	c, err := e.own(ctx, name)
	if err != nil {
		return runtime.ExitStatus{}, fail(ctx, op, name, err)
	}
	status, err := e.ended(ctx, c.ID)
	return status, fail(ctx, op, name, err)
}

// ended returns when a container's process has, and how.
func (e *engine) ended(ctx context.Context, id string) (runtime.ExitStatus, error) {
	code, err := e.wait(ctx, id, container.WaitConditionNotRunning)
	if err != nil {
		return runtime.ExitStatus{}, err
	}
	status := runtime.ExitStatus{Code: code}
	if res, err := e.cli.ContainerInspect(ctx, id, client.ContainerInspectOptions{}); err == nil && res.Container.State != nil {
		status.OOMKilled = res.Container.State.OOMKilled
	}
	return status, nil
}

func (e *engine) wait(ctx context.Context, id string, until container.WaitCondition) (int, error) {
	res := e.cli.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: until})
	select {
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	case err := <-res.Error:
		return 0, err
	case w := <-res.Result:
		if w.Error != nil && w.Error.Message != "" {
			return 0, errors.New(w.Error.Message)
		}
		return int(w.StatusCode), nil
	}
}

// Stop ends the container's process, by its stop signal first.
func (e *engine) Stop(ctx context.Context, name string, grace time.Duration) error {
	const op = "stop container"
	c, err := e.own(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fail(ctx, op, name, err)
	}
	if grace <= 0 {
		_, err = e.cli.ContainerKill(ctx, c.ID, client.ContainerKillOptions{Signal: "SIGKILL"})
		if err == nil {
			_, err = e.wait(ctx, c.ID, container.WaitConditionNotRunning)
		}
		if errdefs.IsConflict(err) || errdefs.IsNotFound(err) {
			err = nil // it does not run
		}
		return fail(ctx, op, name, err)
	}
	seconds := int(math.Ceil(grace.Seconds()))
	_, err = e.cli.ContainerStop(ctx, c.ID, client.ContainerStopOptions{Timeout: &seconds})
	if errdefs.IsNotFound(err) {
		err = nil
	}
	return fail(ctx, op, name, err)
}

// Kill sends a signal to the container's process.
func (e *engine) Kill(ctx context.Context, name, signal string) error {
	const op = "kill container"
	c, err := e.own(ctx, name)
	if err != nil {
		return fail(ctx, op, name, err)
	}
	_, err = e.cli.ContainerKill(ctx, c.ID, client.ContainerKillOptions{Signal: signal})
	err = asKind(err, errdefs.IsConflict, errdefs.ErrFailedPrecondition)
	return fail(ctx, op, name, rekind(err, errdefs.ErrInvalidArgument, "invalid signal"))
}

// RemoveContainer removes a container with its anonymous volumes.
func (e *engine) RemoveContainer(ctx context.Context, name string) error {
	const op = "remove container"
	c, err := e.own(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fail(ctx, op, name, err)
	}
	return fail(ctx, op, name, e.forceRemove(ctx, c.ID, true))
}

// forceRemove removes a container by ID and returns when its name is free.
func (e *engine) forceRemove(ctx context.Context, id string, volumes bool) error {
	_, err := e.cli.ContainerRemove(ctx, id, client.ContainerRemoveOptions{Force: true, RemoveVolumes: volumes})
	switch {
	case err == nil || errdefs.IsNotFound(err):
		return nil
	case errdefs.IsConflict(err) && containsAny(err, "already in progress"):
		// It removes itself just now. The daemon answers "removed" too early for
		// one that it no longer knows, which is just as well.
		if _, err := e.wait(ctx, id, container.WaitConditionRemoved); err != nil && !errdefs.IsNotFound(err) {
			return err
		}
		return e.gone(ctx, id)
	}
	return err
}

// gone waits until the daemon knows the container no more. There is no event
// between the end of a removal and the release of the name.
func (e *engine) gone(ctx context.Context, id string) error {
	for delay := 5 * time.Millisecond; ; delay = min(2*delay, 200*time.Millisecond) {
		_, err := e.cli.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if errdefs.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := pause(ctx, delay); err != nil {
			return fmt.Errorf("wait for its removal: %w", err)
		}
	}
}
