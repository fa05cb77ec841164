// Package sidecarimage assembles the image of the built-in sidecars in this process: the
// static program that lies beside bottle, the host's CA roots, and a user. There is no
// registry, no Dockerfile and no base image.
//
// # Promises
//
//   - The same program and roots make the same image, byte by byte, and its tag is the
//     digest of them: an engine that has the tag has the content.
//   - It is loaded once per engine. Launches that race for it all succeed.
//   - A program that is missing, of another architecture, not static or of another
//     version of the delivery is refused before anything is started, with what to do.
package sidecarimage

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/sidecar/delivery"
)

// What is in the image.
const (
	// Program is the sidecars' program, the image's entrypoint.
	Program = "/bottle-sidecar"
	// StateDir is a directory of the sidecars' user, for what outlives a process.
	StateDir = "/var/lib/bottle"
	// UID is the user, and the group, that sidecars run as.
	UID = 65532

	rootsPath = "etc/ssl/certs/ca-certificates.crt"
)

// Repository is the name of the images, without a tag.
const Repository = "localhost/bottle/sidecar"

// The labels of the images.
const (
	// LabelRole is that of package core.
	LabelRole = "dev.bottle.role"
	// RoleImage is its value.
	RoleImage = "sidecar-image"
)

// Image is an image that can be loaded.
type Image struct {
	tag            string
	config         *v1.ConfigFile
	program, roots []byte
}

// Tag is the reference that an engine has the image by.
func (i *Image) Tag() string { return i.tag }

// New describes an image of a program for an architecture (in Go's spelling), and roots in
// PEM, which may be empty: then no host on the internet is trusted.
func New(program, roots []byte, arch string) (*Image, error) {
	config := &v1.ConfigFile{
		OS: "linux", Architecture: arch, Created: v1.Time{Time: time.Unix(0, 0).UTC()},
		Config: v1.Config{
			User: fmt.Sprintf("%d:%d", UID, UID), Entrypoint: []string{Program}, WorkingDir: "/",
			Labels: map[string]string{runtime.LabelManaged: "true", LabelRole: RoleImage},
		},
	}
	described, err := json.Marshal(config)
	if err != nil {
		return nil, fmt.Errorf("assembling the sidecar image: %w", err)
	}
	// An empty layer stands for what is around the program and the roots.
	digest := sha256.New()
	for _, part := range [][]byte{described, layer(nil, nil), program, roots} {
		fmt.Fprintf(digest, "%d:", len(part))
		digest.Write(part)
	}
	return &Image{tag: Repository + ":" + hex.EncodeToString(digest.Sum(nil))[:16], config: config, program: program, roots: roots}, nil
}

// assemble makes the image, which most launches do not need: the engine has it.
func (i *Image) assemble() (v1.Image, error) {
	// A copy: the library writes to what it is given, and several launches may assemble at once.
	image, err := mutate.ConfigFile(empty.Image, i.config.DeepCopy())
	if err == nil {
		// Not compressed: it goes no further than the engine's socket.
		image, err = mutate.AppendLayers(image, static.NewLayer(layer(i.program, i.roots), types.DockerUncompressedLayer))
	}
	if err != nil {
		return nil, fmt.Errorf("assembling the sidecar image: %w", err)
	}
	return image, nil
}

// layer is the image's only layer, as an archive.
func layer(program, roots []byte) []byte {
	var b bytes.Buffer
	b.Grow(len(program) + len(roots) + 16<<10)
	w := tar.NewWriter(&b)
	add := func(h tar.Header, content []byte) {
		h.Size, h.ModTime, h.Format = int64(len(content)), time.Unix(0, 0), tar.FormatUSTAR
		// Writing to memory fails for a header that cannot be written, and these can.
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		_, _ = w.Write(content)
	}
	dir := func(name string, mode int64, uid int) {
		add(tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: uid, Gid: uid}, nil)
	}
	file := func(name string, mode int64, content []byte) {
		add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode}, content)
	}
	dir("etc", 0o755, 0)
	file("etc/passwd", 0o644, fmt.Appendf(nil, "root:x:0:0::/:/none\nsidecar:x:%d:%d::/:/none\n", UID, UID))
	file("etc/group", 0o644, fmt.Appendf(nil, "root:x:0:\nsidecar:x:%d:\n", UID))
	dir("etc/ssl", 0o755, 0)
	dir("etc/ssl/certs", 0o755, 0)
	file(rootsPath, 0o644, roots)
	dir("run", 0o755, 0)
	// runc gives a tmpfs the mode of the directory below it, and root as its owner.
	dir(delivery.Dir[1:], 0o1777, UID)
	dir("var", 0o755, 0)
	dir("var/lib", 0o755, 0)
	dir(StateDir[1:], 0o700, UID)
	file(Program[1:], 0o555, program)
	_ = w.Close()
	return b.Bytes()
}

// Archive writes the image as LoadImage reads it.
func (i *Image) Archive() (io.ReadCloser, error) {
	tag, err := name.NewTag(i.tag)
	if err != nil {
		return nil, fmt.Errorf("assembling the sidecar image: %w", err)
	}
	image, err := i.assemble()
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(tarball.Write(tag, image, w)) }()
	return r, nil
}
