package podman

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"

	"github.com/bottle-run/bottle/runtime"
)

func (e *engine) findImage(ctx context.Context, ref string) (apiImage, error) {
	var i apiImage
	err := e.ask(ctx, call{method: http.MethodGet, path: "/images/" + esc(ref) + "/json"}, &i)
	return i, err
}

func image(i apiImage) runtime.Image {
	return runtime.Image{
		ID: imageID(i.ID), Tags: i.RepoTags, Labels: i.Labels, Size: i.Size, Created: i.Created,
		Config: runtime.ImageConfig{
			Entrypoint: i.Config.Entrypoint, Cmd: i.Config.Cmd, Env: i.Config.Env, User: i.Config.User,
			WorkDir: i.Config.WorkingDir, StopSignal: i.Config.StopSignal, Architecture: i.Architecture,
		},
	}
}

// InspectImage implements [runtime.Images].
func (e *engine) InspectImage(ctx context.Context, ref string) (runtime.Image, error) {
	i, err := e.findImage(ctx, ref)
	if err != nil {
		return runtime.Image{}, wrap(ctx, "inspect image", ref, err)
	}
	return image(i), nil
}

// listImages lists images: all of them, those without a name and those of
// intermediate steps too.
func (e *engine) listImages(ctx context.Context) ([]listedImage, error) {
	var list []listedImage
	err := e.ask(ctx, call{method: http.MethodGet, path: "/images/json", query: url.Values{"all": {"true"}}}, &list)
	return list, err
}

// ListImages implements [runtime.Images].
func (e *engine) ListImages(ctx context.Context, filter runtime.Filter) ([]runtime.Image, error) {
	const op = "list images"
	listed, err := e.listImages(ctx)
	if err != nil {
		return nil, wrap(ctx, op, "", err)
	}
	var list []runtime.Image
	for _, l := range listed {
		if !filter.Match(l.Labels) {
			continue
		}
		i, err := e.findImage(ctx, l.ID)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return nil, wrap(ctx, op, "", err)
		}
		list = append(list, image(i))
	}
	slices.SortStableFunc(list, func(a, b runtime.Image) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// RemoveImage implements [runtime.Images].
func (e *engine) RemoveImage(ctx context.Context, ref string) error {
	const op = "remove image"
	i, err := e.findImage(ctx, ref)
	if isNotFound(err) {
		return nil
	}
	if err == nil && i.Labels[runtime.LabelManaged] != "true" {
		err = foreign("image")
	}
	if err == nil {
		err = e.ask(ctx, call{method: http.MethodDelete, path: "/images/" + esc(ref)}, nil)
	}
	if isNotFound(err) {
		return nil
	}
	return wrap(ctx, op, ref, err)
}

// LoadImage implements [runtime.Images].
func (e *engine) LoadImage(ctx context.Context, archive io.Reader) ([]runtime.Image, error) {
	const op = "load image"
	source := &errReader{r: archive}
	var loaded struct {
		Names []string `json:"Names"`
	}
	err := e.ask(ctx, call{
		method: http.MethodPost, path: "/images/load", header: http.Header{"Content-Type": {"application/x-tar"}}, body: source,
	}, &loaded)
	if source.err != nil {
		err = source.err
	}
	if err != nil {
		var answer *apiError
		if errors.As(err, &answer) && !errdefs.IsUnavailable(err) && !strings.Contains(answer.Message, "no space left") {
			err = runtime.WithKind(errdefs.ErrInvalidArgument, fmt.Errorf("not an image archive: %w", answer))
		}
		return nil, wrap(ctx, op, "", err)
	}
	var images []runtime.Image
	for _, name := range loaded.Names {
		i, err := e.findImage(ctx, name)
		if err != nil {
			return nil, wrap(ctx, op, name, err)
		}
		if !slices.ContainsFunc(images, func(o runtime.Image) bool { return o.ID == imageID(i.ID) }) {
			images = append(images, image(i))
		}
	}
	return images, nil
}

// PullImage implements [runtime.Images].
func (e *engine) PullImage(ctx context.Context, ref string, opts runtime.PullOptions) (runtime.Image, error) {
	const op = "pull image"
	id, err := e.pull(ctx, ref, opts)
	var i apiImage
	if err == nil {
		i, err = e.findImage(ctx, id)
	}
	if err != nil {
		return runtime.Image{}, wrap(ctx, op, ref, err)
	}
	return image(i), nil
}

func (e *engine) pull(ctx context.Context, ref string, opts runtime.PullOptions) (string, error) {
	query := url.Values{"reference": {ref}}
	if loopbackRegistry(ref) {
		query.Set("tlsVerify", "false")
	}
	header := http.Header{}
	if opts.Auth != nil {
		b, err := json.Marshal(map[string]string{"username": opts.Auth.Username, "password": opts.Auth.Password})
		if err != nil {
			return "", err
		}
		header.Set("X-Registry-Auth", base64.URLEncoding.EncodeToString(b))
	}
	resp, err := e.do(ctx, call{method: http.MethodPost, path: "/images/pull", query: query, header: header})
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	var id string
	for dec := json.NewDecoder(resp.Body); ; {
		var m struct {
			Stream string `json:"stream"`
			Error  string `json:"error"`
			ID     string `json:"id"`
		}
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return "", transportError(err)
		}
		if m.Error != "" {
			return "", pullError(m.Error)
		}
		if m.Stream != "" && opts.Progress != nil {
			if _, err := io.WriteString(opts.Progress, m.Stream); err != nil {
				return "", err
			}
		}
		if m.ID != "" {
			id = m.ID
		}
	}
	if id == "" {
		return "", runtime.Errorf(errdefs.ErrInternal, "the service ended without an image")
	}
	return id, nil
}

// pullError gives what a registry said a kind.
func pullError(text string) error {
	var kind error = errdefs.ErrUnavailable
	lower := strings.ToLower(text)
	switch {
	case strings.Contains(lower, "unauthorized"), strings.Contains(lower, "authentication required"),
		strings.Contains(lower, "invalid username/password"), strings.Contains(lower, "status code: 401"), strings.Contains(lower, "status 401"):
		kind = errdefs.ErrUnauthenticated
	case strings.Contains(lower, "denied"), strings.Contains(lower, "forbidden"), strings.Contains(lower, "status 403"):
		kind = errdefs.ErrPermissionDenied
	case strings.Contains(lower, "manifest unknown"), strings.Contains(lower, "name unknown"), strings.Contains(lower, "not found"),
		strings.Contains(lower, "status 404"), strings.Contains(lower, "manifest_unknown"):
		kind = errdefs.ErrNotFound
	}
	return runtime.Errorf(kind, "%s", strings.TrimSpace(text))
}

// loopbackRegistry reports whether a reference names a registry on this host's
// loopback, which may be spoken to without TLS.
func loopbackRegistry(ref string) bool {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return false
	}
	host := reference.Domain(named)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "localhost" {
		return strings.HasPrefix(ref, "localhost:")
	}
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return ip != nil && ip.IsLoopback()
}
