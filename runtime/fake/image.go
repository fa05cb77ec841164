package fake

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/runtime"
)

type image struct {
	runtime.Image
	files *tree
}

// AddImage puts an image on the engine as if it had been pulled: labels are
// those in its configuration. files maps absolute paths to content; each is
// executable.
func (e *Engine) AddImage(ref string, config runtime.ImageConfig, labels, files map[string]string) runtime.Image {
	t := newTree()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		// The tree is new: the only failure is a file below a file.
		if err := t.put(name, &Node{Mode: 0o755, Content: []byte(files[name])}); err != nil {
			panic(fmt.Sprintf("fake: image %s: %v", ref, err))
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.addImage([]string{ref}, config, maps.Clone(labels), t).copy()
}

// addImage registers an image under its tags, which other images lose. The
// caller holds the lock.
func (e *Engine) addImage(tags []string, config runtime.ImageConfig, labels map[string]string, files *tree) *image {
	if config.Architecture == "" {
		config.Architecture = e.info.Arch
	}
	sum := sha256.New()
	fmt.Fprintf(sum, "%+v %v\n", config, labels)
	size := files.root.digest(sum, "/")
	id := "sha256:" + hex.EncodeToString(sum.Sum(nil))
	img := e.images[id]
	if img == nil {
		img = &image{
			Image: runtime.Image{ID: id, Labels: labels, Size: size, Created: e.now(), Config: config},
			files: files,
		}
		e.images[id] = img
	}
	for _, tag := range tags {
		e.untag(normal(tag))
		img.Tags = append(img.Tags, normal(tag))
	}
	slices.Sort(img.Tags)
	img.Tags = slices.Compact(img.Tags)
	return img
}

// untag takes a tag from the image that has it. An image without tags stays, as
// on any engine.
func (e *Engine) untag(tag string) {
	for _, img := range e.images {
		img.Tags = slices.DeleteFunc(img.Tags, func(t string) bool { return t == tag })
	}
}

// normal gives a reference its tag.
func normal(ref string) string {
	if strings.Contains(ref, "@") || strings.Contains(ref[strings.LastIndex(ref, "/")+1:], ":") {
		return ref
	}
	return ref + ":latest"
}

// image finds an image by reference or ID. The caller holds the lock.
func (e *Engine) image(ref string) *image {
	if img := e.images[ref]; img != nil {
		return img
	}
	for _, img := range e.images {
		if slices.Contains(img.Tags, normal(ref)) {
			return img
		}
	}
	return nil
}

// PullImage implements [runtime.Images]: it finds images of [Engine.AddImage]
// and no others.
func (e *Engine) PullImage(ctx context.Context, ref string, _ runtime.PullOptions) (runtime.Image, error) {
	const op = "pull image"
	if err := e.enter(ctx, "PullImage", op, ref); err != nil {
		return runtime.Image{}, err
	}
	return e.inspectImage(op, ref)
}

// InspectImage implements [runtime.Images].
func (e *Engine) InspectImage(ctx context.Context, ref string) (runtime.Image, error) {
	const op = "inspect image"
	if err := e.enter(ctx, "InspectImage", op, ref); err != nil {
		return runtime.Image{}, err
	}
	return e.inspectImage(op, ref)
}

func (e *Engine) inspectImage(op, ref string) (runtime.Image, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	img := e.image(ref)
	if img == nil {
		return runtime.Image{}, fail(op, ref, notFound("image", ref))
	}
	return img.copy(), nil
}

// ListImages implements [runtime.Images].
func (e *Engine) ListImages(ctx context.Context, filter runtime.Filter) ([]runtime.Image, error) {
	if err := e.enter(ctx, "ListImages", "list images", ""); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []runtime.Image
	for _, img := range e.images {
		if filter.Match(img.Labels) {
			list = append(list, img.copy())
		}
	}
	slices.SortFunc(list, func(a, b runtime.Image) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// RemoveImage implements [runtime.Images].
func (e *Engine) RemoveImage(ctx context.Context, ref string) error {
	const op = "remove image"
	if err := e.enter(ctx, "RemoveImage", op, ref); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	img := e.image(ref)
	switch {
	case img == nil:
		return nil
	case img.Labels[runtime.LabelManaged] != "true":
		return fail(op, ref, foreign("image", ref))
	}
	left := slices.DeleteFunc(slices.Clone(img.Tags), func(t string) bool { return t == normal(ref) })
	if ref == img.ID {
		left = nil
	}
	if len(left) == 0 {
		for _, c := range e.containers {
			if c.imageID == img.ID {
				return fail(op, ref, precondition("container %q uses it", c.spec.Name))
			}
		}
		delete(e.images, img.ID)
	}
	img.Tags = left
	return nil
}

func (i *image) copy() runtime.Image {
	c := i.Image
	c.Tags, c.Labels = slices.Clone(c.Tags), maps.Clone(c.Labels)
	c.Config.Entrypoint, c.Config.Cmd = slices.Clone(c.Config.Entrypoint), slices.Clone(c.Config.Cmd)
	c.Config.Env = slices.Clone(c.Config.Env)
	return c
}
