package conformance

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

var imageTests = []Test{
	{
		Name: "images/load-docker-archive",
		Doc:  "An archive as `docker save` writes it is loaded, plain or compressed, and its image inspected, listed and run.",
		Run:  loadDocker,
	},
	{
		Name: "images/load-oci-archive",
		Doc:  "An OCI layout in an archive is loaded, plain or compressed, and its image inspected, listed and run.",
		Run:  loadOCI,
	},
	{
		Name: "images/load-is-streamed", Kernel: true, Timeout: 5 * time.Minute,
		Doc: "An archive of 150 MB is loaded in constant memory.",
		Run: loadStreamed,
	},
	{
		Name: "images/load-garbage-is-refused",
		Doc:  "What is no image is InvalidArgument and leaves nothing: garbage, an empty archive, an archive without a manifest, half an archive, compressed garbage.",
		Run:  loadGarbage,
	},
	{
		Name: "images/inspect",
		Doc:  "An image's ID, tags, labels, size, time of creation and configuration are as it was made.",
		Run:  inspectImage,
	},
	{
		Name: "images/remove",
		Doc:  "Removing is idempotent; an image with two references loses one and stays; one in use is FailedPrecondition.",
		Run:  removeImages,
	},
	{
		Name: "images/missing-is-not-found",
		Doc:  "Inspecting a missing image is NotFound.",
		Run: func(ctx context.Context, e *Env) error {
			_, err := e.Runtime.InspectImage(ctx, e.Ref("missing"))
			return kind(err, errdefs.IsNotFound, "NotFound", "inspect an image that is not there")
		},
	},
}

// small makes an image of the probe that differs from every other one.
func (e *Env) small(config v1.Config) (v1.Image, error) {
	program, err := e.suite.program()
	if err != nil {
		return nil, err
	}
	layer, err := layerOf([]archived{
		regular(probe.Path[1:], 0o755, string(program)), regular("mark", 0o644, e.Token()),
		regular("etc/passwd", 0o644, fmt.Sprintf("root:x:0:0::/:/none\n%s:x:%d:%d::/:/none\n", probeUser, probeUID, probeGID)),
	})
	if err != nil {
		return nil, err
	}
	if config.Entrypoint == nil {
		config.Entrypoint = []string{probe.Path}
	}
	return imageOf(e.suite.arch(), config, layer)
}

func compressed(b []byte) []byte {
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(b) // into memory
	_ = w.Close()
	return z.Bytes()
}

// loads loads an archive of one image and checks that the image is there.
func (e *Env) loads(ctx context.Context, archive []byte, ref string) error {
	images, err := e.Runtime.LoadImage(ctx, bytes.NewReader(archive))
	if err != nil {
		return err
	}
	if len(images) != 1 || !hasTag(images[0], ref) {
		return failed("expected the one image %s, got %+v", ref, images)
	}
	seen, err := e.Runtime.InspectImage(ctx, ref)
	if err != nil {
		return err
	}
	if seen.ID != images[0].ID {
		return failed("expected image ID %s, got %s", images[0].ID, seen.ID)
	}
	listed, err := e.Runtime.ListImages(ctx, runtime.Filter{Labels: e.managed()})
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(listed, func(i runtime.Image) bool { return i.ID == seen.ID && hasTag(i, ref) }) {
		return failed("expected image %s in the list by label, got %+v", ref, listed)
	}
	out, err := e.Exited(ctx, runtime.ContainerSpec{Image: ref, Command: []string{"echo", "loaded"}})
	if err != nil {
		return err
	}
	if out.Stdout != "loaded\n" {
		return failed("expected the loaded image to run, got %+v", out)
	}
	return nil
}

func hasTag(i runtime.Image, ref string) bool {
	return slices.ContainsFunc(i.Tags, func(t string) bool { return t == ref || strings.TrimPrefix(t, "docker.io/") == ref })
}

