package builder

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/platforms"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/sys/mountinfo"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bottle-run/bottle/runtime"
)

const (
	envHost       = "BOTTLE_TEST_CONTAINERD_HOST"
	testNamespace = "bottle-builder-test"
	baseImage     = "docker.io/library/builder-base:test"
)

// address is that of the test's containerd; without one, the test is skipped, or
// fails where engines are required.
func address(t testing.TB) string {
	t.Helper()
	host := os.Getenv(envHost)
	if host == "" {
		const text = "NOT RUN: " + envHost + " names no containerd (hack/engines up containerd)"
		if os.Getenv("CI") != "" || os.Getenv("BOTTLE_REQUIRE_ENGINES") != "" {
			t.Fatal(text)
		}
		t.Skip(text)
	}
	return strings.TrimPrefix(host, "unix://")
}

// world is a containerd namespace for one test, with a base image in it.
type world struct {
	t      *testing.T
	client *client.Client
	opts   Options
	net    *fakeNetwork
}

func newWorld(t *testing.T) *world {
	t.Helper()
	addr := address(t)
	if os.Geteuid() != 0 {
		t.Fatal("this test takes root: run it through hack/engines as containerd --")
	}
	c, err := client.New(addr, client.WithDefaultNamespace(testNamespace))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, client: c, net: &fakeNetwork{}}
	w.opts = Options{
		Address: addr, Namespace: testNamespace, Root: filepath.Join(t.TempDir(), "root"),
		Snapshotter: "overlayfs", Network: w.net,
	}
	t.Cleanup(func() {
		w.wipe()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	w.importBase()
	return w
}

func (w *world) ctx() context.Context {
	return namespaces.WithNamespace(context.Background(), testNamespace)
}

// importBase makes an image of the static busybox.
func (w *world) importBase() {
	w.t.Helper()
	busybox, err := os.ReadFile("/bin/busybox")
	if err != nil {
		w.t.Fatalf("the test needs the static busybox: %v", err)
	}
	layer, err := layerOf(map[string]file{
		"bin/busybox": {content: busybox, mode: 0o755},
		"etc/passwd":  {content: []byte("root:x:0:0:root:/:/bin/sh\napp:x:1000:1000::/home/app:/bin/sh\n"), mode: 0o644},
		"etc/group":   {content: []byte("root:x:0:\napp:x:1000:\n"), mode: 0o644},
	}, []string{"sh", "cat", "echo", "ls", "id", "sleep", "ip", "wget", "head", "yes", "nslookup", "grep", "true", "false", "test", "mkdir", "dd", "seq", "touch", "printf", "env", "rm", "readlink", "sort", "uname", "find", "mount", "tr"})
	if err != nil {
		w.t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		w.t.Fatal(err)
	}
	p := platforms.DefaultSpec()
	if img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		OS: p.OS, Architecture: p.Architecture, Variant: p.Variant,
		RootFS: v1.RootFS{Type: "layers", DiffIDs: diffIDs(w.t, img)},
		Config: v1.Config{Env: []string{"PATH=/bin"}, Cmd: []string{"sh"}},
	}); err != nil {
		w.t.Fatal(err)
	}
	ref, err := name.NewTag(baseImage)
	if err != nil {
		w.t.Fatal(err)
	}
	var tar bytes.Buffer
	if err := tarball.Write(ref, img, &tar); err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.client.Import(w.ctx(), &tar); err != nil {
		w.t.Fatal(err)
	}
}

func diffIDs(t *testing.T, img v1.Image) []v1.Hash {
	t.Helper()
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	return config.RootFS.DiffIDs
}

