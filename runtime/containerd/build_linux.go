package containerd

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/containerd/internal/builder"
)

// builderDir is the builder's directory below the state directory.
const builderDir = "buildkit"

// builders is the builder of a connection, made for the first build.
type builders struct {
	mu  sync.Mutex
	one *builder.Builder
}

func (b *builders) close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.one == nil {
		return nil
	}
	return b.one.Close()
}

func (e *Engine) builder() (*builder.Builder, error) {
	e.builds.mu.Lock()
	defer e.builds.mu.Unlock()
	if e.builds.one != nil {
		return e.builds.one, nil
	}
	b, err := builder.New(builder.Options{
		Address: e.address, Namespace: e.namespace, Root: e.dir(builderDir), Snapshotter: e.snapshotter,
		Runtime: shimName, Network: stepNetworks{e}, Log: e.log,
	})
	if err != nil {
		return nil, err
	}
	e.builds.one = b
	return b, nil
}

// BuildImage implements [runtime.Images].
func (e *Engine) BuildImage(ctx context.Context, spec runtime.BuildSpec) (runtime.Image, error) {
	object := ""
	if len(spec.Tags) > 0 {
		object = spec.Tags[0]
	}
	img, err := e.buildImage(e.ctx(ctx), spec)
	if err != nil {
		// What was being done comes first; a failed step's output last.
		return runtime.Image{}, wrap(ctx, "build image", object, err)
	}
	return img, nil
}

func (e *Engine) buildImage(ctx context.Context, spec runtime.BuildSpec) (runtime.Image, error) {
	if err := spec.Validate(); err != nil {
		return runtime.Image{}, err
	}
	b, err := e.builder()
	if err != nil {
		return runtime.Image{}, err
	}
	result, err := b.Build(ctx, spec)
	if err != nil {
		return runtime.Image{}, err
	}
	if len(result.Names) == 0 {
		return runtime.Image{}, errors.New("the builder named no image")
	}
	return e.inspectImage(ctx, result.Names[0])
}

// builderName is BuildKit with the version that is compiled in.
func builderName() string {
	const module = "github.com/moby/buildkit"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == module {
				return "buildkit " + m.Version + " (embedded)"
			}
		}
	}
	return "buildkit (embedded)"
}
