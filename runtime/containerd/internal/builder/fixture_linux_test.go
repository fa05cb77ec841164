package builder

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/opencontainers/go-digest"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

type file struct {
	content []byte
	mode    int64
}

// layerOf makes a layer of files, and of links to busybox.
func layerOf(files map[string]file, commands []string) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, dir := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "home", "home/app"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	for name, f := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: f.mode, Size: int64(len(f.content))}); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.content); err != nil {
			return nil, err
		}
	}
	for _, c := range commands {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + c, Linkname: "busybox", Mode: 0o777}); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}

// fakeNetwork connects a namespace to nothing but a bridge with an address, by which
// a step can tell where it is.
type fakeNetwork struct {
	mu    sync.Mutex
	conns int
	fail  error
}

const fakeAddress = "203.0.113.7/24"

func (f *fakeNetwork) Connect(_ context.Context, path string) (Connection, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return Connection{}, f.fail
	}
	space, err := netns.GetFromPath(path)
	if err != nil {
		return Connection{}, err
	}
	defer func() { _ = space.Close() }()
	inside, err := netlink.NewHandleAt(space, unix.NETLINK_ROUTE)
	if err != nil {
		return Connection{}, err
	}
	defer inside.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "eth0"
	if err := inside.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
		return Connection{}, err
	}
	device, err := inside.LinkByName("eth0")
	if err != nil {
		return Connection{}, err
	}
	addr, err := netlink.ParseAddr(fakeAddress)
	if err != nil {
		return Connection{}, err
	}
	if err := inside.AddrAdd(device, addr); err != nil {
		return Connection{}, err
	}
	if err := inside.LinkSetUp(device); err != nil {
		return Connection{}, err
	}
	f.conns++
	return Connection{ResolvConf: []byte("nameserver 203.0.113.53\n"), Close: func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.conns--
		if f.conns < 0 {
			return fmt.Errorf("closed twice")
		}
		return nil
	}}, nil
}

func (f *fakeNetwork) open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns
}

// registryOf serves one image, whatever its tag.
func registryOf(t *testing.T, repository string, img v1.Image) http.Handler {
	t.Helper()
	manifest, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	blobs := map[string][]byte{digest.FromBytes(config).String(): config}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		blobs[digest.FromBytes(content).String()] = content
	}
	media, err := img.MediaType()
	if err != nil {
		t.Fatal(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/" {
			return
		}
		what, found := strings.CutPrefix(r.URL.Path, "/v2/"+repository+"/")
		kind, id, _ := strings.Cut(what, "/")
		content := blobs[id]
		if kind == "manifests" {
			content = manifest
			w.Header().Set("Content-Type", string(media))
			w.Header().Set("Docker-Content-Digest", digest.FromBytes(manifest).String())
		}
		if !found || content == nil {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	})
}
