package containerd

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/bottle-run/bottle/runtime"
)

// Labels of containerd's records, for its filters. What they stand for is in the
// extension: labels are short.
const (
	labelName  = "dev.bottle/name"
	labelImage = "dev.bottle/image"
)

// recordType is the type and key of the extension that holds a [record].
const recordType = "dev.bottle/container"

// unknownExit is the status of a container that a reboot ended.
const unknownExit = 255

// record is what containerd keeps about a container for bottle.
type record struct {
	Name       string
	Image      string
	ImageID    string
	Labels     map[string]string
	Networks   []runtime.Endpoint
	StopSignal string
	AutoRemove bool
	TTY        bool
}

// stored is a container as containerd has it.
type stored struct {
	containers.Container
	record
}

func (r *record) encode() (map[string]typeurl.Any, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	return map[string]typeurl.Any{recordType: &rawAny{url: recordType, value: value}}, nil
}

// rawAny is a value that typeurl needs to know nothing about.
type rawAny struct {
	url   string
	value []byte
}

// GetTypeUrl is named so by typeurl.
func (a *rawAny) GetTypeUrl() string { return a.url } //nolint:staticcheck,revive

// GetValue is the encoded value.
func (a *rawAny) GetValue() []byte { return a.value }

func decode(c containers.Container) (*stored, bool) {
	ext, ok := c.Extensions[recordType]
	if !ok || c.Labels[runtime.LabelManaged] != "true" {
		return nil, false
	}
	s := &stored{Container: c}
	if err := json.Unmarshal(ext.GetValue(), &s.record); err != nil {
		return nil, false
	}
	return s, true
}

// find finds a container of bottle's by name or ID.
func (e *Engine) find(ctx context.Context, name string) (*stored, error) {
	if len(name) == 32 {
		c, err := e.containers().Get(ctx, name)
		if err == nil {
			if s, ok := decode(c); ok {
				return s, nil
			}
		} else if !isNotFound(err) {
			return nil, err
		}
	}
	if isName(name) {
		list, err := e.containers().List(ctx, fmt.Sprintf("labels.%q==%q", labelName, name))
		if err != nil {
			return nil, err
		}
		for _, c := range list {
			if s, ok := decode(c); ok {
				return s, nil
			}
		}
	}
	return nil, notFound("no container of that name")
}

// process asks for a container's process; nil if it has none.
func (e *Engine) process(ctx context.Context, id string) (*task.Process, error) {
	got, err := e.tasks().Get(ctx, &tasks.GetRequest{ContainerID: id})
	if isNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return got.Process, nil
}

// running returns a container and its process, which runs.
func (e *Engine) running(ctx context.Context, name string) (*stored, *task.Process, error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return nil, nil, err
	}
	p, err := e.process(ctx, c.ID)
	if err != nil {
		return nil, nil, err
	}
	if p == nil || p.Status != task.Status_RUNNING && p.Status != task.Status_PAUSED {
		return nil, nil, precondition("it does not run")
	}
	return c, p, nil
}

// describe makes the value that callers see.
func (c *stored) describe(p *task.Process) runtime.Container {
	out := runtime.Container{
		ID: c.ID, Name: c.Name, Image: c.record.Image, ImageID: c.ImageID, Labels: c.record.Labels,
		Created: c.CreatedAt, Networks: c.Networks,
	}
	if p == nil {
		// A reboot or a crash of the shim took the process and its status.
		out.State, out.Exit = runtime.StateExited, runtime.ExitStatus{Code: unknownExit}
		return out
	}
	switch p.Status {
	case task.Status_CREATED:
		out.State = runtime.StateCreated
	case task.Status_RUNNING:
		out.State = runtime.StateRunning
	case task.Status_PAUSED, task.Status_PAUSING:
		out.State = runtime.StatePaused
	case task.Status_STOPPED:
		out.State = runtime.StateExited
		out.Exit = runtime.ExitStatus{Code: int(p.ExitStatus), OOMKilled: oomKilled(c.ID)}
	default:
		out.State = runtime.StateUnknown
	}
	return out
}

// InspectContainer implements [runtime.Containers].
func (e *Engine) InspectContainer(ctx context.Context, name string) (runtime.Container, error) {
	c, err := e.inspect(e.ctx(ctx), name)
	return c, wrap(ctx, "inspect container", name, err)
}

func (e *Engine) inspect(ctx context.Context, name string) (runtime.Container, error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return runtime.Container{}, err
	}
	p, err := e.process(ctx, c.ID)
	if err != nil {
		return runtime.Container{}, err
	}
	return c.describe(p), nil
}

