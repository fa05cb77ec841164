package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bottle-run/bottle/runtime"
)

// image is what an image's target holds for this machine's platform. It depends
// on the target's digest alone, so it can be kept.
type image struct {
	target digest.Digest
	// id is the digest of the configuration.
	id      digest.Digest
	config  runtime.ImageConfig
	labels  map[string]string
	created time.Time
	size    int64
	// chain is the key of the unpacked layers' snapshot.
	chain digest.Digest
}

// imageCache keeps images by their target's digest.
type imageCache struct{ byDigest sync.Map }

// platform is what this machine runs.
var platform = sync.OnceValue(platforms.Default)

// storedName is the name under which containerd keeps a reference: with its
// registry and tag spelled out.
func storedName(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", invalid("%q is not an image reference: %v", ref, err)
	}
	return named.String(), nil
}

// givenName is a stored name as people write it.
func givenName(stored string) string {
	named, err := reference.ParseNormalizedNamed(stored)
	if err != nil {
		return stored
	}
	return reference.FamiliarString(named)
}

var idPattern = regexp.MustCompile(`^(sha256:)?[0-9a-f]{12,64}$`)

// findImages finds the records that a reference or ID means, at least one.
func (e *Engine) findImages(ctx context.Context, ref string) ([]images.Image, error) {
	var nameErr error
	if !strings.HasPrefix(ref, "sha256:") {
		name, err := storedName(ref)
		if err == nil {
			record, err := e.imageStore().Get(ctx, name)
			if err == nil {
				return []images.Image{record}, nil
			}
			if !isNotFound(err) {
				return nil, err
			}
		}
		nameErr = err
	}
	if idPattern.MatchString(ref) {
		found, err := e.imagesByID(ctx, strings.TrimPrefix(ref, "sha256:"))
		if err != nil || len(found) > 0 {
			return found, err
		}
	} else if nameErr != nil {
		return nil, nameErr
	}
	return nil, notFound("there is no image %q on this containerd (namespace %s)", ref, e.namespace)
}

// imagesByID lists the records of the image with an ID, or its unambiguous
// beginning.
func (e *Engine) imagesByID(ctx context.Context, id string) ([]images.Image, error) {
	all, err := e.imageStore().List(ctx)
	if err != nil {
		return nil, err
	}
	var found []images.Image
	var which digest.Digest
	for _, record := range all {
		img, err := e.readImage(ctx, record)
		if err != nil {
			continue // of another platform, or half gone
		}
		if !strings.HasPrefix(img.id.Encoded(), id) && !strings.HasPrefix(img.target.Encoded(), id) {
			continue
		}
		if which != "" && which != img.id {
			return nil, invalid("image ID %q is ambiguous", id)
		}
		which = img.id
		found = append(found, record)
	}
	return found, nil
}

// resolve finds an image by reference or ID.
func (e *Engine) resolve(ctx context.Context, ref string) (*image, images.Image, error) {
	records, err := e.findImages(ctx, ref)
	if err != nil {
		return nil, images.Image{}, err
	}
	img, err := e.readImage(ctx, records[0])
	return img, records[0], err
}

func (e *Engine) readImage(ctx context.Context, record images.Image) (*image, error) {
	key := record.Target.Digest
	if known, ok := e.images.byDigest.Load(key); ok {
		return known.(*image), nil
	}
	store := e.client.ContentStore()
	manifest, err := images.Manifest(ctx, store, record.Target, platform())
	if err != nil {
		return nil, fmt.Errorf("read the manifest of image %q for %s: %w", givenName(record.Name), platforms.DefaultString(), err)
	}
	blob, err := content.ReadBlob(ctx, store, manifest.Config)
	if err != nil {
		return nil, fmt.Errorf("read the configuration of image %q: %w", givenName(record.Name), err)
	}
	var config ocispec.Image
	if err := json.Unmarshal(blob, &config); err != nil {
		return nil, fmt.Errorf("read the configuration of image %q: %w", givenName(record.Name), err)
	}
	img := &image{
		target: key, id: manifest.Config.Digest,
		labels: config.Config.Labels,
		size:   manifest.Config.Size,
		chain:  identity.ChainID(config.RootFS.DiffIDs),
		config: runtime.ImageConfig{
			Entrypoint: config.Config.Entrypoint, Cmd: config.Config.Cmd, Env: config.Config.Env,
			User: config.Config.User, WorkDir: config.Config.WorkingDir, StopSignal: config.Config.StopSignal,
			Architecture: config.Architecture,
		},
	}
	for _, layer := range manifest.Layers {
		img.size += layer.Size
	}
	if config.Created != nil {
		img.created = *config.Created
	}
	e.images.byDigest.Store(key, img)
	return img, nil
}

