package containerd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bottle-run/bottle/runtime"
)

// PullImage implements [runtime.Images].
func (e *Engine) PullImage(ctx context.Context, ref string, opts runtime.PullOptions) (runtime.Image, error) {
	img, err := e.pullImage(e.ctx(ctx), ref, opts)
	return img, wrap(ctx, "pull image", ref, err)
}

func (e *Engine) pullImage(ctx context.Context, ref string, opts runtime.PullOptions) (runtime.Image, error) {
	name, err := storedName(ref)
	if err != nil {
		return runtime.Image{}, err
	}
	say := func(format string, args ...any) {
		if opts.Progress != nil {
			fmt.Fprintf(opts.Progress, format+"\n", args...)
		}
	}
	ctx, release, err := e.lease(ctx)
	if err != nil {
		return runtime.Image{}, err
	}
	defer release()
	say("pulling %s", name)
	pulled, err := e.client.Pull(ctx, name,
		client.WithResolver(resolver(name, opts.Auth)),
		client.WithPullUnpack,
		client.WithPullSnapshotter(e.snapshotter),
		client.WithPlatformMatcher(platform()),
		client.WithImageHandler(images.HandlerFunc(func(_ context.Context, desc ocispec.Descriptor) ([]ocispec.Descriptor, error) {
			say("%s %s, %d bytes", kindOf(desc), desc.Digest, desc.Size)
			return nil, nil
		})),
	)
	if err != nil {
		return runtime.Image{}, pullError(err)
	}
	img, err := e.inspectImage(ctx, pulled.Name())
	if err == nil {
		say("pulled %s: %s", name, img.ID)
	}
	return img, err
}

func kindOf(desc ocispec.Descriptor) string {
	switch {
	case images.IsIndexType(desc.MediaType):
		return "index"
	case images.IsManifestType(desc.MediaType):
		return "manifest"
	case images.IsConfigType(desc.MediaType):
		return "configuration"
	case images.IsLayerType(desc.MediaType):
		return "layer"
	}
	return "object"
}

// resolver speaks to the registry of one reference, and gives the credential to
// no other host.
func resolver(name string, auth *runtime.RegistryAuth) remotes.Resolver {
	var domain string
	if named, err := reference.ParseNormalizedNamed(name); err == nil {
		domain = reference.Domain(named)
	}
	var options []docker.AuthorizerOpt
	if auth != nil {
		options = append(options, docker.WithAuthCreds(func(host string) (string, string, error) {
			hub := domain == "docker.io" && host == "registry-1.docker.io"
			if host == domain || hub {
				return auth.Username, auth.Password, nil
			}
			return "", "", nil
		}))
	}
	hosts := docker.ConfigureDefaultRegistries(
		docker.WithAuthorizer(docker.NewDockerAuthorizer(options...)),
		docker.WithPlainHTTP(loopback),
	)
	return docker.NewResolver(docker.ResolverOptions{Hosts: func(host string) ([]docker.RegistryHost, error) {
		registries, err := hosts(host)
		if plain, _ := loopback(host); err != nil || !plain {
			return registries, err
		}
		// TLS where the registry has it, else plain HTTP.
		for i := range registries {
			registries[i].Scheme = "https"
			registries[i].Client = &http.Client{Transport: docker.NewHTTPFallback(http.DefaultTransport)}
		}
		return registries, nil
	}})
}

// loopback reports whether a registry's host is this machine's loopback.
func loopback(host string) (bool, error) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.Trim(host, "[]")
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback(), nil
}

// pullError gives a registry's answer a kind.
func pullError(err error) error {
	err = native(err)
	var unexpected remoteerrors.ErrUnexpectedStatus
	switch {
	case errors.As(err, &unexpected) && unexpected.StatusCode == http.StatusUnauthorized,
		errors.Is(err, docker.ErrInvalidAuthorization):
		return runtime.WithKind(errdefs.ErrUnauthenticated, err)
	case errors.As(err, &unexpected) && unexpected.StatusCode == http.StatusForbidden:
		return runtime.WithKind(errdefs.ErrPermissionDenied, err)
	case errors.As(err, &unexpected) && unexpected.StatusCode == http.StatusNotFound:
		return runtime.WithKind(errdefs.ErrNotFound, err)
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return runtime.WithKind(errdefs.ErrUnavailable, err)
	}
	return err
}
