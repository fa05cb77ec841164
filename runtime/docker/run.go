package docker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

// Run creates, connects, fills and starts a container, or leaves nothing.
func (e *engine) Run(ctx context.Context, spec runtime.ContainerSpec) (runtime.Container, error) {
	c, err := e.run(ctx, spec)
	return c, fail(ctx, "run container", spec.Name, err)
}

func (e *engine) run(ctx context.Context, spec runtime.ContainerSpec) (runtime.Container, error) {
	var none runtime.Container
	if err := e.checkLimits(ctx, spec.Limits); err != nil {
		return none, err
	}
	networks, isolated, err := e.attachments(ctx, spec.Networks)
	if err != nil {
		return none, err
	}
	config, host := containerConfig(spec), hostConfig(spec, isolated)

	var volume *fileVolume
	if spec.ReadOnly && len(spec.Files) > 0 {
		if volume, err = e.fillVolume(ctx, spec); err != nil {
			return none, err
		}
		volume.mountIn(host)
	}
	id, err := e.create(ctx, spec, config, host, networks)
	talk := &conversation{e: e, id: id, with: spec.Handshake}
	// After the container, if that has to go: its process is not to see an end.
	defer talk.close()
	if err == nil && volume != nil {
		// From here on the volume is the container's, and goes with it.
		err = volume.release(ctx)
	}
	if err == nil {
		err = e.prepareAndStart(ctx, id, spec, networks, talk)
	}
	if err != nil {
		if id != "" {
			err = errors.Join(err, e.discardContainer(ctx, id))
		}
		if volume != nil {
			err = errors.Join(err, volume.discard(ctx))
		}
		return none, err
	}
	return e.started(ctx, id, spec)
}

// create makes the container, attached to the first network, or all where the API
// can.
func (e *engine) create(ctx context.Context, spec runtime.ContainerSpec, config *container.Config, host *container.HostConfig, networks []attachment) (string, error) {
	endpoints := map[string]*network.EndpointSettings{}
	for i, n := range networks {
		if i == 0 {
			host.NetworkMode = container.NetworkMode(n.Name)
		}
		if i == 0 || e.api("1.44") {
			endpoints[n.Name] = endpointConfig(n.NetworkAttachment)
		}
	}
	res, err := detached(ctx, func(ctx context.Context) (client.ContainerCreateResult, error) {
		return e.cli.ContainerCreate(ctx, client.ContainerCreateOptions{
			Name: spec.Name, Config: config, HostConfig: host,
			NetworkingConfig: &network.NetworkingConfig{EndpointsConfig: endpoints},
		})
	}, func(ctx context.Context, res client.ContainerCreateResult) error {
		return e.discardContainer(ctx, res.ID)
	})
	if err != nil {
		err = asKind(err, errdefs.IsConflict, errdefs.ErrAlreadyExists)
		if spec.OCIRuntime == gVisor && containsAny(err, unknownRuntime...) {
			return "", runtime.NotImplemented(runtime.FeatureGVisor, noGVisor)
		}
		return "", rekind(err, errdefs.ErrInvalidArgument, unknownRuntime...)
	}
	for _, w := range res.Warnings {
		e.log.Debug("docker: container created", "container", spec.Name, "warning", w)
	}
	return res.ID, nil
}

// unknownRuntime is how versions of the daemon say it.
var unknownRuntime = []string{"unknown or invalid runtime name", "unknown runtime specified"}

func (e *engine) prepareAndStart(ctx context.Context, id string, spec runtime.ContainerSpec, networks []attachment, talk *conversation) error {
	if !e.api("1.44") {
		for i := 1; i < len(networks); i++ {
			_, err := e.cli.NetworkConnect(ctx, networks[i].ID, client.NetworkConnectOptions{
				Container: id, EndpointConfig: endpointConfig(networks[i].NetworkAttachment),
			})
			if err != nil {
				return fmt.Errorf("attach to network %s: %w", networks[i].Name, err)
			}
		}
	}
	if len(spec.Files) > 0 && !spec.ReadOnly {
		if err := e.putFiles(ctx, id, "/", spec.Files, func(i int) string { return spec.Files[i].Path }); err != nil {
			return err
		}
	}
	if !spec.NoInit {
		// The engine's init starts all right without the command, and fails later.
		if err := e.checkCommand(ctx, id, spec.Files); err != nil {
			return err
		}
	}
	if err := talk.attach(ctx); err != nil {
		return err
	}
	if _, err := e.cli.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return startError(err)
	}
	return talk.have(ctx)
}

