package podman

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/bottle-run/bottle/runtime"
)

// Inventory implements [runtime.Runtime]. Containers include those that buildah
// works in, and images those of intermediate steps.
func (e *engine) Inventory(ctx context.Context) (runtime.Inventory, error) {
	const op = "list everything"
	inv := runtime.Inventory{}
	var containers []listedContainer
	if err := e.list(ctx, call{method: http.MethodGet, path: "/containers/json", query: url.Values{
		"all": {"true"}, "external": {"true"},
	}}, &containers); err != nil {
		return nil, wrap(ctx, op, "", err)
	}
	for _, c := range containers {
		inv["containers"] = append(inv["containers"], c.ID+" "+strings.Join(c.Names, " "))
	}
	networks, err := e.allNetworks(ctx)
	if err != nil {
		return nil, wrap(ctx, op, "", err)
	}
	for _, n := range networks {
		inv["networks"] = append(inv["networks"], n.ID+" "+n.Name)
	}
	images, err := e.listImages(ctx, true)
	if err != nil {
		return nil, wrap(ctx, op, "", err)
	}
	for _, i := range images {
		if len(i.RepoTags) == 0 {
			inv["images"] = append(inv["images"], i.ID)
		}
		for _, t := range i.RepoTags {
			inv["images"] = append(inv["images"], i.ID+" "+t)
		}
	}
	var volumes []struct {
		Name string `json:"Name"`
	}
	if err := e.list(ctx, call{method: http.MethodGet, path: "/volumes/json"}, &volumes); err != nil {
		return nil, wrap(ctx, op, "", err)
	}
	for _, v := range volumes {
		inv["volumes"] = append(inv["volumes"], v.Name)
	}
	return inv, nil
}