// wipe removes everything in the test's namespace, and the namespace. What is
// still mounted or running is the test's failure.
func (w *world) wipe() {
	t, ctx := w.t, w.ctx()
	list, err := w.client.Containers(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		t.Errorf("container %s is left", c.ID())
		if task, err := c.Task(ctx, nil); err == nil {
			_, _ = task.Delete(ctx, client.WithProcessKill)
		}
		_ = c.Delete(ctx)
	}
	for _, m := range testMounts(t) {
		t.Errorf("mount %s is left", m)
		_ = unmount(m)
	}
	store := w.client.ImageService()
	all, err := store.List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range all {
		if err := store.Delete(ctx, img.Name); err != nil {
			t.Error(err)
		}
	}
	held, err := w.client.LeasesService().List(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range held {
		if err := w.client.LeasesService().Delete(ctx, l); err != nil {
			t.Error(err)
		}
	}
	// The last one collects what nothing refers to any more.
	l, err := w.client.LeasesService().Create(ctx, leases.WithRandomID())
	if err == nil {
		err = w.client.LeasesService().Delete(ctx, l, leases.SynchronousDelete)
	}
	if err != nil {
		t.Error(err)
	}
	if err := w.client.ContentStore().Walk(ctx, func(info content.Info) error {
		t.Errorf("content %s is left", info.Digest)
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := w.client.SnapshotService("overlayfs").Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		t.Errorf("snapshot %s is left", info.Name)
		return nil
	}); err != nil {
		t.Error(err)
	}
	if err := w.client.NamespaceService().Delete(ctx, testNamespace); err != nil {
		t.Errorf("the namespace cannot be removed: %v", err)
	}
	if n := w.net.open(); n != 0 {
		t.Errorf("%d connections of steps are left", n)
	}
}

// testMounts lists the mounts that builds make.
func testMounts(t *testing.T) []string {
	t.Helper()
	mounts, err := mountinfo.GetMounts(func(m *mountinfo.Info) (skip, stop bool) {
		return !strings.Contains(m.Mountpoint, "buildkit-mount") && !strings.Contains(m.Mountpoint, "/root/worker/"), false
	})
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, m := range mounts {
		list = append(list, m.Mountpoint)
	}
	return list
}

// temporaryLeases lists the leases that are no cache record's.
func (w *world) temporaryLeases() []string {
	w.t.Helper()
	all, err := w.client.LeasesService().List(w.ctx(), `labels."buildkit/lease.temporary"`)
	if err != nil {
		w.t.Fatal(err)
	}
	var ids []string
	for _, l := range all {
		ids = append(ids, l.ID)
	}
	return ids
}

func (w *world) imageNames() []string {
	w.t.Helper()
	all, err := w.client.ImageService().List(w.ctx())
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, img := range all {
		names = append(names, img.Name)
	}
	return names
}

func (w *world) config(ref string) ocispec.Image {
	w.t.Helper()
	img, err := w.client.GetImage(w.ctx(), ref)
	if err != nil {
		w.t.Fatal(err)
	}
	spec, err := img.Spec(w.ctx())
	if err != nil {
		w.t.Fatal(err)
	}
	return spec
}

func (w *world) builder() *Builder {
	w.t.Helper()
	b, err := New(w.opts)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := b.Close(); err != nil {
			w.t.Errorf("close the builder: %v", err)
		}
		again, err := New(w.opts)
		if err == nil {
			err = again.Purge(ctx)
		}
		if err != nil {
			w.t.Errorf("purge: %v", err)
		}
		if left := w.temporaryLeases(); len(left) != 0 {
			w.t.Errorf("leases are left: %v", left)
		}
	})
	return b
}

// write makes a build context.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func from(lines ...string) map[string]string {
	return map[string]string{"Dockerfile": "FROM builder-base:test\n" + strings.Join(lines, "\n") + "\n"}
}

// lockedBuffer may be read while it is written to.
type lockedBuffer struct {
	mu      sync.Mutex
	b       bytes.Buffer
	waiting map[string]chan struct{}
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n, err := l.b.Write(p)
	for text, seen := range l.waiting {
		if strings.Contains(l.b.String(), text) {
			close(seen)
			delete(l.waiting, text)
		}
	}
	return n, err
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await waits for a text to have been written.
func (l *lockedBuffer) await(t *testing.T, text string) {
	t.Helper()
	l.mu.Lock()
	seen := make(chan struct{})
	if strings.Contains(l.b.String(), text) {
		close(seen)
	} else {
		if l.waiting == nil {
			l.waiting = map[string]chan struct{}{}
		}
		l.waiting[text] = seen
	}
	l.mu.Unlock()
	select {
	case <-seen:
	case <-time.After(time.Minute):
		t.Fatalf("%q was not written:\n%s", text, l)
	}
}

func (w *world) build(b *Builder, spec runtime.BuildSpec) (Result, string, error) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var out lockedBuffer
	if len(spec.Tags) == 0 {
		spec.Tags = []string{"made:1"}
	}
	spec.Progress = &out
	start := time.Now()
	r, err := b.Build(ctx, spec)
	w.t.Logf("built in %v: %v\n%s", time.Since(start).Round(time.Millisecond), err, out.String())
	return r, out.String(), err
}

// must builds files and fails the test if that fails.
func (w *world) must(b *Builder, files map[string]string, spec runtime.BuildSpec) (Result, string) {
	w.t.Helper()
	spec.ContextDir = write(w.t, files)
	r, out, err := w.build(b, spec)
	if err != nil {
		w.t.Fatal(err)
	}
	return r, out
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in:\n%s", p, text)
		}
	}
}

// nothingIsLeft checks that a build left what there was before.
func (w *world) nothingIsLeft(images []string) {
	w.t.Helper()
	list, err := w.client.Containers(w.ctx())
	if err != nil {
		w.t.Fatal(err)
	}
	if len(list) != 0 {
		w.t.Errorf("%d containers are left", len(list))
	}
	if left := testMounts(w.t); len(left) != 0 {
		w.t.Errorf("mounts are left: %v", left)
	}
	// BuildKit lets go of some when the build has returned.
	deadline := time.Now().Add(10 * time.Second)
	for len(w.temporaryLeases()) != 0 {
		if time.Now().After(deadline) {
			w.t.Errorf("leases are left: %v", w.temporaryLeases())
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if now := w.imageNames(); fmt.Sprint(now) != fmt.Sprint(images) {
		w.t.Errorf("images are left: %v", now)
	}
	if n := w.net.open(); n != 0 {
		w.t.Errorf("%d connections are left", n)
	}
}