// ListContainers implements [runtime.Containers].
func (e *Engine) ListContainers(ctx context.Context, filter runtime.Filter) ([]runtime.Container, error) {
	list, err := e.list(e.ctx(ctx), filter)
	return list, wrap(ctx, "list containers", "", err)
}

func (e *Engine) list(ctx context.Context, filter runtime.Filter) ([]runtime.Container, error) {
	all, err := e.containers().List(ctx, fmt.Sprintf("labels.%q==true", runtime.LabelManaged))
	if err != nil {
		return nil, err
	}
	processes, err := e.tasks().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, err
	}
	byID := map[string]*task.Process{}
	for _, p := range processes.Tasks {
		byID[first(p.ContainerID, p.ID)] = p
	}
	list := []runtime.Container{}
	for _, c := range all {
		s, ok := decode(c)
		if !ok || !filter.Match(s.record.Labels) {
			continue
		}
		list = append(list, s.describe(byID[c.ID]).Brief())
	}
	slices.SortFunc(list, func(a, b runtime.Container) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// processSpec is how a container's first process was started.
func (c *stored) processSpec() (*specs.Process, error) {
	var s specs.Spec
	if c.Spec == nil {
		return nil, fmt.Errorf("containerd keeps no specification of it")
	}
	if err := json.Unmarshal(c.Spec.GetValue(), &s); err != nil {
		return nil, fmt.Errorf("read its specification: %w", err)
	}
	if s.Process == nil {
		return nil, fmt.Errorf("its specification has no process")
	}
	return s.Process, nil
}

// Wait implements [runtime.Containers].
func (e *Engine) Wait(ctx context.Context, name string) (runtime.ExitStatus, error) {
	status, err := e.wait(e.ctx(ctx), name)
	return status, wrap(ctx, "wait for container", name, err)
}

func (e *Engine) wait(ctx context.Context, name string) (runtime.ExitStatus, error) {
	c, err := e.find(ctx, name)
	if err != nil {
		return runtime.ExitStatus{}, err
	}
	return e.ended(ctx, c.ID)
}

// ended returns when a container's process has, and how.
func (e *Engine) ended(ctx context.Context, id string) (runtime.ExitStatus, error) {
	exit, err := e.tasks().Wait(ctx, &tasks.WaitRequest{ContainerID: id})
	switch {
	case isNotFound(err):
		if _, err := e.find(ctx, id); err != nil {
			return runtime.ExitStatus{}, err
		}
		return runtime.ExitStatus{Code: unknownExit}, nil
	case err != nil:
		return runtime.ExitStatus{}, err
	}
	return runtime.ExitStatus{Code: int(exit.ExitStatus), OOMKilled: oomKilled(id)}, nil
}

// Stop implements [runtime.Containers].
func (e *Engine) Stop(ctx context.Context, name string, grace time.Duration) error {
	return wrap(ctx, "stop container", name, e.stop(e.ctx(ctx), name, grace))
}

func (e *Engine) stop(ctx context.Context, name string, grace time.Duration) error {
	c, err := e.find(ctx, name)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if grace <= 0 {
		return e.killAndWait(ctx, c.ID)
	}
	number, err := signalNumber(first(c.StopSignal, "SIGTERM"))
	if err != nil {
		return err
	}
	if err := e.signal(ctx, c.ID, number); err != nil {
		if isNotFound(err) || isFailedPrecondition(err) {
			return nil
		}
		return err
	}
	// Whole seconds, rounded up, as the interface says.
	graceful, cancel := context.WithTimeout(ctx, (grace + time.Second - 1).Truncate(time.Second))
	defer cancel()
	_, err = e.tasks().Wait(graceful, &tasks.WaitRequest{ContainerID: c.ID})
	switch {
	case err == nil, isNotFound(err):
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case graceful.Err() == nil:
		return err
	}
	return e.killAndWait(ctx, c.ID)
}

// Kill implements [runtime.Containers].
func (e *Engine) Kill(ctx context.Context, name, signal string) error {
	return wrap(ctx, "kill container", name, e.kill(e.ctx(ctx), name, signal))
}

func (e *Engine) kill(ctx context.Context, name, signal string) error {
	number, err := signalNumber(signal)
	if err != nil {
		return err
	}
	c, _, err := e.running(ctx, name)
	if err != nil {
		return err
	}
	err = e.signal(ctx, c.ID, number)
	if isNotFound(err) || isFailedPrecondition(err) {
		return precondition("it does not run")
	}
	return err
}
