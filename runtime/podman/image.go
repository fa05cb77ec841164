package podman

import (
	"bufio"
	"bytes"
	"compress/gzip"
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
	"strconv"
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

// listImages lists images, and those of intermediate steps too if all is set.
func (e *engine) listImages(ctx context.Context, all bool) ([]listedImage, error) {
	var list []listedImage
	err := e.list(ctx, call{method: http.MethodGet, path: "/images/json", query: url.Values{"all": {strconv.FormatBool(all)}}}, &list)
	return list, err
}

// ListImages implements [runtime.Images].
func (e *engine) ListImages(ctx context.Context, filter runtime.Filter) ([]runtime.Image, error) {
	const op = "list images"
	listed, err := e.listImages(ctx, false)
	if err != nil {
		return nil, wrap(ctx, op, "", err)
	}
	var list []runtime.Image
	for _, l := range listed {
		// What a build keeps to be faster the next time is nobody's image.
		if !filter.Match(l.Labels) || len(l.RepoTags) == 0 && l.Labels[labelBuild] != "" {
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
		err = nil
	}
	if build := i.Labels[labelBuild]; err == nil && build != "" {
		e.forgetBuild(ctx, build)
	}
	return wrap(ctx, op, ref, err)
}

// forgetBuild removes what builds of a tag left to be faster the next time, once
// no image of them has a name.
func (e *engine) forgetBuild(ctx context.Context, build string) {
	listed, err := e.listImages(ctx, false)
	if err != nil || slices.ContainsFunc(listed, func(l listedImage) bool { return len(l.RepoTags) > 0 && l.Labels[labelBuild] == build }) {
		return
	}
	e.removeSteps(ctx, build, nil)
}

// removeSteps removes the nameless images of builds of a tag, but for those kept.
// Removing one removes its nameless parents, so it goes on until there is no more.
func (e *engine) removeSteps(ctx context.Context, build string, keep map[string]bool) {
	for {
		listed, err := e.listImages(ctx, true)
		if err != nil {
			return
		}
		removed := false
		for _, l := range listed {
			if len(l.RepoTags) > 0 || l.Labels[labelBuild] != build || l.Labels[runtime.LabelManaged] != "true" || keep[l.ID] {
				continue
			}
			// One that others are made of, or that a container uses, is refused.
			if e.ask(ctx, call{method: http.MethodDelete, path: "/images/" + l.ID}, nil) == nil {
				removed = true
			}
		}
		if !removed {
			return
		}
	}
}

// LoadImage implements [runtime.Images].
func (e *engine) LoadImage(ctx context.Context, archive io.Reader) ([]runtime.Image, error) {
	const op = "load image"
	source := &errReader{r: archive}
	plain, err := decompressed(source)
	if err != nil {
		if source.err != nil {
			err = source.err
		}
		return nil, wrap(ctx, op, "", err)
	}
	var loaded struct {
		Names []string `json:"Names"`
	}
	unpacked := &errReader{r: plain}
	err = e.ask(ctx, call{
		method: http.MethodPost, path: "/images/load", header: http.Header{"Content-Type": {"application/x-tar"}}, body: unpacked,
	}, &loaded)
	if unpacked.err != nil && source.err == nil {
		err = runtime.WithKind(errdefs.ErrInvalidArgument, fmt.Errorf("not an image archive: %w", unpacked.err))
		return nil, wrap(ctx, op, "", err)
	}
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

// decompressed takes a gzip compression off: the service takes it for what is
// inside.
func decompressed(archive io.Reader) (io.Reader, error) {
	buffered := bufio.NewReaderSize(archive, 64<<10)
	magic, err := buffered.Peek(2)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if !bytes.Equal(magic, []byte{0x1f, 0x8b}) {
		return buffered, nil
	}
	unzipped, err := gzip.NewReader(buffered)
	if err != nil {
		return nil, runtime.WithKind(errdefs.ErrInvalidArgument, fmt.Errorf("not an image archive: %w", err))
	}
	return unzipped, nil
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
