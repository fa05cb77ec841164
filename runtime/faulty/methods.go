package faulty

import (
	"context"
	"io"
	"time"

	"github.com/bottle-run/bottle/runtime"
)

// plain makes a call that returns an error only.
func plain(ctx context.Context, r *Runtime, method, object string, do func() error) error {
	_, err := call(ctx, r, method, object, func() (struct{}, error) { return struct{}{}, do() })
	return err
}

// Info implements [runtime.Runtime].
func (r *Runtime) Info(ctx context.Context) (runtime.Info, error) {
	return call(ctx, r, "Info", "", func() (runtime.Info, error) { return r.rt.Info(ctx) })
}

// Sweep implements [runtime.Runtime].
func (r *Runtime) Sweep(ctx context.Context) error {
	return plain(ctx, r, "Sweep", "", func() error { return r.rt.Sweep(ctx) })
}

// Brief implements [runtime.Runtime].
func (r *Runtime) Brief(ctx context.Context) (runtime.Info, error) {
	return call(ctx, r, "Brief", "", func() (runtime.Info, error) { return r.rt.Brief(ctx) })
}

// Inventory implements [runtime.Runtime].
func (r *Runtime) Inventory(ctx context.Context) (runtime.Inventory, error) {
	return call(ctx, r, "Inventory", "", func() (runtime.Inventory, error) { return r.rt.Inventory(ctx) })
}

// Close implements [runtime.Runtime]. A rule that hangs it hangs for good.
func (r *Runtime) Close() error {
	return plain(context.Background(), r, "Close", "", r.rt.Close)
}

// CreateNetwork implements [runtime.Networks].
func (r *Runtime) CreateNetwork(ctx context.Context, spec runtime.NetworkSpec) (runtime.Network, error) {
	return call(ctx, r, "CreateNetwork", spec.Name, func() (runtime.Network, error) { return r.rt.CreateNetwork(ctx, spec) })
}

// InspectNetwork implements [runtime.Networks].
func (r *Runtime) InspectNetwork(ctx context.Context, network string) (runtime.Network, error) {
	return call(ctx, r, "InspectNetwork", network, func() (runtime.Network, error) { return r.rt.InspectNetwork(ctx, network) })
}

// ListNetworks implements [runtime.Networks].
func (r *Runtime) ListNetworks(ctx context.Context, filter runtime.Filter) ([]runtime.Network, error) {
	return call(ctx, r, "ListNetworks", "", func() ([]runtime.Network, error) { return r.rt.ListNetworks(ctx, filter) })
}

// RemoveNetwork implements [runtime.Networks].
func (r *Runtime) RemoveNetwork(ctx context.Context, network string) error {
	return plain(ctx, r, "RemoveNetwork", network, func() error { return r.rt.RemoveNetwork(ctx, network) })
}

// BuildImage implements [runtime.Images].
func (r *Runtime) BuildImage(ctx context.Context, spec runtime.BuildSpec) (runtime.Image, error) {
	tag := ""
	if len(spec.Tags) > 0 {
		tag = spec.Tags[0]
	}
	return call(ctx, r, "BuildImage", tag, func() (runtime.Image, error) { return r.rt.BuildImage(ctx, spec) })
}

// LoadImage implements [runtime.Images].
func (r *Runtime) LoadImage(ctx context.Context, archive io.Reader) ([]runtime.Image, error) {
	return call(ctx, r, "LoadImage", "", func() ([]runtime.Image, error) { return r.rt.LoadImage(ctx, archive) })
}

// PullImage implements [runtime.Images].
func (r *Runtime) PullImage(ctx context.Context, ref string, opts runtime.PullOptions) (runtime.Image, error) {
	return call(ctx, r, "PullImage", ref, func() (runtime.Image, error) { return r.rt.PullImage(ctx, ref, opts) })
}

// InspectImage implements [runtime.Images].
func (r *Runtime) InspectImage(ctx context.Context, ref string) (runtime.Image, error) {
	return call(ctx, r, "InspectImage", ref, func() (runtime.Image, error) { return r.rt.InspectImage(ctx, ref) })
}

