package docker

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

// InspectImage describes an image, whoever made it.
func (e *engine) InspectImage(ctx context.Context, ref string) (runtime.Image, error) {
	image, err := e.image(ctx, ref)
	return image, fail(ctx, "inspect image", ref, err)
}

func (e *engine) image(ctx context.Context, ref string) (runtime.Image, error) {
	res, err := e.cli.ImageInspect(ctx, ref)
	if err != nil {
		return runtime.Image{}, err
	}
	out := runtime.Image{ID: res.ID, Tags: realTags(res.RepoTags), Size: res.Size}
	out.Created, _ = time.Parse(time.RFC3339Nano, res.Created) // images without a date have none
	out.Config.Architecture = res.Architecture
	if c := res.Config; c != nil {
		out.Labels = maps.Clone(c.Labels)
		out.Config = runtime.ImageConfig{
			Entrypoint: c.Entrypoint, Cmd: c.Cmd, Env: c.Env, User: c.User, WorkDir: c.WorkingDir,
			StopSignal: c.StopSignal, Architecture: res.Architecture,
		}
	}
	return out, nil
}

// realTags leaves out what stands for the absence of a tag.
func realTags(tags []string) []string {
	return slices.DeleteFunc(slices.Clone(tags), func(t string) bool { return strings.Contains(t, "<none>") })
}

// ListImages lists the images that carry bottle's label.
func (e *engine) ListImages(ctx context.Context, filter runtime.Filter) ([]runtime.Image, error) {
	const op = "list images"
	res, err := e.cli.ImageList(ctx, client.ImageListOptions{Filters: labelFilter(filter)})
	if err != nil {
		return nil, fail(ctx, op, "", err)
	}
	var list []runtime.Image
	for _, s := range res.Items {
		if !filter.Match(s.Labels) {
			continue
		}
		image, err := e.image(ctx, s.ID)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fail(ctx, op, s.ID, err)
		}
		list = append(list, image)
	}
	slices.SortFunc(list, func(a, b runtime.Image) int {
		return cmpOr(a.Created.Compare(b.Created), strings.Compare(a.ID, b.ID))
	})
	return list, nil
}

// RemoveImage removes a reference, and the image with its last.
func (e *engine) RemoveImage(ctx context.Context, ref string) error {
	return fail(ctx, "remove image", ref, e.removeImage(ctx, ref))
}

func (e *engine) removeImage(ctx context.Context, ref string) error {
	image, err := e.image(ctx, ref)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !managed(image.Labels) {
		return errForeign("image")
	}
	options := client.ImageRemoveOptions{PruneChildren: true}
	if strings.Contains(ref, "@") && len(image.Tags) > 0 {
		// A digest beside a tag is not the last reference, but the daemon takes the
		// two for one, and would want the image unused.
		options.Force = true
	} else if user, err := e.userOf(ctx, image); err != nil || user != "" {
		if err != nil {
			return err
		}
		return runtime.Errorf(errdefs.ErrFailedPrecondition, "container %s uses it", user)
	}
	_, err = e.cli.ImageRemove(ctx, ref, options)
	if errdefs.IsNotFound(err) {
		return nil
	}
	return asKind(err, errdefs.IsConflict, errdefs.ErrFailedPrecondition)
}

// userOf names a container that was made of an image's last reference, or is
// empty. The daemon would take the name from below it in some cases.
func (e *engine) userOf(ctx context.Context, image runtime.Image) (string, error) {
	if len(image.Tags) > 1 {
		return "", nil
	}
	users, err := e.cli.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: make(client.Filters).Add("ancestor", image.ID)})
	if err != nil {
		return "", err
	}
	for _, c := range users.Items {
		if c.ImageID == image.ID {
			return containerName(c.Names, c.ID), nil
		}
	}
	return "", nil
}