func loadDocker(ctx context.Context, e *Env) error {
	for _, pack := range []func([]byte) []byte{bytes.Clone, compressed} {
		ref := e.Ref("docker-archive")
		img, err := e.small(v1.Config{Labels: e.managed()})
		if err != nil {
			return err
		}
		r, err := dockerArchive(ref, img)
		if err != nil {
			return err
		}
		b, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		e.removeImage(ref)
		if err := e.loads(ctx, pack(b), ref); err != nil {
			return err
		}
	}
	return nil
}

// ociArchive gives the image as an OCI layout in an archive.
func (e *Env) ociArchive(ref string, img v1.Image) ([]byte, error) {
	dir, err := e.Dir()
	if err != nil {
		return nil, err
	}
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		return nil, err
	}
	// Both names by which engines know the reference: the specification's holds a
	// tag or a whole reference.
	names := map[string]string{"org.opencontainers.image.ref.name": ref, "io.containerd.image.name": ref}
	if err := l.ReplaceImage(img, match.Name(ref), layout.WithAnnotations(names)); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := addDir(w, dir); err != nil {
		return nil, err
	}
	return b.Bytes(), w.Close()
}

func loadOCI(ctx context.Context, e *Env) error {
	for _, pack := range []func([]byte) []byte{bytes.Clone, compressed} {
		ref := e.Ref("oci")
		img, err := e.small(v1.Config{Labels: e.managed()})
		if err != nil {
			return err
		}
		img = mutate.MediaType(img, "application/vnd.oci.image.manifest.v1+json")
		img = mutate.ConfigMediaType(img, "application/vnd.oci.image.config.v1+json")
		b, err := e.ociArchive(ref, img)
		if err != nil {
			return err
		}
		e.removeImage(ref)
		if err := e.loads(ctx, pack(b), ref); err != nil {
			return err
		}
	}
	return nil
}

func loadStreamed(ctx context.Context, e *Env) error {
	const size = 150 << 20
	small, err := e.small(v1.Config{Labels: e.managed()})
	if err != nil {
		return err
	}
	big, err := bigLayer(size)
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(small, big)
	if err != nil {
		return err
	}
	ref := e.Ref("big")
	e.removeImage(ref)
	return bounded(streamMemory, func() error {
		seen, err := load(ctx, e.Runtime, ref, img)
		if err != nil {
			return err
		}
		return check(seen.Size > size/100, "expected the size of the image, got %d", seen.Size)
	})
}

func loadGarbage(ctx context.Context, e *Env) error {
	ref := e.Ref("half")
	img, err := e.small(v1.Config{Labels: e.managed()})
	if err != nil {
		return err
	}
	r, err := dockerArchive(ref, img)
	if err != nil {
		return err
	}
	whole, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	e.removeImage(ref)
	garbage := bytes.Repeat([]byte("garbage!"), 8192)
	for what, b := range map[string][]byte{
		"garbage": garbage, "nothing": nil, "an empty archive": archive(), "an archive without a manifest": archive(regular("file", 0o644, "x")),
		"half an archive": whole[:len(whole)/2], "compressed garbage": compressed(garbage), "half of something compressed": compressed(whole)[:1000],
		"a manifest of nonsense": archive(regular("manifest.json", 0o644, `[{"Config":"missing","Layers":["none"]}]`)),
	} {
		images, err := e.Runtime.LoadImage(ctx, bytes.NewReader(b))
		if err == nil {
			return failed("load of %s: expected InvalidArgument, got images %+v", what, images)
		}
		if err := kind(err, errdefs.IsInvalidArgument, "InvalidArgument", "load of "+what); err != nil {
			return err
		}
	}
	return nil
}