// describe makes the value that callers see out of an image and its names.
func describe(img *image, names []string) runtime.Image {
	out := runtime.Image{
		ID: img.id.String(), Labels: img.labels, Size: img.size, Created: img.created, Config: img.config,
	}
	for _, n := range names {
		// A digest names an image that has no tag.
		if given := givenName(n); !strings.Contains(given, "@sha256:") && !strings.HasPrefix(given, "sha256:") {
			out.Tags = append(out.Tags, given)
		}
	}
	slices.Sort(out.Tags)
	return out
}

// describeAll groups records by image.
func (e *Engine) describeAll(ctx context.Context, records []images.Image) []runtime.Image {
	var order []*image
	names := map[*image][]string{}
	for _, record := range records {
		img, err := e.readImage(ctx, record)
		if err != nil {
			e.log.Debug("image left out", "image", record.Name, "error", err)
			continue
		}
		i := slices.IndexFunc(order, func(o *image) bool { return o.id == img.id })
		if i < 0 {
			order = append(order, img)
		} else {
			img = order[i]
		}
		names[img] = append(names[img], record.Name)
	}
	list := []runtime.Image{}
	for _, img := range order {
		list = append(list, describe(img, names[img]))
	}
	return list
}

// InspectImage implements [runtime.Images].
func (e *Engine) InspectImage(ctx context.Context, ref string) (runtime.Image, error) {
	img, err := e.inspectImage(e.ctx(ctx), ref)
	return img, wrap(ctx, "inspect image", ref, err)
}

func (e *Engine) inspectImage(ctx context.Context, ref string) (runtime.Image, error) {
	img, _, err := e.resolve(ctx, ref)
	if err != nil {
		return runtime.Image{}, err
	}
	all, err := e.imageStore().List(ctx)
	if err != nil {
		return runtime.Image{}, err
	}
	var names []string
	for _, record := range all {
		if other, err := e.readImage(ctx, record); err == nil && other.id == img.id {
			names = append(names, record.Name)
		}
	}
	return describe(img, names), nil
}

// ListImages implements [runtime.Images].
func (e *Engine) ListImages(ctx context.Context, filter runtime.Filter) ([]runtime.Image, error) {
	records, err := e.imageStore().List(e.ctx(ctx))
	if err != nil {
		return nil, wrap(ctx, "list images", "", err)
	}
	list := e.describeAll(e.ctx(ctx), records)
	return slices.DeleteFunc(list, func(img runtime.Image) bool { return !filter.Match(img.Labels) }), nil
}

// RemoveImage implements [runtime.Images].
func (e *Engine) RemoveImage(ctx context.Context, ref string) error {
	return wrap(ctx, "remove image", ref, e.removeImage(e.ctx(ctx), ref))
}

func (e *Engine) removeImage(ctx context.Context, ref string) error {
	records, err := e.findImages(ctx, ref)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	img, err := e.readImage(ctx, records[0])
	if err != nil {
		return err
	}
	if img.labels[runtime.LabelManaged] != "true" {
		return runtime.Errorf(errdefs.ErrPermissionDenied, "bottle did not make it: it has no label %s", runtime.LabelManaged)
	}
	all, err := e.imagesByID(ctx, img.id.Encoded())
	if err != nil {
		return err
	}
	if len(all) <= len(records) {
		// The last reference: it goes with the image, unless that is in use.
		used, err := e.containers().List(ctx, fmt.Sprintf("labels.%q==%q", labelImage, img.id.String()))
		if err != nil {
			return err
		}
		if len(used) > 0 {
			return precondition("container %q uses it", used[0].Labels[labelName])
		}
	}
	for _, record := range records {
		// The garbage collector has run when it returns.
		if err := e.imageStore().Delete(ctx, record.Name, images.SynchronousDelete()); err != nil && !isNotFound(err) {
			return err
		}
	}
	return nil
}

// unpack makes the snapshots of an image's layers.
func (e *Engine) unpack(ctx context.Context, record images.Image) error {
	err := client.NewImageWithPlatform(e.client, record, platform()).Unpack(ctx, e.snapshotter)
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("unpack image %q: %w", givenName(record.Name), err)
	}
	return err
}
