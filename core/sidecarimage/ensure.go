package sidecarimage

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// Ensure makes sure that the engine has the image and returns what it has, and whether it
// had to be loaded. Images of other programs that no container uses are dropped then; note
// says what could not be.
func Ensure(ctx context.Context, rt runtime.Runtime, image *Image) (got runtime.Image, loaded bool, note string, err error) {
	got, err = rt.InspectImage(ctx, image.tag)
	if err == nil || !errdefs.IsNotFound(err) {
		return got, false, "", err
	}
	archive, err := image.Archive()
	if err != nil {
		return got, false, "", err
	}
	_, err = rt.LoadImage(ctx, archive)
	err = errors.Join(err, archive.Close())
	if err != nil {
		return got, false, "", fmt.Errorf("loading the sidecar image: %w", err)
	}
	if got, err = rt.InspectImage(ctx, image.tag); err != nil {
		return got, false, "", fmt.Errorf("loading the sidecar image: %w", err)
	}
	return got, true, dropOthers(ctx, rt, image.tag), nil
}

// dropOthers removes the images of other programs. Those that run stay; who is about to
// run one loads it again.
func dropOthers(ctx context.Context, rt runtime.Runtime, current string) (note string) {
	images, err := rt.ListImages(ctx, runtime.Filter{Labels: map[string]string{LabelRole: RoleImage}})
	if err != nil {
		return fmt.Sprintf("older images could not be listed: %v", err)
	}
	for _, old := range images {
		if slices.Contains(old.Tags, current) {
			continue
		}
		for _, tag := range old.Tags {
			if err := rt.RemoveImage(ctx, tag); err != nil && !errdefs.IsFailedPrecondition(err) {
				note = fmt.Sprintf("an older image stays: %v", err)
			}
		}
	}
	return note
}