func inspectImage(ctx context.Context, e *Env) error {
	config := v1.Config{
		Entrypoint: []string{probe.Path}, Cmd: []string{"args", "a b", ""}, Env: []string{"ONE=1", "PATH=/", "EMPTY="},
		User: probeUser, WorkingDir: "/work", StopSignal: "SIGUSR1", Labels: e.managed(),
	}
	config.Labels["colour"] = "yellow"
	img, err := e.small(config)
	if err != nil {
		return err
	}
	ref := e.Ref("inspect")
	e.removeImage(ref)
	if _, err := load(ctx, e.Runtime, ref, img); err != nil {
		return err
	}
	seen, err := e.Runtime.InspectImage(ctx, ref)
	if err != nil {
		return err
	}
	byID, err := e.Runtime.InspectImage(ctx, seen.ID)
	if err != nil {
		return err
	}
	want := runtime.ImageConfig{
		Entrypoint: config.Entrypoint, Cmd: config.Cmd, Env: config.Env, User: config.User, WorkDir: config.WorkingDir,
		StopSignal: config.StopSignal, Architecture: e.suite.arch(),
	}
	for _, i := range []runtime.Image{seen, byID} {
		switch {
		case !strings.HasPrefix(i.ID, "sha256:") || i.ID != seen.ID:
			return failed("expected ID sha256:…, the same by name and by ID, got %q and %q", seen.ID, i.ID)
		case !hasTag(i, ref):
			return failed("expected tag %s, got %q", ref, i.Tags)
		case i.Labels["colour"] != "yellow" || i.Labels[runtime.LabelManaged] != "true":
			return failed("expected the image's labels, got %q", i.Labels)
		case i.Size <= 0 || i.Created.IsZero():
			return failed("expected a size and a time of creation, got %d, %s", i.Size, i.Created)
		}
		if got := fmt.Sprintf("%q", i.Config); got != fmt.Sprintf("%q", want) {
			return failed("expected configuration %+v, got %+v", want, i.Config)
		}
	}
	// The configuration is what a container gets.
	out, err := e.Exited(ctx, runtime.ContainerSpec{Image: ref})
	if err != nil {
		return err
	}
	return sameArgs(out.Stdout, []string{"a b", ""})
}

func removeImages(ctx context.Context, e *Env) error {
	img, err := e.small(v1.Config{Labels: e.managed()})
	if err != nil {
		return err
	}
	one, two := e.Ref("one"), e.Ref("two")
	for _, ref := range []string{one, two} {
		e.removeImage(ref)
		if _, err := load(ctx, e.Runtime, ref, img); err != nil {
			return err
		}
	}
	if err := first(e.Runtime.RemoveImage(ctx, one), e.Runtime.RemoveImage(ctx, one)); err != nil {
		return err
	}
	if _, err := e.Runtime.InspectImage(ctx, two); err != nil {
		return failed("after one of two references was removed: expected the other, got %w", err)
	}
	_, err = e.Runtime.InspectImage(ctx, one)
	if err := kind(err, errdefs.IsNotFound, "NotFound", "inspect a reference that was removed"); err != nil {
		return err
	}
	for _, ended := range []bool{false, true} {
		b, err := e.BoxOf(ctx, runtime.ContainerSpec{Image: two, Command: []string{"sleep"}})
		if err != nil {
			return err
		}
		if ended {
			if err := e.Runtime.Stop(ctx, b.ID, 0); err != nil {
				return err
			}
		}
		err = e.Runtime.RemoveImage(ctx, two)
		if err := kind(err, errdefs.IsFailedPrecondition, "FailedPrecondition", "remove an image that a container uses"); err != nil {
			return failed("ended %v: %w", ended, err)
		}
		if err := e.Runtime.RemoveContainer(ctx, b.ID); err != nil {
			return err
		}
	}
	if err := first(e.Runtime.RemoveImage(ctx, two), e.Runtime.RemoveImage(ctx, e.Ref("never"))); err != nil {
		return err
	}
	_, err = e.Runtime.InspectImage(ctx, two)
	return kind(err, errdefs.IsNotFound, "NotFound", "inspect an image whose last reference was removed")
}
