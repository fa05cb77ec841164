package docker_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/bottle-run/bottle/runtime"
)

// randomImage makes an image of bottle's with a layer of nothing in particular.
func randomImage(t *testing.T, label string) v1.Image {
	t.Helper()
	image, err := random.Image(4096, 2)
	must(t, err)
	config, err := image.ConfigFile()
	must(t, err)
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", "amd64"
	config.Config.Labels = map[string]string{runtime.LabelManaged: "true", "dk": label}
	image, err = mutate.ConfigFile(image, config)
	must(t, err)
	return image
}

// ociArchive writes an OCI layout into a tar.
func ociArchive(t *testing.T, image v1.Image, annotations map[string]string) []byte {
	t.Helper()
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	must(t, err)
	must(t, path.AppendImage(image, layout.WithAnnotations(annotations)))
	var archive bytes.Buffer
	tw := tar.NewWriter(&archive)
	must(t, tw.AddFS(os.DirFS(dir)))
	must(t, tw.Close())
	return archive.Bytes()
}

func compress(t *testing.T, content []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	zw := gzip.NewWriter(&out)
	_, err := zw.Write(content)
	must(t, err)
	must(t, zw.Close())
	return out.Bytes()
}

func TestLoad(t *testing.T) {
	rt := openEngine(t)
	t.Cleanup(func() { _ = rt.Close() })
	unchanged(t, rt)
	tag, err := name.NewTag("localhost/dk-load:1")
	must(t, err)
	dockerImage := randomImage(t, "docker")
	var dockerArchive bytes.Buffer
	must(t, tarball.Write(tag, dockerImage, &dockerArchive))
	ociImage := randomImage(t, "oci")
	named := map[string]string{"io.containerd.image.name": "localhost/dk-load:2"}
	for _, tc := range []struct {
		name, tag string
		archive   []byte
		image     v1.Image
	}{
		{"a docker archive", "localhost/dk-load:1", dockerArchive.Bytes(), dockerImage},
		{"a compressed docker archive", "localhost/dk-load:1", compress(t, dockerArchive.Bytes()), dockerImage},
		{"an OCI layout", "localhost/dk-load:2", ociArchive(t, ociImage, named), ociImage},
		{"a compressed OCI layout", "localhost/dk-load:2", compress(t, ociArchive(t, ociImage, named)), ociImage},
		{"an OCI layout without a name", "", ociArchive(t, ociImage, nil), ociImage},
	} {
		t.Run(tc.name, func(t *testing.T) {
			images, err := rt.LoadImage(t.Context(), bytes.NewReader(tc.archive))
			must(t, err)
			if len(images) != 1 {
				t.Fatalf("%d images", len(images))
			}
			config, err := tc.image.ConfigName()
			must(t, err)
			if images[0].ID != config.String() || (tc.tag != "" && (len(images[0].Tags) != 1 || images[0].Tags[0] != tc.tag)) {
				t.Errorf("loaded %+v, want %s %s", images[0], config, tc.tag)
			}
			must(t, rt.RemoveImage(t.Context(), images[0].ID))
		})
	}
}

