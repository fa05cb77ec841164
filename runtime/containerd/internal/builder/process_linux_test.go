package builder

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	bkclient "github.com/moby/buildkit/client"
	"github.com/opencontainers/image-spec/identity"

	"github.com/bottle-run/bottle/runtime"
)

// envChild makes the test binary a process that builds: its value is the root and
// the context.
const envChild = "BOTTLE_TEST_BUILDER_CHILD"

func TestMain(m *testing.M) {
	if what := os.Getenv(envChild); what != "" {
		os.Exit(child(what))
	}
	os.Exit(m.Run())
}

func child(what string) int {
	root, dir, _ := strings.Cut(what, "|")
	b, err := New(Options{
		Address: strings.TrimPrefix(os.Getenv(envHost), "unix://"), Namespace: testNamespace, Root: root,
		Snapshotter: "overlayfs", Network: &fakeNetwork{},
	})
	if err == nil {
		_, err = b.Build(context.Background(), runtime.BuildSpec{ContextDir: dir, Tags: []string{"child:1"}, Progress: os.Stdout})
		err = errors.Join(err, b.Close())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// startChild builds a context in another process, and returns when it has printed a
// line.
func (w *world) startChild(dir, line string) *exec.Cmd {
	w.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envChild+"="+w.opts.Root+"|"+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	seen := make(chan bool, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if lines.Text() == line {
				seen <- true
			}
		}
		seen <- false
	}()
	select {
	case ok := <-seen:
		if !ok {
			w.t.Fatalf("the other process ended: %v", cmd.Wait())
		}
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		w.t.Fatal("the other process does not build")
	}
	return cmd
}

func TestWhatAKilledBuildLeavesIsRemoved(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	before := w.imageNames()
	dir := write(t, from("RUN echo one > /one", "RUN echo begun; sleep 1000; true"))
	kill := func() {
		t.Helper()
		cmd := w.startChild(dir, "begun")
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		list, err := w.client.Containers(w.ctx())
		if err != nil || len(list) != 1 {
			t.Fatalf("containers of the killed build: %v %v", list, err)
		}
		if len(testMounts(t)) == 0 {
			t.Fatal("the killed build left no mount: the test tests nothing")
		}
		// As if it had been killed when its image was made.
		base, err := w.client.ImageService().Get(w.ctx(), baseImage)
		if err == nil {
			_, err = w.client.ImageService().Create(w.ctx(), images.Image{Name: temporaryPrefix + "x:building", Target: base.Target})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	kill()
	if err := b.Cleanup(context.Background()); err != nil {
		t.Fatal(err)
	}
	list, err := w.client.Containers(w.ctx())
	if err != nil || len(list) != 0 {
		t.Errorf("containers %v %v", list, err)
	}
	if left := testMounts(t); len(left) != 0 {
		t.Errorf("mounts %v", left)
	}
	if now := w.imageNames(); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("images %v", now)
	}

	kill()
	w.must(b, from("RUN echo something else"), runtime.BuildSpec{Tags: []string{"made:1"}})
	w.nothingIsLeft(append(before, "docker.io/library/made:1"))
}

func TestOnlyMountsOfOurSnapshotsAreRemoved(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	w.must(b, from("RUN echo one > /one"), runtime.BuildSpec{})
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := w.client.GetImage(w.ctx(), "docker.io/library/made:1")
	if err != nil {
		t.Fatal(err)
	}
	layers, err := img.RootFS(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	store := w.client.SnapshotService("overlayfs")
	// containerd's collector comes by whenever it wants.
	keep := snapshots.WithLabels(map[string]string{"containerd.io/gc.root": "test"})
	view, err := store.View(w.ctx(), "view", identity.ChainID(layers).String(), keep)
	if err != nil {
		t.Fatal(err)
	}
	active, err := store.Prepare(w.ctx(), "active", identity.ChainID(layers).String(), keep)
	if err != nil {
		t.Fatal(err)
	}
	first, err := store.View(w.ctx(), "first", identity.ChainID(layers[:1]).String(), keep)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		for _, key := range []string{"view", "active", "first"} {
			if err := store.Remove(w.ctx(), key); err != nil {
				t.Error(err)
			}
		}
	}()
	foreign := t.TempDir()
	other := []mount.Mount{{Type: "overlay", Source: "overlay", Options: []string{"lowerdir=" + t.TempDir() + ":" + t.TempDir()}}}
	bind := []mount.Mount{{Type: "bind", Source: t.TempDir(), Options: []string{"rbind", "ro"}}}
	for dir, mounts := range map[string][]mount.Mount{
		"buildkit-mount1": view, "buildkit-mount2": active, "buildkit-mount3": first,
		"buildkit-mount4": other, "buildkit-mount5": bind, "another1": view,
	} {
		dir = filepath.Join(foreign, dir)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := unmount(dir); err != nil {
				t.Error(err)
			}
		}()
		if err := mount.All(mounts, dir); err != nil {
			t.Fatal(err)
		}
	}
	again, err := New(w.opts)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = again.Close() }()
	if err := again.Cleanup(context.Background()); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(foreign)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(entries); got != "[d another1/ d buildkit-mount4/ d buildkit-mount5/]" {
		t.Errorf("left: %s", got)
	}
}

