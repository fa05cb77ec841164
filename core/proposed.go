package core

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
)

// stepProposed builds an image of a Dockerfile that an agent has proposed.
const stepProposed = "build the proposed image"

// proposedMark ends the repository of images that are built of proposals, and ownMark that of
// the operator's part of them, so that nothing else takes them for its own.
const (
	proposedMark = "-proposed"
	ownMark      = "-own"
)

// proposed is how an image is built of a proposal instead: the same context, arguments and stage.
func (b Build) proposed() Build {
	b.Repository += proposedMark
	b.NoCache = false
	return b
}

// own is how the operator's part of a proposal is built.
func (b Build) own() Build {
	b.Repository += ownMark
	b.NoCache, b.Target = false, ""
	return b
}

// buildProposed builds a Dockerfile that an agent has proposed in place of another, unless it
// was built already, and returns its image. The text is not trusted: what is built is its
// canonical form (see [change.CanonicalDockerfile]), without a network for the steps that are
// not the operator's (see [change.Apart]), and it is nobody else's image. Own is the
// operator's Dockerfile now.
func buildProposed(ctx context.Context, rt runtime.Runtime, image Image, before, after, own string, r reporter, step string) (runtime.Image, error) {
	var none runtime.Image
	if image.Build == nil {
		return none, Errorf(KindInput, "the image of the bottle is not built from a Dockerfile")
	}
	text, err := change.CanonicalDockerfile(before, after)
	if err != nil {
		return none, withKind(KindInput, err)
	}
	b := image.Build.proposed()
	if msg := unusable(b.Context, wantDir); msg != "" {
		return none, Errorf(KindInput, "the build context is not here: %s: approve and restart on the machine that launched the bottle", msg)
	}
	dir, err := os.MkdirTemp("", "bottle-build-*")
	if err != nil {
		return none, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // a directory of our own
	real, base := b.Dockerfile, TextDigest(own)
	b.Dockerfile = filepath.Join(dir, "Dockerfile")
	if err := os.WriteFile(b.Dockerfile, []byte(text), 0o600); err != nil {
		return none, err
	}
	// A Dockerfile's own list of what is left out goes on to hold.
	const ignore = ".dockerignore"
	if list, err := os.ReadFile(real + ignore); err == nil {
		if err := os.WriteFile(b.Dockerfile+ignore, list, 0o600); err != nil {
			return none, err
		}
	} else if !os.IsNotExist(err) {
		return none, withKind(KindInput, err)
	}
	digest, err := contentDigest(ctx, b)
	if err != nil {
		return none, withKind(KindInput, err)
	}
	digest = TextDigest(digest + " " + base)
	tag := b.Repository + ":" + digest[:32]
	got, err := rt.InspectImage(ctx, tag)
	if err == nil && got.Labels[LabelContent] == digest {
		r.result(step, "as it was approved")
		return got, nil
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return none, err
	}
	stages, rest := change.Apart(own, text)
	var images, contents []string
	for _, stage := range stages {
		tag, content, err := buildOwn(ctx, rt, image.Build.own(), b.Dockerfile, stage, r, step)
		if err != nil {
			return none, err
		}
		images, contents = append(images, tag), append(contents, content)
	}
	if err := os.WriteFile(b.Dockerfile, []byte(rest(images)), 0o600); err != nil {
		return none, err
	}
	r.note(step, "RUN steps that are not yours have no network: what they need comes from the build context, or is fetched by the agent within its limits")
	out := r.lines(step)
	source := b
	source.Dockerfile = real
	got, err = rt.BuildImage(ctx, runtime.BuildSpec{
		ContextDir: b.Context, Dockerfile: b.Dockerfile, Tags: []string{tag}, Args: b.Args, Target: b.Target, NoNetwork: true,
		Labels:   map[string]string{LabelRole: RoleImage, LabelContent: digest, LabelSource: sourceDigest(source), LabelDockerfile: TextDigest(after), LabelBase: base},
		Progress: out,
	})
	_ = out.Close()
	if err != nil {
		return none, withKind(KindImage, err)
	}
	r.result(step, "built as "+tag)
	dropOldImages(ctx, rt, source, []string{digest}, r, step)
	dropOldImages(ctx, rt, image.Build.own(), contents, r, step)
	return got, nil
}

// buildOwn builds what of a proposal is the operator's, as the operator's Dockerfile is built, and
// returns its tag and the digest of its content. What that has built already comes from the
// engine's cache. File is where the text may be put.
func buildOwn(ctx context.Context, rt runtime.Runtime, b Build, file, text string, r reporter, step string) (tag, digest string, err error) {
	source := sourceDigest(b)
	b.Dockerfile = file
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", "", err
	}
	if digest, err = contentDigest(ctx, b); err != nil {
		return "", "", withKind(KindInput, err)
	}
	tag = b.Repository + ":" + digest[:32]
	got, err := rt.InspectImage(ctx, tag)
	if err == nil && got.Labels[LabelContent] == digest || err != nil && !errdefs.IsNotFound(err) {
		return tag, digest, err
	}
	out := r.lines(step)
	_, err = rt.BuildImage(ctx, runtime.BuildSpec{
		ContextDir: b.Context, Dockerfile: file, Tags: []string{tag}, Args: b.Args,
		Labels:   map[string]string{LabelRole: RoleImage, LabelContent: digest, LabelSource: source},
		Progress: out,
	})
	_ = out.Close()
	return tag, digest, withKind(KindImage, err)
}

