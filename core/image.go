package core

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-multierror"

	"github.com/bottle-run/bottle/runtime"
)

// keepImages is how long an image stays after one that was built later from the
// same source, for launches that are about to use it.
const keepImages = time.Hour

// EnsureImage makes sure that the engine has the image: it is pulled or built if
// it is not there. Its errors are of KindImage, unless the engine itself failed.
func EnsureImage(ctx context.Context, rt runtime.Runtime, image Image, observe Observer) (runtime.Image, error) {
	return ensureImage(ctx, rt, image, newReporter(observe), stepImage)
}

func ensureImage(ctx context.Context, rt runtime.Runtime, image Image, r reporter, step string) (runtime.Image, error) {
	got, err := haveImage(ctx, rt, image, r, step)
	if err == nil || ctx.Err() != nil {
		return got, err
	}
	// What does not answer may be the engine, or a registry.
	if _, down := rt.Info(ctx); down != nil && errdefs.IsUnavailable(err) {
		return got, withKind(KindEngine, err)
	}
	return got, withKind(KindImage, err)
}

func haveImage(ctx context.Context, rt runtime.Runtime, image Image, r reporter, step string) (runtime.Image, error) {
	if image.Build != nil {
		return buildImage(ctx, rt, *image.Build, r, step)
	}
	got, err := rt.InspectImage(ctx, image.Reference)
	if err == nil {
		r.result(step, "it is there")
		return got, nil
	}
	if !errdefs.IsNotFound(err) {
		return runtime.Image{}, err
	}
	out := r.lines(step)
	got, err = rt.PullImage(ctx, image.Reference, runtime.PullOptions{Progress: out})
	_ = out.Close()
	r.result(step, "pulled")
	return got, err
}

func buildImage(ctx context.Context, rt runtime.Runtime, b Build, r reporter, step string) (runtime.Image, error) {
	digest, err := contentDigest(ctx, b)
	if err != nil {
		return runtime.Image{}, withKind(KindInput, err)
	}
	tag := b.Repository + ":" + digest[:32]
	if !b.NoCache {
		got, err := rt.InspectImage(ctx, tag)
		if err == nil && got.Labels[LabelContent] == digest {
			r.result(step, "nothing has changed")
			return got, nil
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return runtime.Image{}, err
		}
	}
	out := r.lines(step)
	got, err := rt.BuildImage(ctx, runtime.BuildSpec{
		ContextDir: b.Context, Dockerfile: b.Dockerfile, Tags: []string{tag}, Args: b.Args, Target: b.Target,
		Labels:  map[string]string{LabelRole: RoleImage, LabelContent: digest, LabelSource: sourceDigest(b)},
		NoCache: b.NoCache, Progress: out,
	})
	_ = out.Close()
	if err != nil {
		return runtime.Image{}, err
	}
	r.result(step, "built as "+tag)
	dropOldImages(ctx, rt, b, []string{digest}, r, step)
	return got, nil
}

// sourceDigest is the same for images that follow each other.
func sourceDigest(b Build) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{b.Repository, b.Dockerfile, b.Context, b.Target}, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// dropOldImages removes images built from the same source before, but for those of current
// content. That it may fail changes nothing for the launch: what is in use or cannot be
// removed stays.
func dropOldImages(ctx context.Context, rt runtime.Runtime, b Build, current []string, r reporter, step string) {
	images, err := rt.ListImages(ctx, runtime.Filter{Labels: map[string]string{LabelSource: sourceDigest(b)}})
	if err != nil {
		r.note(step, fmt.Sprintf("older images could not be listed: %v", err))
		return
	}
	for _, old := range images {
		if slices.Contains(current, old.Labels[LabelContent]) || !isOlder(old.Created, keepImages) {
			continue
		}
		for _, tag := range old.Tags {
			if err := rt.RemoveImage(ctx, tag); err != nil && !errdefs.IsFailedPrecondition(err) {
				r.note(step, fmt.Sprintf("an older image stays: %v", err))
			}
		}
	}
}

// isOlder reports whether an image was made longer ago. One that bears no date, or that of a
// reproducible build, may be from just now.
func isOlder(created time.Time, than time.Duration) bool {
	return created.Unix() > 0 && time.Since(created) > than
}

// RemoveImages removes what was built, now or before, for the given images, as far
// as no container uses it, and returns the references that are gone. Images by
// reference are not bottle's and stay. It returns all errors together, of
// KindLeftover.
func RemoveImages(ctx context.Context, rt runtime.Runtime, planned []Image) (removed []string, err error) {
	var built []runtime.Image
	for _, p := range planned {
		if p.Build == nil {
			continue
		}
		for _, b := range []Build{*p.Build, p.Build.proposed(), p.Build.own()} {
			images, err := rt.ListImages(ctx, runtime.Filter{Labels: map[string]string{LabelSource: sourceDigest(b)}})
			if err != nil {
				return nil, err
			}
			built = append(built, images...)
		}
	}
	// Newest first: an image may be the base of a later one.
	slices.SortFunc(built, func(a, b runtime.Image) int { return b.Created.Compare(a.Created) })
	var errs *multierror.Error
	for _, image := range built {
		refs := image.Tags
		if len(refs) == 0 {
			refs = []string{image.ID}
		}
		for _, ref := range refs {
			switch err := rt.RemoveImage(ctx, ref); {
			case err == nil:
				removed = append(removed, ref)
			case !errdefs.IsFailedPrecondition(err):
				errs = multierror.Append(errs, err)
			}
		}
	}
	return removed, withKind(KindLeftover, errs.ErrorOrNil())
}