func TestLoadRefusesGarbage(t *testing.T) {
	rt := openEngine(t)
	t.Cleanup(func() { _ = rt.Close() })
	unchanged(t, rt)
	var noImage bytes.Buffer
	tw := tar.NewWriter(&noImage)
	must(t, tw.WriteHeader(&tar.Header{Name: "file", Typeflag: tar.TypeReg}))
	must(t, tw.Close())
	whole := ociArchive(t, randomImage(t, "cut"), nil)
	for what, archive := range map[string][]byte{
		"nothing":                 nil,
		"text":                    []byte(strings.Repeat("garbage ", 1000)),
		"gzip of text":            compress(t, []byte(strings.Repeat("garbage ", 1000))),
		"gzip cut short":          compress(t, whole)[:2000],
		"a tar without image":     noImage.Bytes(),
		"a layout that was cut":   whole[:len(whole)/2],
		"a layout without a blob": bytes.ReplaceAll(whole, []byte("blobs/sha256/"), []byte("blubs/sha256/")),
	} {
		if images, err := rt.LoadImage(t.Context(), bytes.NewReader(archive)); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v, %v, want InvalidArgument", what, images, err)
		}
	}
	broken := errors.New("the disk broke")
	if _, err := rt.LoadImage(t.Context(), io.MultiReader(bytes.NewReader(whole[:1000]), readerFunc(func([]byte) (int, error) { return 0, broken }))); !errors.Is(err, broken) {
		t.Errorf("a reader that fails: %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// push puts an image into a registry, as tag 1.
func push(t *testing.T, base string, image v1.Image) {
	t.Helper()
	send := func(method, url, mediaType string, content []byte) {
		request, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(content))
		must(t, err)
		request.Header.Set("Content-Type", mediaType)
		response, err := http.DefaultClient.Do(request)
		must(t, err)
		must(t, response.Body.Close())
		if response.StatusCode >= 300 {
			t.Fatalf("%s %s: %s", method, url, response.Status)
		}
	}
	upload := func(digest v1.Hash, content []byte) {
		send(http.MethodPost, base+"blobs/uploads/?digest="+digest.String(), "application/octet-stream", content)
	}
	layers, err := image.Layers()
	must(t, err)
	for _, layer := range layers {
		digest, err := layer.Digest()
		must(t, err)
		r, err := layer.Compressed()
		must(t, err)
		content, err := io.ReadAll(r)
		must(t, err)
		upload(digest, content)
	}
	config, err := image.RawConfigFile()
	must(t, err)
	digest, err := image.ConfigName()
	must(t, err)
	upload(digest, config)
	manifest, err := image.RawManifest()
	must(t, err)
	mediaType, err := image.MediaType()
	must(t, err)
	send(http.MethodPut, base+"manifests/1", string(mediaType), manifest)
}

func TestPull(t *testing.T) {
	rt := openEngine(t)
	t.Cleanup(func() { _ = rt.Close() })
	unchanged(t, rt)
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	var protected bool
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); protected && (user != "somebody" || password != "secret") {
			w.Header().Set("WWW-Authenticate", `Basic realm="dk"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`, http.StatusUnauthorized)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")
	ref := host + "/dk/pull:1"
	push(t, server.URL+"/v2/dk/pull/", randomImage(t, "pull"))

	var progress bytes.Buffer
	image, err := rt.PullImage(t.Context(), ref, runtime.PullOptions{Progress: &progress})
	must(t, err)
	if image.Labels["dk"] != "pull" || progress.Len() == 0 {
		t.Errorf("pulled %+v with progress %q", image, progress.String())
	}
	must(t, rt.RemoveImage(t.Context(), image.ID))
	if _, err := rt.PullImage(t.Context(), host+"/dk/none:1", runtime.PullOptions{}); !errdefs.IsNotFound(err) {
		t.Errorf("a missing image: %v, want NotFound", err)
	}

	protected = true
	refused := func(err error) bool { return errdefs.IsUnauthorized(err) || errdefs.IsPermissionDenied(err) }
	if _, err := rt.PullImage(t.Context(), ref, runtime.PullOptions{}); !refused(err) {
		t.Errorf("without credentials: %v", err)
	}
	if _, err := rt.PullImage(t.Context(), ref, runtime.PullOptions{Auth: &runtime.RegistryAuth{Username: "somebody", Password: "wrong"}}); !refused(err) {
		t.Errorf("with wrong credentials: %v", err)
	} else if strings.Contains(err.Error(), "wrong") {
		t.Errorf("the error tells the password: %v", err)
	}
	image, err = rt.PullImage(t.Context(), ref, runtime.PullOptions{Auth: &runtime.RegistryAuth{Username: "somebody", Password: "secret"}})
	must(t, err)
	must(t, rt.RemoveImage(t.Context(), image.ID))
	server.Close()
	if _, err := rt.PullImage(t.Context(), ref, runtime.PullOptions{}); !errdefs.IsUnavailable(err) {
		t.Errorf("without a registry: %v, want Unavailable", err)
	}
}
