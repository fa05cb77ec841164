package builder

import (
	"context"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/bottle-run/bottle/runtime"
)

// lostFiles make a build that has all there is to lose: layers of a base image, of
// steps, of stages, and a step that is not in the image.
func lostFiles(file string) map[string]string {
	return map[string]string{
		"Dockerfile": "FROM builder-base:test AS first\nRUN echo one > /one\nRUN echo two > /two\n" +
			"FROM scratch AS second\nCOPY --from=first /one /two /out/\nCOPY file /file\n" +
			"FROM builder-base:test\nCOPY --from=second /out /file /\nRUN cat /one /two /file > /all\n",
		"file": file,
	}
}

// A cache that outlives what containerd had of it is noticed, whatever was lost: the
// builds after that run the steps again instead of failing for ever.
func TestWhatContainerdHasLostIsBuiltAgain(t *testing.T) {
	for name, lose := range map[string]func(*world){
		// As when /var/lib/containerd was removed, and /var/lib/bottle was not.
		"everything": func(w *world) {
			w.removeAll(func(string) bool { return true })
			store := w.client.ImageService()
			for _, name := range w.imageNames() {
				w.check(store.Delete(w.ctx(), name))
			}
			w.check(collect(w.ctx(), w.client.LeasesService()))
			w.importBase()
		},
		// As by somebody who cleans up.
		"the leases": func(w *world) {
			w.removeAll(func(string) bool { return true })
			w.check(w.client.ImageService().Delete(w.ctx(), "docker.io/library/made:1"))
			w.check(collect(w.ctx(), w.client.LeasesService()))
		},
		// What is there now is not there for long.
		"the leases, not yet what they held": func(w *world) {
			w.removeAll(func(string) bool { return true })
		},
		"the leases of layers": func(w *world) {
			w.removeAll(func(id string) bool { return !strings.Contains(id, "-") })
			w.check(w.client.ImageService().Delete(w.ctx(), "docker.io/library/made:1"))
			w.check(collect(w.ctx(), w.client.LeasesService()))
		},
		"the content": func(w *world) {
			w.check(w.client.ImageService().Delete(w.ctx(), "docker.io/library/made:1"))
			w.check(w.client.ImageService().Delete(w.ctx(), baseImage))
			store := w.client.ContentStore()
			var all []digest.Digest
			w.check(store.Walk(w.ctx(), func(info content.Info) error { all = append(all, info.Digest); return nil }))
			for _, d := range all {
				// The collector may have been there before.
				if err := store.Delete(w.ctx(), d); !errdefs.IsNotFound(err) {
					w.check(err)
				}
			}
			w.check(collect(w.ctx(), w.client.LeasesService()))
			w.importBase()
		},
		"the snapshots": func(w *world) {
			w.check(w.client.ImageService().Delete(w.ctx(), "docker.io/library/made:1"))
			w.check(collect(w.ctx(), w.client.LeasesService()))
			w.removeSnapshots()
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			b := w.builder()
			w.must(b, lostFiles("three"), runtime.BuildSpec{})
			w.check(b.Close())
			lose(w)
			// Most steps are what they were; one is to be put on what is lost.
			for _, file := range []string{"three", "four"} {
				b = w.builder()
				w.must(b, lostFiles(file), runtime.BuildSpec{})
				w.check(b.Close())
				w.complete("docker.io/library/made:1")
				w.check(w.client.ImageService().Delete(w.ctx(), "docker.io/library/made:1"))
				w.check(collect(w.ctx(), w.client.LeasesService()))
			}
			// From now on it is the cache that it was.
			b = w.builder()
			if _, out := w.must(b, lostFiles("four"), runtime.BuildSpec{}); strings.Count(out, "(cached)") < 6 {
				t.Error("what was built again is not cached")
			}
		})
	}
}