func TestAnotherProcessIsWaitedFor(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	cmd := w.startChild(write(t, from("RUN echo begun; sleep 3; echo done")), "begun")
	defer func() { _ = cmd.Process.Kill() }()
	dir := write(t, from("RUN echo mine"))

	ctx, cancel := context.WithCancel(context.Background())
	var out lockedBuffer
	ended := make(chan error, 1)
	go func() {
		_, err := b.Build(ctx, runtime.BuildSpec{ContextDir: dir, Tags: []string{"made:1"}, Progress: &out})
		ended <- err
	}()
	out.await(t, "waiting for another process that builds in "+w.opts.Root)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	// What belongs to a process that lives is not touched.
	if err := b.Cleanup(context.Background()); err != nil {
		t.Error(err)
	}
	if _, _, err := w.build(b, runtime.BuildSpec{ContextDir: dir}); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the other process: %v", err)
	}
	if names := fmt.Sprint(w.imageNames()); !strings.Contains(names, "child:1") || !strings.Contains(names, "made:1") {
		t.Errorf("images %s", names)
	}
}

func TestAnIdleBuilderLetsGo(t *testing.T) {
	w := newWorld(t)
	w.opts.Idle = 50 * time.Millisecond
	b := w.builder()
	w.must(b, from("RUN echo one"), runtime.BuildSpec{})
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	lock, err := takeRoot(ctx, w.opts.Root, nil)
	if err != nil {
		t.Fatal(err)
	}
	lock.release()

	// One that is waited for does not idle.
	w.opts.Idle = time.Hour
	long := w.builder()
	var out lockedBuffer
	ended := make(chan error, 1)
	dir := write(t, from("RUN echo begun; sleep 1"))
	go func() {
		_, err := long.Build(ctx, runtime.BuildSpec{ContextDir: dir, Tags: []string{"made:1"}, Progress: &out})
		ended <- err
	}()
	out.await(t, "\nbegun\n")
	if lock, err = takeRoot(ctx, w.opts.Root, nil); err != nil {
		t.Fatal(err)
	}
	lock.release()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPruneFreesWhatNoImageNeeds(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	w.must(b, from("RUN dd if=/dev/zero of=/big bs=1000000 count=5", "RUN rm /big"), runtime.BuildSpec{})
	if err := w.client.ImageService().Delete(w.ctx(), "docker.io/library/made:1"); err != nil {
		t.Fatal(err)
	}
	freed, err := b.Prune(context.Background())
	if err != nil || freed < 5_000_000 {
		t.Errorf("freed %d %v", freed, err)
	}
	if freed, err = b.Prune(context.Background()); err != nil || freed != 0 {
		t.Errorf("freed again %d %v", freed, err)
	}
	_, out := w.must(b, from("RUN dd if=/dev/zero of=/big bs=1000000 count=5"), runtime.BuildSpec{})
	if strings.Contains(out, "(cached)") {
		t.Error("pruned, and still cached")
	}
}

func TestTheCacheIsKeptSmall(t *testing.T) {
	w := newWorld(t)
	w.opts.KeepBytes = 7_000_000
	b := w.builder()
	for i := range 4 {
		w.must(b, from(fmt.Sprintf("RUN dd if=/dev/urandom of=/big%d bs=1000000 count=3", i)), runtime.BuildSpec{})
	}
	_, s, done, err := b.use(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	size := func() (sum int64) {
		t.Helper()
		list, err := s.worker.DiskUsage(context.Background(), bkclient.DiskUsageInfo{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range list {
			if !r.Shared {
				sum += r.Size
			}
		}
		return sum
	}
	before := size()
	if err := s.collectSometimes(); err != nil {
		t.Fatal(err)
	}
	after := size()
	if before < 9_000_000 || after > w.opts.KeepBytes || after == 0 {
		t.Errorf("%d bytes before, %d after", before, after)
	}
	if err := s.collectSometimes(); err != nil {
		t.Fatal(err)
	}
}

func TestNothingIsMadeWithoutABuild(t *testing.T) {
	opts := Options{Address: "/no/such/socket", Namespace: "n", Root: t.TempDir() + "/root", Snapshotter: "overlayfs"}
	b, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Prune(context.Background()); err != nil {
		t.Error(err)
	}
	if err := b.Cleanup(context.Background()); err != nil {
		t.Error(err)
	}
	if err := b.Purge(context.Background()); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(opts.Root); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the root was made: %v", err)
	}
	for _, spoil := range []func(*Options){
		func(o *Options) { o.Address = "" }, func(o *Options) { o.Namespace = "" },
		func(o *Options) { o.Root = "relative" }, func(o *Options) { o.Snapshotter = "" },
	} {
		wrong := opts
		spoil(&wrong)
		if _, err := New(wrong); err == nil {
			t.Errorf("accepted: %+v", wrong)
		}
	}
}
