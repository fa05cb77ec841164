package conformance

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

// The user and groups that the probe image knows.
const (
	probeUser  = "probe"
	probeUID   = 1234
	probeGID   = 1235
	extraGroup = "extra"
	extraGID   = 2345
)

// probeImage assembles the image: the program, two files of users, a place to
// write, and no shell.
func probeImage(path, arch string, labels map[string]string) (v1.Image, error) {
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the probe: %w", err)
	}
	if err := checkELF(program, arch); err != nil {
		return nil, fmt.Errorf("probe %s: %w", path, err)
	}
	dir := func(name string, mode int64) *tar.Header {
		return &tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}
	}
	file := func(name string, mode int64, content []byte) archived {
		return archived{&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, content}
	}
	passwd := fmt.Sprintf("root:x:0:0:root:/root:/none\n%s:x:%d:%d::/home/%s:/none\n", probeUser, probeUID, probeGID, probeUser)
	group := fmt.Sprintf("root:x:0:\n%s:x:%d:\n%s:x:%d:\n", probeUser, probeGID, extraGroup, extraGID)
	home := dir("home/"+probeUser, 0o750)
	home.Uid, home.Gid = probeUID, probeGID
	layer, err := layerOf([]archived{
		{dir("etc", 0o755), nil}, file("etc/passwd", 0o644, []byte(passwd)), file("etc/group", 0o644, []byte(group)),
		{dir("tmp", 0o1777), nil}, {dir("data", 0o755), nil}, {dir("root", 0o700), nil}, {dir("home", 0o755), nil}, {home, nil},
		file(probe.Path[1:], 0o755, program),
	})
	if err != nil {
		return nil, err
	}
	return imageOf(arch, v1.Config{
		Entrypoint: []string{probe.Path}, Cmd: []string{"sleep"}, Env: []string{"PATH=/", "FROM_IMAGE=yes"}, Labels: labels,
	}, layer)
}

// archived is an entry of an archive.
type archived struct {
	*tar.Header
	content []byte
}

// archive makes a tar archive of entries.
func archive(entries ...archived) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := *e.Header
		if h.ModTime.IsZero() {
			h.ModTime = time.Unix(1700000000, 0)
		}
		// Writing to memory fails only for a header that cannot be written, which
		// is a mistake in a test.
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		if _, err := w.Write(e.content); err != nil {
			panic(err)
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func layerOf(entries []archived) (v1.Layer, error) {
	b := archive(entries...)
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
		// It is made anew for most tests, on the machine that is to load it.
		tarball.WithCompressionLevel(gzip.NoCompression))
}

// imageOf makes an image of layers.
func imageOf(arch string, config v1.Config, layers ...v1.Layer) (v1.Image, error) {
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{
		Architecture: arch, OS: "linux", Config: config, Created: v1.Time{Time: time.Unix(1700000000, 0)},
	})
	if err != nil {
		return nil, err
	}
	return mutate.AppendLayers(img, layers...)
}

// dockerArchive gives the image as `docker save` writes it.
func dockerArchive(ref string, img v1.Image) (io.ReadCloser, error) {
	tag, err := name.NewTag(ref, name.WithDefaultRegistry("docker.io"))
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(tarball.Write(tag, img, w)) }()
	return r, nil
}

// load puts an image on the engine.
func load(ctx context.Context, rt runtime.Runtime, ref string, img v1.Image) (runtime.Image, error) {
	archive, err := dockerArchive(ref, img)
	if err != nil {
		return runtime.Image{}, err
	}
	defer func() { _ = archive.Close() }()
	images, err := rt.LoadImage(ctx, archive)
	if err != nil {
		return runtime.Image{}, err
	}
	if len(images) != 1 {
		return runtime.Image{}, failed("load of an archive of one image: expected one image, got %d", len(images))
	}
	return images[0], nil
}

// checkELF refuses what is no static program for the architecture.
func checkELF(b []byte, arch string) error {
	machines := map[string]byte{"amd64": 0x3e, "arm64": 0xb7}
	const machineOffset = 18
	switch want, known := machines[arch]; {
	case !bytes.HasPrefix(b, []byte("\x7fELF")) || len(b) < 64:
		return failed("not a Linux program")
	case !known:
		return failed("the engine's architecture is %q; the suite knows %v", arch, slices.Sorted(maps.Keys(machines)))
	case b[machineOffset] != want:
		return failed("not a program for the engine's architecture, %s", arch)
	}
	return nil
}

// random makes a word of n random bytes.
func random(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
