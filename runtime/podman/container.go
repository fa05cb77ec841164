package podman

import (
	"context"
	"errors"
	"io"
	"maps"
	"math"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/logstamp"
)

// inspect describes any container, bottle's or not.
func (e *engine) inspect(ctx context.Context, name string) (apiContainer, error) {
	const attempts, wait = 20, 10 * time.Millisecond
	for attempt := 1; ; attempt++ {
		var c apiContainer
		err := e.ask(ctx, call{method: http.MethodGet, path: "/containers/" + esc(name) + "/json"}, &c)
		if err == nil || attempt == attempts || !endedMeanwhile.MatchString(err.Error()) {
			return c, err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return c, context.Cause(ctx)
		}
	}
}

// endedMeanwhile is how the service fails to describe a container whose process ends
// while it looks at it.
var endedMeanwhile = regexp.MustCompile(`\b(open|read) /proc/[0-9]+/cgroup: no such (process|file or directory)`)

// labelContainer tells a container that bottle made from one that somebody made
// of an image of bottle's: a container has its image's labels too.
const labelContainer = "dev.bottle.podman.container"

func ownContainer(labels map[string]string) bool {
	return labels[runtime.LabelManaged] == "true" && labels[labelContainer] == "true"
}

// own describes a container of bottle's; it is how every method makes sure that
// it touches no other.
func (e *engine) own(ctx context.Context, name string) (apiContainer, error) {
	c, err := e.inspect(ctx, name)
	if err == nil && !ownContainer(c.Config.Labels) {
		err = foreign("container")
	}
	return c, err
}

// container renders a description.
func container(c apiContainer) runtime.Container {
	out := runtime.Container{
		ID:      c.ID,
		Name:    c.Name,
		Image:   c.ImageName,
		ImageID: imageID(c.Image),
		Labels:  maps.Clone(c.Config.Labels),
		State:   state(c.State.Status),
		Created: c.Created,
	}
	delete(out.Labels, labelContainer)
	if out.State == runtime.StateExited {
		out.Exit = runtime.ExitStatus{Code: c.State.ExitCode, OOMKilled: c.State.OOMKilled}
	}
	for name, ep := range c.NetworkSettings.Networks {
		address, _ := netip.ParseAddr(ep.IPAddress)
		out.Networks = append(out.Networks, runtime.Endpoint{Network: name, Address: address, Aliases: askedAliases(c, ep)})
	}
	slices.SortFunc(out.Networks, func(a, b runtime.Endpoint) int { return strings.Compare(a.Network, b.Network) })
	return out
}

func imageID(id string) string {
	if id == "" || strings.HasPrefix(id, "sha256:") {
		return id
	}
	return "sha256:" + id
}

func state(s string) runtime.State {
	switch s {
	case "created", "configured", "initialized":
		return runtime.StateCreated
	case "running", "stopping":
		return runtime.StateRunning
	case "paused":
		return runtime.StatePaused
	case "exited", "stopped":
		return runtime.StateExited
	}
	return runtime.StateUnknown
}

// InspectContainer implements [runtime.Containers].
func (e *engine) InspectContainer(ctx context.Context, name string) (runtime.Container, error) {
	c, err := e.own(ctx, name)
	if errdefs.IsPermissionDenied(err) {
		err = runtime.Errorf(errdefs.ErrNotFound, "there is no such container of bottle's")
	}
	if err != nil {
		return runtime.Container{}, wrap(ctx, "inspect container", name, err)
	}
	return container(c), nil
}

// listContainers lists what carries the labels.
func (e *engine) listContainers(ctx context.Context, filter runtime.Filter) ([]listedContainer, error) {
	labels := []string{runtime.LabelManaged + "=true", labelContainer + "=true"}
	for k, v := range filter.Labels {
		labels = append(labels, k+"="+v)
	}
	var listed []listedContainer
	err := e.list(ctx, call{method: http.MethodGet, path: "/containers/json", query: url.Values{
		"all": {"true"}, "filters": {filters(map[string][]string{"label": labels})},
	}}, &listed)
	// The service's own matching takes "a=" for "a".
	return slices.DeleteFunc(listed, func(l listedContainer) bool { return !filter.Match(l.Labels) }), err
}

// ListContainers implements [runtime.Containers].
func (e *engine) ListContainers(ctx context.Context, filter runtime.Filter) ([]runtime.Container, error) {
	const op = "list containers"
	listed, err := e.listContainers(ctx, filter)
	if err != nil {
		return nil, wrap(ctx, op, "", err)
	}
	list := make([]runtime.Container, len(listed))
	for i, l := range listed {
		list[i] = runtime.Container{ID: l.ID, Name: containerName(l.Names), Labels: maps.Clone(l.Labels), State: state(l.State), Created: l.Created}
		delete(list[i].Labels, labelContainer)
	}
	slices.SortStableFunc(list, func(a, b runtime.Container) int { return a.Created.Compare(b.Created) })
	return list, nil
}

func containerName(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return strings.TrimPrefix(names[0], "/")
}

// waitInterval is how often the service looks whether a process has ended; it has
// no event of its own for that.
const waitInterval = 20 * time.Millisecond

