package conformance

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// build builds an image from the files of a context, under a name that is
// removed after the test unless the spec names one.
func (e *Env) build(ctx context.Context, files map[string]string, spec runtime.BuildSpec) (runtime.Image, error) {
	dir, err := e.Context(files)
	if err != nil {
		return runtime.Image{}, err
	}
	spec.ContextDir = dir
	if len(spec.Tags) == 0 {
		spec.Tags = []string{e.Ref("built")}
	}
	if spec.Labels == nil {
		spec.Labels = e.Labels()
	}
	for _, tag := range spec.Tags {
		e.removeImage(tag)
	}
	return e.Runtime.BuildImage(ctx, spec)
}

// Ref makes a reference that no image has.
func (e *Env) Ref(what string) string { return "localhost/" + e.Name(what) + ":1" }

// removeImage removes an image after the test.
func (e *Env) removeImage(ref string) {
	e.Cleanup(func(ctx context.Context) error { return e.Runtime.RemoveImage(ctx, ref) })
}

// regular is an archive's file.
func regular(name string, mode int64, content string) archived {
	return archived{&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, []byte(content)}
}

// copyIn copies entries into a directory of the container.
func (b *Box) copyIn(ctx context.Context, dir string, entries ...archived) error {
	return b.env.Runtime.CopyTo(ctx, b.ID, dir, bytes.NewReader(archive(entries...)))
}

// sameKind reports whether both are NotImplemented, or neither is.
func sameKind(a, b error) bool { return errdefs.IsNotImplemented(a) == errdefs.IsNotImplemented(b) }

// sha is the SHA-256 of content, as the probe prints it.
func sha(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:])
}