// applyDockerfile builds what a policy says the image is built from, if that changes.
func (b *Bottle) applyDockerfile(ctx context.Context, now *config.Supervise, next config.Policy) error {
	if next.Dockerfile == now.Policy.Dockerfile {
		return nil
	}
	notes, err := b.notes(ctx)
	if err != nil {
		return err
	}
	own, err := readDockerfile(notes.Plan.Image)
	if err != nil {
		return fmt.Errorf("approve and restart on the machine that launched the bottle: %w", err)
	}
	if _, err := buildProposed(ctx, b.rt, notes.Plan.Image, now.Policy.Dockerfile, next.Dockerfile, own, b.report, stepProposed); err != nil {
		return fmt.Errorf("building the proposed image: %w", err)
	}
	return nil
}

// chooseImage takes the image that was approved meanwhile, or makes the plan's: an operator
// who changes the Dockerfile gets that.
func (r *restart) chooseImage(ctx context.Context) error {
	approved, before, err := r.approvedDockerfile(ctx)
	if err != nil {
		return err
	}
	if approved == "" {
		return r.prepareImage(ctx)
	}
	r.image, err = buildProposed(ctx, r.rt, r.plan.Image, before, approved, before, r.report, stepImage)
	if err != nil {
		err = fmt.Errorf("the Dockerfile that was approved cannot be built any more: %w", err)
	}
	return err
}

// approvedDockerfile is the text that was approved since the launch, with the one that is on
// the operator's disk; empty if there is none, or the operator has made it his own since.
func (r *restart) approvedDockerfile(ctx context.Context) (approved, before string, err error) {
	if r.plan.Supervise == nil || r.plan.Image.Build == nil {
		return "", "", nil
	}
	live, err := r.bottle.Policy(ctx)
	if err != nil || live.Supervise == nil {
		return "", "", err
	}
	text := live.Supervise.Policy.Dockerfile
	if text == "" {
		return "", "", nil
	}
	own, err := readDockerfile(r.plan.Image)
	switch {
	case err != nil || own == text:
		return "", "", err
	}
	base := r.notes.Dockerfile
	if TextDigest(text) != base {
		images, err := r.rt.ListImages(ctx, runtime.Filter{Labels: map[string]string{
			LabelSource: sourceDigest(r.plan.Image.Build.proposed()), LabelDockerfile: TextDigest(text),
		}})
		if err != nil {
			return "", "", err
		}
		slices.SortFunc(images, func(a, b runtime.Image) int { return b.Created.Compare(a.Created) })
		if len(images) > 0 {
			base = images[0].Labels[LabelBase]
		}
		if TextDigest(own) == base {
			return text, own, nil
		}
		r.report.note(stepImage, r.plan.Image.Build.Dockerfile+" was changed after the agent's was approved: yours is built")
	}
	// The agent proposes against it from now on.
	renewed := *live.Supervise
	renewed.Policy.Dockerfile = own
	r.renewed = &renewed
	return "", "", nil
}
