// Package traced is a decorator over [runtime.Runtime] that tells when each call begins and
// ends.
//
// # Promises
//
//   - It changes nothing of what the calls do, and passes the conformance suite around
//     an engine that does.
//   - What is told holds no secret: names of methods and objects, the program of an exec
//     without its arguments, counts. No variable, no argument, no content, no error's text.
//   - A call that gives a stream has ended when the stream is closed.
package traced

import (
	"context"
	"io"
	"path"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// Call is one call.
type Call struct {
	// Method is that of [runtime.Runtime].
	Method string
	// Object is what it is done to, as the caller named it.
	Object string
	// Detail says more: the program of an exec, the path of a copy.
	Detail string
	// Bytes is how much an archive held, as far as it was read.
	Bytes int64
	// Failed is the kind of the error, or empty.
	Failed string
}

// Begin is told of a call when it begins; what it returns, when it has ended. Calls are
// made side by side, and so is it called.
type Begin func(ctx context.Context, c Call) (end func(Call))

// New makes a Runtime that does what rt does and tells begin about it.
func New(rt runtime.Runtime, begin Begin) runtime.Runtime { return &traced{rt: rt, begin: begin} }

type traced struct {
	rt    runtime.Runtime
	begin Begin
}

// call makes a call and tells of it.
func call[T any](ctx context.Context, t *traced, c Call, do func() (T, error)) (T, error) {
	end := t.begin(ctx, c)
	// Also if it panics.
	c.Failed = "panic"
	defer func() { end(c) }()
	got, err := do()
	c.Failed = kind(err)
	return got, err
}

// plain makes a call that returns an error only.
func plain(ctx context.Context, t *traced, c Call, do func() error) error {
	_, err := call(ctx, t, c, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// kind is an error's kind in a word; its text may hold anything.
func kind(err error) string {
	switch {
	case err == nil:
		return ""
	case errdefs.IsCanceled(err):
		return "canceled"
	case errdefs.IsDeadlineExceeded(err):
		return "deadline exceeded"
	case errdefs.IsNotFound(err):
		return "not found"
	case errdefs.IsAlreadyExists(err):
		return "already exists"
	case errdefs.IsInvalidArgument(err):
		return "invalid argument"
	case errdefs.IsFailedPrecondition(err):
		return "failed precondition"
	case errdefs.IsPermissionDenied(err):
		return "permission denied"
	case errdefs.IsUnavailable(err):
		return "unavailable"
	case errdefs.IsNotImplemented(err):
		return "not implemented"
	}
	return "failed"
}

// Info implements [runtime.Runtime].
func (t *traced) Info(ctx context.Context) (runtime.Info, error) {
	return call(ctx, t, Call{Method: "Info"}, func() (runtime.Info, error) { return t.rt.Info(ctx) })
}

// Brief implements [runtime.Runtime].
func (t *traced) Brief(ctx context.Context) (runtime.Info, error) {
	return call(ctx, t, Call{Method: "Brief"}, func() (runtime.Info, error) { return t.rt.Brief(ctx) })
}

// Inventory implements [runtime.Runtime].
func (t *traced) Inventory(ctx context.Context) (runtime.Inventory, error) {
	return call(ctx, t, Call{Method: "Inventory"}, func() (runtime.Inventory, error) { return t.rt.Inventory(ctx) })
}

// Sweep implements [runtime.Runtime].
func (t *traced) Sweep(ctx context.Context) error {
	return plain(ctx, t, Call{Method: "Sweep"}, func() error { return t.rt.Sweep(ctx) })
}

// Close implements [runtime.Runtime].
func (t *traced) Close() error {
	return plain(context.Background(), t, Call{Method: "Close"}, t.rt.Close)
}

// CreateNetwork implements [runtime.Networks].
func (t *traced) CreateNetwork(ctx context.Context, spec runtime.NetworkSpec) (runtime.Network, error) {
	return call(ctx, t, Call{Method: "CreateNetwork", Object: spec.Name}, func() (runtime.Network, error) { return t.rt.CreateNetwork(ctx, spec) })
}

// InspectNetwork implements [runtime.Networks].
func (t *traced) InspectNetwork(ctx context.Context, network string) (runtime.Network, error) {
	return call(ctx, t, Call{Method: "InspectNetwork", Object: network}, func() (runtime.Network, error) { return t.rt.InspectNetwork(ctx, network) })
}

// ListNetworks implements [runtime.Networks].
func (t *traced) ListNetworks(ctx context.Context, filter runtime.Filter) ([]runtime.Network, error) {
	return call(ctx, t, Call{Method: "ListNetworks"}, func() ([]runtime.Network, error) { return t.rt.ListNetworks(ctx, filter) })
}

// RemoveNetwork implements [runtime.Networks].
func (t *traced) RemoveNetwork(ctx context.Context, network string) error {
	return plain(ctx, t, Call{Method: "RemoveNetwork", Object: network}, func() error { return t.rt.RemoveNetwork(ctx, network) })
}

// BuildImage implements [runtime.Images].
func (t *traced) BuildImage(ctx context.Context, spec runtime.BuildSpec) (runtime.Image, error) {
	tag := ""
	if len(spec.Tags) > 0 {
		tag = spec.Tags[0]
	}
	return call(ctx, t, Call{Method: "BuildImage", Object: tag}, func() (runtime.Image, error) { return t.rt.BuildImage(ctx, spec) })
}

// LoadImage implements [runtime.Images].
func (t *traced) LoadImage(ctx context.Context, archive io.Reader) ([]runtime.Image, error) {
	c := Call{Method: "LoadImage"}
	counted := &counter{r: archive}
	end := t.begin(ctx, c)
	c.Failed = "panic"
	defer func() { c.Bytes = counted.n.Load(); end(c) }()
	images, err := t.rt.LoadImage(ctx, counted)
	c.Failed = kind(err)
	return images, err
}

// PullImage implements [runtime.Images].
func (t *traced) PullImage(ctx context.Context, ref string, opts runtime.PullOptions) (runtime.Image, error) {
	return call(ctx, t, Call{Method: "PullImage", Object: ref}, func() (runtime.Image, error) { return t.rt.PullImage(ctx, ref, opts) })
}

// InspectImage implements [runtime.Images].
func (t *traced) InspectImage(ctx context.Context, ref string) (runtime.Image, error) {
	return call(ctx, t, Call{Method: "InspectImage", Object: ref}, func() (runtime.Image, error) { return t.rt.InspectImage(ctx, ref) })
}

// ListImages implements [runtime.Images].
func (t *traced) ListImages(ctx context.Context, filter runtime.Filter) ([]runtime.Image, error) {
	return call(ctx, t, Call{Method: "ListImages"}, func() ([]runtime.Image, error) { return t.rt.ListImages(ctx, filter) })
}

// RemoveImage implements [runtime.Images].
func (t *traced) RemoveImage(ctx context.Context, ref string) error {
	return plain(ctx, t, Call{Method: "RemoveImage", Object: ref}, func() error { return t.rt.RemoveImage(ctx, ref) })
}

// Run implements [runtime.Containers].
func (t *traced) Run(ctx context.Context, spec runtime.ContainerSpec) (runtime.Container, error) {
	return call(ctx, t, Call{Method: "Run", Object: spec.Name}, func() (runtime.Container, error) { return t.rt.Run(ctx, spec) })
}

// InspectContainer implements [runtime.Containers].
func (t *traced) InspectContainer(ctx context.Context, container string) (runtime.Container, error) {
	return call(ctx, t, Call{Method: "InspectContainer", Object: container}, func() (runtime.Container, error) { return t.rt.InspectContainer(ctx, container) })
}

// ListContainers implements [runtime.Containers].
func (t *traced) ListContainers(ctx context.Context, filter runtime.Filter) ([]runtime.Container, error) {
	return call(ctx, t, Call{Method: "ListContainers"}, func() ([]runtime.Container, error) { return t.rt.ListContainers(ctx, filter) })
}

// Wait implements [runtime.Containers].
func (t *traced) Wait(ctx context.Context, container string) (runtime.ExitStatus, error) {
	return call(ctx, t, Call{Method: "Wait", Object: container}, func() (runtime.ExitStatus, error) { return t.rt.Wait(ctx, container) })
}

// Stop implements [runtime.Containers].
func (t *traced) Stop(ctx context.Context, container string, grace time.Duration) error {
	return plain(ctx, t, Call{Method: "Stop", Object: container, Detail: grace.String()}, func() error { return t.rt.Stop(ctx, container, grace) })
}

// Stats implements [runtime.Containers].
func (t *traced) Stats(ctx context.Context, container string) (runtime.Stats, error) {
	return call(ctx, t, Call{Method: "Stats", Object: container}, func() (runtime.Stats, error) { return t.rt.Stats(ctx, container) })
}

// Kill implements [runtime.Containers].
func (t *traced) Kill(ctx context.Context, container, signal string) error {
	return plain(ctx, t, Call{Method: "Kill", Object: container, Detail: signal}, func() error { return t.rt.Kill(ctx, container, signal) })
}

// RemoveContainer implements [runtime.Containers].
func (t *traced) RemoveContainer(ctx context.Context, container string) error {
	return plain(ctx, t, Call{Method: "RemoveContainer", Object: container}, func() error { return t.rt.RemoveContainer(ctx, container) })
}

// Logs implements [runtime.Containers].
func (t *traced) Logs(ctx context.Context, container string, opts runtime.LogOptions) error {
	return plain(ctx, t, Call{Method: "Logs", Object: container}, func() error { return t.rt.Logs(ctx, container, opts) })
}

// Exec implements [runtime.Containers].
func (t *traced) Exec(ctx context.Context, container string, spec runtime.ExecSpec) (runtime.ExitStatus, error) {
	c := Call{Method: "Exec", Object: container}
	if len(spec.Command) > 0 {
		// Arguments may be anything, and a program's name that is no name too.
		if c.Detail = path.Base(spec.Command[0]); len(c.Detail) > 64 {
			c.Detail = ""
		}
	}
	return call(ctx, t, c, func() (runtime.ExitStatus, error) { return t.rt.Exec(ctx, container, spec) })
}

// CopyTo implements [runtime.Containers].
func (t *traced) CopyTo(ctx context.Context, container, dir string, archive io.Reader) error {
	c := Call{Method: "CopyTo", Object: container, Detail: dir}
	counted := &counter{r: archive}
	end := t.begin(ctx, c)
	c.Failed = "panic"
	defer func() { c.Bytes = counted.n.Load(); end(c) }()
	err := t.rt.CopyTo(ctx, container, dir, counted)
	c.Failed = kind(err)
	return err
}

// CopyFrom implements [runtime.Containers].
func (t *traced) CopyFrom(ctx context.Context, container, name string) (io.ReadCloser, error) {
	c := Call{Method: "CopyFrom", Object: container, Detail: name}
	end := t.begin(ctx, c)
	done := false
	defer func() {
		if !done {
			c.Failed = "panic"
			end(c)
		}
	}()
	archive, err := t.rt.CopyFrom(ctx, container, name)
	done = true
	if err != nil {
		c.Failed = kind(err)
		end(c)
		return nil, err
	}
	return &stream{counter: counter{r: archive}, c: archive, call: c, end: end}, nil
}

// counter counts what is read. An engine may read on after its call has returned.
type counter struct {
	r io.Reader
	n atomic.Int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n.Add(int64(n))
	return n, err
}

// stream is an archive whose end is that of its call.
type stream struct {
	counter
	c     io.Closer
	call  Call
	end   func(Call)
	ended atomic.Bool
}

func (s *stream) Close() error {
	err := s.c.Close()
	if s.ended.CompareAndSwap(false, true) {
		s.call.Bytes = s.n.Load()
		s.end(s.call)
	}
	return err
}