// startError gives what the OCI runtime said a kind: the daemon gives most of it
// the same.
func startError(err error) error {
	switch {
	case containsAny(err, "executable file not found", "no such file or directory", "stat "):
		return runtime.Errorf(errdefs.ErrNotFound, "%s", message(err))
	case containsAny(err, "permission denied"):
		return runtime.Errorf(errdefs.ErrPermissionDenied, "%s", message(err))
	case containsAny(err, "unable to find user", "unable to find group", "no matching entries in passwd"):
		return runtime.Errorf(errdefs.ErrNotFound, "%s", message(err))
	case containsAny(err, "address already in use", "is already allocated", "address is already in use"):
		return runtime.Errorf(errdefs.ErrFailedPrecondition, "%s", message(err))
	case containsAny(err, "no configured subnet contains", "invalid address"):
		return runtime.Errorf(errdefs.ErrInvalidArgument, "%s", message(err))
	}
	return err
}

// attachment is an attachment to a network that was found.
type attachment struct {
	network.Summary
	runtime.NetworkAttachment
}

// attachments finds the networks, makes sure of their seals, and reports whether
// all of them are internal.
func (e *engine) attachments(ctx context.Context, wanted []runtime.NetworkAttachment) ([]attachment, bool, error) {
	if len(wanted) == 0 {
		return nil, true, nil
	}
	all, err := e.networks(ctx)
	if err != nil {
		return nil, false, err
	}
	isolated := true
	var found []attachment
	for _, a := range wanted {
		n, err := findNetwork(all, a.Network)
		if err != nil {
			return nil, false, fmt.Errorf("network %q: %w", a.Network, err)
		}
		if !managed(n.Labels) {
			return nil, false, fmt.Errorf("network %q: %w", a.Network, errForeign("network"))
		}
		// Attachments go by name.
		if same := slices.DeleteFunc(slices.Clone(all), func(o network.Summary) bool { return o.Name != n.Name }); len(same) > 1 {
			return nil, false, runtime.Errorf(errdefs.ErrFailedPrecondition, "the engine has %d networks called %q", len(same), n.Name)
		}
		if a.Address.IsValid() && !toNetwork(n.Network).Subnet.Contains(a.Address) {
			return nil, false, runtime.Errorf(errdefs.ErrInvalidArgument, "address %s is not in network %q, which is %s", a.Address, a.Network, toNetwork(n.Network).Subnet)
		}
		if err := e.sealed(n); err != nil {
			return nil, false, err
		}
		isolated = isolated && n.Internal
		found = append(found, attachment{n, a})
	}
	return found, isolated, nil
}

// checkLimits refuses a limit that the daemon would drop with a warning.
func (e *engine) checkLimits(ctx context.Context, l runtime.Limits) error {
	if l.Memory == 0 && l.PIDs == 0 && l.CPUs == 0 {
		return nil
	}
	missing, err := e.lacks(ctx)
	if err != nil {
		return err
	}
	for _, limit := range []struct {
		asked   bool
		feature runtime.Feature
	}{
		{l.Memory > 0, runtime.FeatureMemoryLimit},
		{l.PIDs > 0, runtime.FeaturePIDsLimit},
		{l.CPUs > 0, runtime.FeatureCPULimit},
	} {
		if why, lacks := missing[limit.feature]; limit.asked && lacks {
			return runtime.NotImplemented(limit.feature, why)
		}
	}
	return nil
}

// lacks are the features that the daemon does not have, with the reasons, as it was when it
// was first asked.
func (e *engine) lacks(ctx context.Context) (map[runtime.Feature]string, error) {
	e.missingLock.Lock()
	defer e.missingLock.Unlock()
	if e.missing == nil {
		info, err := e.Info(ctx)
		if err != nil {
			return nil, err
		}
		e.missing = info.Missing
	}
	return e.missing, nil
}

// started describes a container that was just started. One that removes itself
// may be gone.
func (e *engine) started(ctx context.Context, id string, spec runtime.ContainerSpec) (runtime.Container, error) {
	res, err := e.cli.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	switch {
	case err == nil:
		return toContainer(res.Container), nil
	case spec.AutoRemove && errdefs.IsNotFound(err):
		return runtime.Container{ID: id, Name: spec.Name, Image: spec.Image, Labels: withManaged(spec.Labels), State: runtime.StateExited}, nil
	}
	return runtime.Container{}, errors.Join(err, e.discardContainer(ctx, id))
}

// discardContainer removes a container whose Run did not succeed.
func (e *engine) discardContainer(ctx context.Context, id string) error {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	if err := e.forceRemove(ctx, id, true); err != nil {
		return fmt.Errorf("remove the incomplete container: %w", err)
	}
	return nil
}
