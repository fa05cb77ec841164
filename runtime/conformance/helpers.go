package conformance

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"

	"github.com/containerd/errdefs"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
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

// managed are the labels of an image that is loaded.
func (e *Env) managed() map[string]string {
	return map[string]string{runtime.LabelManaged: "true", LabelRun: e.suite.name}
}

// addDir adds a directory of this host to an archive, as the layout of an image
// is one.
func addDir(w *tar.Writer, dir string) error {
	return w.AddFS(os.DirFS(dir))
}

// bigLayer is a layer with a file of that many bytes, made as it is read.
func bigLayer(size int64) (v1.Layer, error) {
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		r, w := io.Pipe()
		go func() {
			t := tar.NewWriter(w)
			err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "data/big", Mode: 0o644, Size: size})
			if err == nil {
				_, err = io.Copy(struct{ io.Writer }{t}, probe.Pattern(size))
			}
			w.CloseWithError(errors.Join(err, t.Close()))
		}()
		return r, nil
	}, tarball.WithCompressionLevel(gzip.BestSpeed))
}

// foreignImage is an archive of an image that does not carry bottle's label.
func (e *Env) foreignImage(ref string) ([]byte, error) {
	img, err := e.small(v1.Config{Cmd: []string{"sleep"}, Labels: map[string]string{"somebody": "else"}})
	if err != nil {
		return nil, err
	}
	r, err := dockerArchive(ref, img)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}