// Without a loss there is nothing to drop: each record of builds, one that failed
// among them, is held by containerd, and BuildKit names things as is believed here.
func TestWhatContainerdHasIsKept(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	w.must(b, lostFiles("three"), runtime.BuildSpec{})
	w.must(b, map[string]string{
		"Dockerfile": "FROM builder-base:test\nCOPY --link file /file\nRUN --mount=type=cache,target=/cache echo x > /cache/x\nADD file /other\n", "file": "x",
	}, runtime.BuildSpec{Tags: []string{"other:1"}})
	w.must(b, map[string]string{"Dockerfile": "FROM builder-base:test\nENV A=b\n"}, runtime.BuildSpec{Tags: []string{"third:1"}})
	if _, _, err := w.build(b, runtime.BuildSpec{ContextDir: write(t, from("RUN echo x > /x", "RUN false"))}); err == nil {
		t.Fatal("a step that fails did not")
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"docker.io/library/made:1", "docker.io/library/other:1", "docker.io/library/third:1"} {
		w.check(w.client.ImageService().Delete(w.ctx(), name))
	}
	w.check(collect(w.ctx(), w.client.LeasesService()))

	records, err := metadata.NewStore(filepath.Join(w.opts.Root, "worker", "metadata_v2.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = records.Close() }()
	items, err := records.All()
	if err != nil {
		t.Fatal(err)
	}
	s := &solver{opts: w.opts, client: w.client}
	there, err := s.takeStock(w.ctx())
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	byID := map[string]*metadata.StorageItem{}
	for _, item := range items {
		byID[item.ID()] = item
		for _, key := range item.Keys() {
			seen[key]++
		}
	}
	for _, item := range items {
		if !there.holds(item, byID) {
			t.Errorf("record %s is taken for lost: %v", item.ID(), item.Keys())
		}
	}
	for _, key := range []string{keySnapshot, keyBlob, keyBlobOnly, keyMutable, keyCommitted, keyMerged} {
		if seen[key] == 0 {
			t.Errorf("no record has %s: BuildKit names it otherwise, or the test does not make one", key)
		}
	}
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// removeAll removes leases without looking at what becomes of what they hold.
func (w *world) removeAll(which func(id string) bool) {
	w.t.Helper()
	manager := w.client.LeasesService()
	list, err := manager.List(w.ctx())
	w.check(err)
	removed := 0
	for _, l := range list {
		if which(l.ID) {
			w.check(manager.Delete(w.ctx(), leases.Lease{ID: l.ID}))
			removed++
		}
	}
	if removed == 0 {
		w.t.Fatal("there was no lease: the test tests nothing")
	}
}

// removeSnapshots removes all that containerd lets go of: from the top, those that
// hold up no other.
func (w *world) removeSnapshots() {
	w.t.Helper()
	store := w.client.SnapshotService(w.opts.Snapshotter)
	total := 0
	for removed := 1; removed > 0; total += removed {
		var names []string
		w.check(store.Walk(w.ctx(), func(_ context.Context, info snapshots.Info) error {
			names = append(names, info.Name)
			return nil
		}))
		removed = 0
		for _, name := range names {
			err := store.Remove(w.ctx(), name)
			if err == nil {
				removed++
			} else if !errdefs.IsFailedPrecondition(err) {
				w.t.Fatal(err)
			}
		}
	}
	if total == 0 {
		w.t.Fatal("there was no snapshot: the test tests nothing")
	}
}

// complete checks that an image can be read to its last layer.
func (w *world) complete(name string) {
	w.t.Helper()
	img, err := w.client.GetImage(w.ctx(), name)
	w.check(err)
	diffs, err := img.RootFS(w.ctx())
	w.check(err)
	var found []digest.Digest
	store := w.client.ContentStore()
	w.check(store.Walk(w.ctx(), func(info content.Info) error {
		r, err := store.ReaderAt(w.ctx(), ocispec.Descriptor{Digest: info.Digest, Size: info.Size})
		if err != nil {
			return err
		}
		defer r.Close()
		plain, err := compression.DecompressStream(content.NewReader(r))
		if err != nil {
			return nil //nolint:nilerr // no layer
		}
		defer plain.Close()
		d, err := digest.FromReader(plain)
		found = append(found, d)
		return err
	}))
	for _, d := range diffs {
		if !slices.Contains(found, d) {
			w.t.Errorf("layer %s of %s is not there", d, name)
		}
	}
}