// Wait implements [runtime.Containers].
func (e *engine) Wait(ctx context.Context, name string) (runtime.ExitStatus, error) {
	const op = "wait for container"
	c, err := e.own(ctx, name)
	if err != nil {
		return runtime.ExitStatus{}, wrap(ctx, op, name, err)
	}
	if state(c.State.Status) == runtime.StateExited {
		return container(c).Exit, nil
	}
	status, err := e.waitFor(ctx, c.ID)
	if err != nil {
		return runtime.ExitStatus{}, wrap(ctx, op, name, err)
	}
	return status, nil
}

func (e *engine) waitFor(ctx context.Context, id string) (runtime.ExitStatus, error) {
	resp, err := e.do(ctx, call{method: http.MethodPost, path: "/containers/" + id + "/wait", query: url.Values{
		"condition": {"stopped", "exited"}, "interval": {waitInterval.String()},
	}})
	if err != nil {
		return runtime.ExitStatus{}, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if err != nil {
		return runtime.ExitStatus{}, transportError(err)
	}
	// A number, or a number in quotes, by version.
	code, err := strconv.Atoi(strings.Trim(strings.TrimSpace(string(b)), `"`))
	if err != nil {
		return runtime.ExitStatus{}, err
	}
	status := runtime.ExitStatus{Code: code}
	if c, err := e.inspect(ctx, id); err == nil && state(c.State.Status) == runtime.StateExited {
		status = container(c).Exit
	}
	return status, nil
}

// Stop implements [runtime.Containers].
func (e *engine) Stop(ctx context.Context, name string, grace time.Duration) error {
	const op = "stop container"
	c, err := e.own(ctx, name)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return wrap(ctx, op, name, err)
	}
	if state(c.State.Status) == runtime.StateExited {
		return nil
	}
	seconds := int(math.Ceil(grace.Seconds()))
	err = e.ask(ctx, call{method: http.MethodPost, path: "/containers/" + c.ID + "/stop", query: url.Values{
		"timeout": {strconv.Itoa(seconds)}, "ignore": {"true"},
	}}, nil)
	if err == nil || isNotFound(err) {
		return nil
	}
	// It may have ended by itself, or been removed, meanwhile.
	if now, again := e.inspect(ctx, c.ID); isNotFound(again) || again == nil && state(now.State.Status) == runtime.StateExited {
		return nil
	}
	return wrap(ctx, op, name, err)
}

// Kill implements [runtime.Containers].
func (e *engine) Kill(ctx context.Context, name, signal string) error {
	const op = "kill container"
	number, err := signalNumber(signal)
	if err != nil {
		return wrap(ctx, op, name, err)
	}
	c, err := e.own(ctx, name)
	if err == nil && state(c.State.Status) != runtime.StateRunning {
		err = runtime.Errorf(errdefs.ErrFailedPrecondition, "it is not running (%s)", c.State.Status)
	}
	if err == nil {
		err = e.ask(ctx, call{method: http.MethodPost, path: "/containers/" + c.ID + "/kill", query: url.Values{"signal": {strconv.Itoa(number)}}}, nil)
	}
	return wrap(ctx, op, name, err)
}

// RemoveContainer implements [runtime.Containers].
func (e *engine) RemoveContainer(ctx context.Context, name string) error {
	const op = "remove container"
	c, err := e.own(ctx, name)
	if isNotFound(err) {
		return nil
	}
	if err == nil {
		err = e.deleteContainer(ctx, c.ID)
	}
	if err != nil {
		// Two that remove at once may hinder each other; what counts is the end.
		if _, again := e.inspect(ctx, c.ID); c.ID == "" || !isNotFound(again) {
			return wrap(ctx, op, name, err)
		}
	}
	e.withdraw(ctx, c)
	return nil
}

// Logs implements [runtime.Containers].
func (e *engine) Logs(ctx context.Context, name string, opts runtime.LogOptions) error {
	const op = "read the logs of container"
	c, err := e.own(ctx, name)
	if err != nil {
		return wrap(ctx, op, name, err)
	}
	query := url.Values{"stdout": {"true"}, "stderr": {"true"}, "follow": {"false"}}
	if opts.Follow && state(c.State.Status) != runtime.StateExited {
		query.Set("follow", "true")
	}
	if !opts.Since.IsZero() {
		query.Set("since", opts.Since.UTC().Format(time.RFC3339Nano))
	}
	if opts.Tail > 0 {
		query.Set("tail", strconv.Itoa(opts.Tail))
	}
	stdout, stderr := opts.Stdout, opts.Stderr
	if opts.Stamp != nil {
		query.Set("timestamps", "true")
		stdout, stderr = logstamp.Writer(stdout, opts.Stamp), logstamp.Writer(stderr, opts.Stamp)
	}
	resp, err := e.do(ctx, call{method: http.MethodGet, path: "/containers/" + c.ID + "/logs", query: query})
	if err != nil {
		return wrap(ctx, op, name, err)
	}
	defer resp.Body.Close()
	err = demultiplex(resp.Body, stdout, stderr)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	} else if err != nil && !errors.Is(err, errWrite) {
		// The container was removed under the reader.
		if _, gone := e.inspect(ctx, c.ID); isNotFound(gone) {
			err = nil
		}
	}
	return wrap(ctx, op, name, err)
}