// ListImages implements [runtime.Images].
func (r *Runtime) ListImages(ctx context.Context, filter runtime.Filter) ([]runtime.Image, error) {
	return call(ctx, r, "ListImages", "", func() ([]runtime.Image, error) { return r.rt.ListImages(ctx, filter) })
}

// RemoveImage implements [runtime.Images].
func (r *Runtime) RemoveImage(ctx context.Context, ref string) error {
	return plain(ctx, r, "RemoveImage", ref, func() error { return r.rt.RemoveImage(ctx, ref) })
}

// Run implements [runtime.Containers].
func (r *Runtime) Run(ctx context.Context, spec runtime.ContainerSpec) (runtime.Container, error) {
	return call(ctx, r, "Run", spec.Name, func() (runtime.Container, error) { return r.rt.Run(ctx, spec) })
}

// InspectContainer implements [runtime.Containers].
func (r *Runtime) InspectContainer(ctx context.Context, container string) (runtime.Container, error) {
	return call(ctx, r, "InspectContainer", container, func() (runtime.Container, error) { return r.rt.InspectContainer(ctx, container) })
}

// ListContainers implements [runtime.Containers].
func (r *Runtime) ListContainers(ctx context.Context, filter runtime.Filter) ([]runtime.Container, error) {
	return call(ctx, r, "ListContainers", "", func() ([]runtime.Container, error) { return r.rt.ListContainers(ctx, filter) })
}

// Wait implements [runtime.Containers].
func (r *Runtime) Wait(ctx context.Context, container string) (runtime.ExitStatus, error) {
	return call(ctx, r, "Wait", container, func() (runtime.ExitStatus, error) { return r.rt.Wait(ctx, container) })
}

// Stop implements [runtime.Containers].
func (r *Runtime) Stop(ctx context.Context, container string, grace time.Duration) error {
	return plain(ctx, r, "Stop", container, func() error { return r.rt.Stop(ctx, container, grace) })
}

// Kill implements [runtime.Containers].
func (r *Runtime) Kill(ctx context.Context, container, signal string) error {
	return plain(ctx, r, "Kill", container, func() error { return r.rt.Kill(ctx, container, signal) })
}

// RemoveContainer implements [runtime.Containers].
func (r *Runtime) RemoveContainer(ctx context.Context, container string) error {
	return plain(ctx, r, "RemoveContainer", container, func() error { return r.rt.RemoveContainer(ctx, container) })
}

// Logs implements [runtime.Containers].
func (r *Runtime) Logs(ctx context.Context, container string, opts runtime.LogOptions) error {
	return plain(ctx, r, "Logs", container, func() error { return r.rt.Logs(ctx, container, opts) })
}

// Stats implements [runtime.Containers].
func (r *Runtime) Stats(ctx context.Context, container string) (runtime.Stats, error) {
	return call(ctx, r, "Stats", container, func() (runtime.Stats, error) { return r.rt.Stats(ctx, container) })
}

// Exec implements [runtime.Containers].
func (r *Runtime) Exec(ctx context.Context, container string, spec runtime.ExecSpec) (runtime.ExitStatus, error) {
	return call(ctx, r, "Exec", container, func() (runtime.ExitStatus, error) { return r.rt.Exec(ctx, container, spec) })
}

// CopyTo implements [runtime.Containers].
func (r *Runtime) CopyTo(ctx context.Context, container, dir string, archive io.Reader) error {
	return plain(ctx, r, "CopyTo", container, func() error { return r.rt.CopyTo(ctx, container, dir, archive) })
}

// CopyFrom implements [runtime.Containers].
func (r *Runtime) CopyFrom(ctx context.Context, container, path string) (io.ReadCloser, error) {
	return call(ctx, r, "CopyFrom", container, func() (io.ReadCloser, error) { return r.rt.CopyFrom(ctx, container, path) })
}
