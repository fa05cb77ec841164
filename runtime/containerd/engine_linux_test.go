package containerd

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/bottle-run/bottle/runtime"
)

// hostVariable names the containerd that the tests may use.
const hostVariable = "BOTTLE_TEST_CONTAINERD_HOST"

// testImage holds a static busybox.
const testImage = "localhost/containerd-test/busybox:1"

func needEngine(t testing.TB) string {
	t.Helper()
	host := os.Getenv(hostVariable)
	if host == "" {
		const say = hostVariable + " is not set: run `hack/engines up containerd` and `hack/engines as containerd -- go test ./runtime/containerd`"
		if os.Getenv("CI") != "" || os.Getenv("BOTTLE_REQUIRE_ENGINES") != "" {
			t.Fatal(say)
		}
		t.Skip(say)
	}
	return host
}

var loadOnce sync.Once

// testEngine opens the engine, with the test image loaded.
func testEngine(t testing.TB) *Engine {
	t.Helper()
	rt, err := Driver{}.Open(t.Context(), runtime.Options{Host: needEngine(t)})
	if err != nil {
		t.Fatal(err)
	}
	e := rt.(*Engine)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	loadOnce.Do(func() {
		if _, err := e.LoadImage(t.Context(), bytes.NewReader(busyboxArchive(t))); err != nil {
			t.Fatal(err)
		}
	})
	return e
}

// busyboxArchive is what `docker save` would write of an image with a busybox.
func busyboxArchive(t testing.TB) []byte {
	t.Helper()
	program, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("these tests need a static busybox (Debian: busybox-static)")
	}
	content, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	add := func(hdr tar.Header, content []byte) {
		hdr.Size = int64(len(content))
		if err := w.WriteHeader(&hdr); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	add(tar.Header{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	add(tar.Header{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777}, nil)
	add(tar.Header{Name: "etc/passwd", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n"))
	add(tar.Header{Name: "etc/group", Typeflag: tar.TypeReg, Mode: 0o644}, []byte("root:x:0:\nann:x:1000:\nstaff:x:50:ann\n"))
	add(tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755}, content)
	out, err := exec.Command(program, "--list").Output()
	if err != nil {
		t.Fatal(err)
	}
	for applet := range strings.FieldsSeq(string(out)) {
		if applet != "busybox" {
			add(tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777}, nil)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		Architecture: goruntime.GOARCH, OS: "linux",
		RootFS: must(img.ConfigFile()).RootFS,
		Config: v1.Config{
			Env: []string{"PATH=/bin", "FROM_IMAGE=yes"}, Cmd: []string{"sleep", "100000"},
			Labels: map[string]string{runtime.LabelManaged: "true"},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(testImage)
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := tarball.Write(ref, img, &archive); err != nil {
		t.Fatal(err)
	}
	return archive.Bytes()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// run runs a container that is gone when the test is.
func run(t testing.TB, e *Engine, spec runtime.ContainerSpec) runtime.Container {
	t.Helper()
	if spec.Image == "" {
		spec.Image = testImage
	}
	c, err := runtime.Checked(e).Run(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.RemoveContainer(context.Background(), c.ID); err != nil {
			t.Error(err)
		}
	})
	return c
}

func createNetwork(t testing.TB, e *Engine, spec runtime.NetworkSpec) runtime.Network {
	t.Helper()
	n, err := e.CreateNetwork(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.RemoveNetwork(context.Background(), n.Name); err != nil {
			t.Error(err)
		}
	})
	return n
}

// sh runs a shell command in a container and returns its output.
func sh(t testing.TB, e *Engine, container, command string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status, err := e.Exec(ctx, container, runtime.ExecSpec{Command: []string{"sh", "-c", command}, Stdout: &out, Stderr: &out})
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	return out.String(), status.Code
}
