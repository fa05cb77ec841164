package docker

import (
	"context"
	"slices"

	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

// Inventory lists everything on the engine, and the firewall tables that seal
// internal networks if they are this process's to make.
func (e *engine) Inventory(ctx context.Context) (runtime.Inventory, error) {
	const op = "list everything"
	containers, err := e.cli.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		return nil, fail(ctx, op, "containers", err)
	}
	networks, err := e.networks(ctx)
	if err != nil {
		return nil, fail(ctx, op, "networks", err)
	}
	images, err := e.cli.ImageList(ctx, client.ImageListOptions{All: true})
	if err != nil {
		return nil, fail(ctx, op, "images", err)
	}
	volumes, err := e.cli.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		return nil, fail(ctx, op, "volumes", err)
	}
	seals, err := e.seal.Seals()
	if err != nil {
		return nil, fail(ctx, op, "seals", err)
	}
	inv := runtime.Inventory{"containers": {}, "networks": {}, "images": {}, "volumes": {}, "firewall": seals}
	for _, c := range containers.Items {
		inv["containers"] = append(inv["containers"], c.ID+" "+containerName(c.Names, ""))
	}
	for _, n := range networks {
		inv["networks"] = append(inv["networks"], n.ID+" "+n.Name)
	}
	for _, i := range images.Items {
		tags := realTags(i.RepoTags)
		if len(tags) == 0 {
			inv["images"] = append(inv["images"], i.ID)
		}
		for _, t := range tags {
			inv["images"] = append(inv["images"], i.ID+" "+t)
		}
	}
	for _, v := range volumes.Items {
		inv["volumes"] = append(inv["volumes"], v.Name)
	}
	for _, list := range inv {
		slices.Sort(list)
	}
	return inv, nil
}
