package containerd

import (
	"context"
	"errors"
	"io"

	"github.com/bottle-run/bottle/runtime"
)

type builders struct{}

func (*builders) close() error       { return nil }
func builderName() string            { return "" }
func (e *Engine) watch(string) error { return nil }
func (e *Engine) BuildImage(ctx context.Context, spec runtime.BuildSpec) (runtime.Image, error) {
	return runtime.Image{}, errors.New("x")
}
func (e *Engine) Logs(ctx context.Context, container string, opts runtime.LogOptions) error {
	return errors.New("x")
}
func (e *Engine) CopyTo(ctx context.Context, container, dir string, archive io.Reader) error {
	return errors.New("x")
}
func (e *Engine) CopyFrom(ctx context.Context, container, path string) (io.ReadCloser, error) {
	return nil, errors.New("x")
}
func (e *Engine) Inventory(ctx context.Context) (runtime.Inventory, error) {
	return nil, errors.New("x")
}
