package core

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core/imagecache"
	"github.com/bottle-run/bottle/core/internal/graph"
	"github.com/bottle-run/bottle/core/workspace"
	"github.com/bottle-run/bottle/runtime"
)

// item is something to put at a place inside a container.
type item struct {
	target string // absolute, clean
	// write adds it to an archive under a name.
	write func(ctx context.Context, w *tar.Writer, name string) error
}

// place puts items into a container, all in one archive: to an engine a copy of anything is
// more than most of what is copied. Directories that are missing are made and belong to the
// owner; those that exist stay as they are. An item that is inside of another comes after it.
func place(ctx context.Context, rt runtime.Runtime, container string, items []item, owner account) error {
	return placer{rt: rt, container: container}.place(ctx, items, owner)
}

func (p placer) place(ctx context.Context, items []item, owner account) error {
	if len(items) == 0 {
		return nil
	}
	exists, err := p.look(ctx, items)
	if err != nil {
		return err
	}
	return p.send(ctx, "/", func(w *tar.Writer) error {
		for _, it := range items {
			name := strings.TrimPrefix(it.target, "/")
			if err := makeParents(w, name, exists, owner); err != nil {
				return err
			}
			if err := it.write(ctx, w, name); err != nil {
				return err
			}
		}
		return nil
	})
}

// makeParents adds the directories that lead to a name, each once.
func makeParents(w *tar.Writer, name string, made map[string]bool, owner account) error {
	for i, c := range name {
		dir := name[:i]
		if c != '/' || made[dir] {
			continue
		}
		made[dir] = true
		err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755, Uid: owner.UID, Gid: owner.GID, ModTime: time.Now(), Format: tar.FormatPAX})
		if err != nil {
			return err
		}
	}
	return nil
}

// placer puts things into a container.
type placer struct {
	rt        runtime.Runtime
	container string
	known     *imagecache.Entry // of a container into which nothing has been put; may be nil
	made      []layer           // trees among the items
}

// look finds out which of the directories that lead to the items exist, all at once. Their
// names are as in an archive of the root.
func (p placer) look(ctx context.Context, items []item) (exists map[string]bool, err error) {
	var dirs []string
	for _, it := range items {
		for dir := path.Dir(it.target); dir != "/"; dir = path.Dir(dir) {
			if !slices.Contains(dirs, dir) {
				dirs = append(dirs, dir)
			}
		}
	}
	exists = map[string]bool{}
	dirs = slices.DeleteFunc(dirs, func(dir string) bool {
		there, known := p.known.Dir(dir)
		if slices.ContainsFunc(p.made, func(y layer) bool { mode, ok := y.holds(dir); return ok && mode.IsDir() }) {
			there, known = true, true
		}
		exists[dir[1:]] = there
		return known
	})
	errs := make([]error, len(dirs))
	var looking sync.WaitGroup
	for i, dir := range dirs {
		looking.Go(func() {
			// To copy nothing into a directory tells whether it is there.
			errs[i] = graph.Guard(func() error { return p.send(ctx, dir, func(*tar.Writer) error { return nil }) })
		})
	}
	looking.Wait()
	for i, dir := range dirs {
		if err := errs[i]; err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
		exists[dir[1:]] = errs[i] == nil
		p.known.NoteDir(dir, errs[i] == nil)
	}
	return exists, nil
}

// send streams an archive into a directory of the container.
func (p placer) send(ctx context.Context, dir string, write func(*tar.Writer) error) error {
	r, w := io.Pipe()
	written := make(chan error, 1)
	go func() {
		tw := tar.NewWriter(w)
		err := graph.Guard(func() error { return write(tw) })
		if err == nil {
			err = tw.Close()
		}
		// The reader sees the error in place of the archive's end.
		w.CloseWithError(err)
		written <- err
	}()
	// If the engine's part panics, the writer is released all the same.
	defer func() { _ = r.CloseWithError(errNotRead) }()
	err := p.rt.CopyTo(ctx, p.container, dir, r)
	// The writer is released if the engine has not read everything.
	_ = r.CloseWithError(errNotRead)
	if cause := <-written; cause != nil && !errors.Is(cause, errNotRead) {
		return cause
	}
	return err
}

// errNotRead is an archive whose reader has stopped.
var errNotRead = errors.New("the archive is not read to its end")

// fileItems turns the plan's files into items; trees holds the scanned directories
// by source.
func fileItems(files []File, trees map[string]*workspace.Tree, owner account) []item {
	items := make([]item, 0, len(files))
	for _, f := range files {
		target := expandHome(f.Target, owner.Home)
		switch {
		case f.Tree:
			items = append(items, treeItem(trees[f.Source], target, owner))
		case f.Source != "":
			items = append(items, item{target, func(_ context.Context, w *tar.Writer, name string) error {
				return writeFile(w, f.Source, header(name, f.Mode, owner))
			}})
		default:
			items = append(items, item{target, func(_ context.Context, w *tar.Writer, name string) error {
				h := header(name, f.Mode, owner)
				h.Size = int64(len(f.Content))
				if err := w.WriteHeader(h); err != nil {
					return err
				}
				_, err := io.WriteString(w, f.Content)
				return err
			}})
		}
	}
	// What lies deeper comes later, so that a tree's own directories are made by it.
	slices.SortStableFunc(items, func(a, b item) int { return strings.Compare(a.target, b.target) })
	return items
}

func treeItem(tree *workspace.Tree, target string, owner account) item {
	return item{target, func(ctx context.Context, w *tar.Writer, name string) error {
		return tree.Write(ctx, w, name, owner.UID, owner.GID)
	}}
}

func header(name string, mode uint32, owner account) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Uid: owner.UID, Gid: owner.GID, ModTime: time.Now(), Format: tar.FormatPAX}
}

func writeFile(w *tar.Writer, source string, h *tar.Header) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Size, h.ModTime = info.Size(), info.ModTime()
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.CopyN(w, f, h.Size)
	if errors.Is(err, io.EOF) {
		err = errors.New(source + " became shorter while it was read")
	}
	return err
}

// expandHome resolves ~/ inside the bottle.
func expandHome(p, home string) string {
	if rest, ok := strings.CutPrefix(p, "~/"); ok {
		return path.Join(home, rest)
	}
	return path.Clean(p)
}
