package docker

import (
	"context"
	"fmt"
	"net"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

const opSweep = "remove what dead processes left"

// Sweep implements [runtime.Runtime].
func (e *engine) Sweep(ctx context.Context) error {
	if err := e.sweepSeals(ctx); err != nil {
		return fail(ctx, opSweep, "seals", err)
	}
	return e.sweepVolumes(ctx)
}

// sweepSeals removes the seals of networks that are gone: a process that was killed
// between the removal of a network and that of its seal leaves one.
func (e *engine) sweepSeals(ctx context.Context) error {
	if !e.seal.Local() {
		return nil
	}
	// Before the networks: a network is there before its seal.
	seals, err := e.seal.Seals()
	if err != nil {
		return err
	}
	// One with a device is in use, if by another daemon.
	seals = slices.DeleteFunc(seals, func(bridge string) bool {
		_, err := net.InterfaceByName(bridge)
		return err == nil
	})
	if len(seals) == 0 {
		return nil // as after most teardowns: the daemon is not asked
	}
	all, err := e.networks(ctx)
	if err != nil {
		return err
	}
	for _, bridge := range seals {
		if slices.ContainsFunc(all, func(n network.Summary) bool { return n.Options[optBridgeName] == bridge }) {
			continue
		}
		if err := e.seal.Unseal(bridge); err != nil {
			return fmt.Errorf("of bridge %s: %w", bridge, err)
		}
	}
	return nil
}

// sweepVolumes removes volumes of files that no container has: a daemon that was making one when
// the process that asked for it died may leave its volume.
func (e *engine) sweepVolumes(ctx context.Context) error {
	list, err := e.cli.VolumeList(ctx, client.VolumeListOptions{
		Filters: make(client.Filters).Add("label", runtime.LabelManaged+"=true").Add("dangling", "true"),
	})
	if err != nil {
		return fail(ctx, opSweep, "volumes", err)
	}
	for _, v := range list.Items {
		_, err := e.cli.VolumeRemove(ctx, v.Name, client.VolumeRemoveOptions{})
		// One in use is some container's after all.
		if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
			return fail(ctx, opSweep, v.Name, err)
		}
	}
	return nil
}
