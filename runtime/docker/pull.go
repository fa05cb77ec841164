package docker

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

// PullImage fetches an image from its registry.
func (e *engine) PullImage(ctx context.Context, ref string, opts runtime.PullOptions) (runtime.Image, error) {
	image, err := e.pull(ctx, ref, opts)
	return image, fail(ctx, "pull image", ref, err)
}

func (e *engine) pull(ctx context.Context, ref string, opts runtime.PullOptions) (runtime.Image, error) {
	var none runtime.Image
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return none, runtime.WithKind(errdefs.ErrInvalidArgument, err)
	}
	options := client.ImagePullOptions{}
	if opts.Auth != nil {
		auth, err := json.Marshal(registry.AuthConfig{
			Username: opts.Auth.Username, Password: opts.Auth.Password, ServerAddress: reference.Domain(named),
		})
		if err != nil {
			return none, err
		}
		options.RegistryAuth = base64.URLEncoding.EncodeToString(auth)
	}
	res, err := e.cli.ImagePull(ctx, ref, options)
	if err != nil {
		return none, pullError(err)
	}
	defer res.Close() //nolint:errcheck // only read
	progress := orDiscard(opts.Progress)
	for m, err := range res.JSONMessages(ctx) {
		switch {
		case err != nil:
			return none, pullError(err)
		case m.Error != nil:
			return none, pullError(m.Error)
		case m.Status != "" && m.Progress == nil:
			// A line each; the bars of a terminal are not.
			if m.ID != "" {
				m.Status = m.ID + ": " + m.Status
			}
			if _, err := fmt.Fprintln(progress, m.Status); err != nil {
				return none, err
			}
		}
	}
	return e.image(ctx, reference.TagNameOnly(named).String())
}

// pullError gives what the registry said a kind: it arrives as text.
func pullError(err error) error {
	for _, k := range []struct {
		kind  error
		texts []string
	}{
		{errdefs.ErrUnauthenticated, []string{"unauthorized", "authentication required", "no basic auth credentials", "401"}},
		{errdefs.ErrPermissionDenied, []string{"denied", "forbidden", "403"}},
		{errdefs.ErrNotFound, []string{"manifest unknown", "name unknown", "unknown name", "name_unknown", "manifest_unknown", "not found", "404"}},
		{errdefs.ErrUnavailable, []string{"connection refused", "no such host", "i/o timeout", "network is unreachable", "no route to host"}},
	} {
		if containsAny(err, k.texts...) {
			return runtime.Errorf(k.kind, "%s", message(err))
		}
	}
	return err
}
