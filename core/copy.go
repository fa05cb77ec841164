package core

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core/unpack"
	"github.com/bottle-run/bottle/core/workspace"
)

// CopyIn copies a file or a directory of the host, all of it, into the bottle; the
// copy belongs to the agent. If target is a directory there, or ends in "/", the
// copy goes into it under its own name; otherwise target is its new name.
// Directories that are missing are made. It returns notes on what was left out.
func (b *Bottle) CopyIn(ctx context.Context, source, target string) (notes []string, err error) {
	if !path.IsAbs(target) {
		return nil, Errorf(KindInput, "%q: a path inside a bottle is absolute", target)
	}
	info, err := os.Stat(source)
	if err != nil {
		return nil, withKind(KindInput, err)
	}
	container := b.agent()
	owner, err := resolveUser(ctx, inContainer(b.rt, container), b.user)
	if err != nil {
		return nil, err
	}
	into := strings.HasSuffix(target, "/")
	if !into {
		p := placer{rt: b.rt, container: container}
		switch err := p.send(ctx, path.Clean(target), func(*tar.Writer) error { return nil }); {
		case err == nil:
			into = true
		// A file in its place will be replaced.
		case !errdefs.IsNotFound(err) && !errdefs.IsInvalidArgument(err) && !errdefs.IsFailedPrecondition(err):
			return nil, err
		}
	}
	if into {
		full, err := filepath.Abs(source)
		if err != nil {
			return nil, withKind(KindInput, err)
		}
		target = path.Join(target, filepath.Base(full))
	}
	it := item{target: path.Clean(target)}
	if info.IsDir() {
		tree, err := workspace.Scan(ctx, source, workspace.Options{All: true})
		if err != nil {
			return nil, withKind(KindInput, err)
		}
		notes = tree.Notes
		it = treeItem(tree, it.target, owner)
	} else {
		if !info.Mode().IsRegular() {
			return nil, Errorf(KindInput, "%s is neither a file nor a directory", source)
		}
		it.write = func(_ context.Context, w *tar.Writer, name string) error {
			return writeFile(w, source, header(name, uint32(info.Mode().Perm()), owner))
		}
	}
	return notes, place(ctx, b.rt, container, []item{it}, owner)
}

// CopyOut copies a file or a directory of the bottle to the host, as package
// unpack does. If target is a directory, the copy goes into it under its own name;
// otherwise target is its new name, in a directory that exists.
func (b *Bottle) CopyOut(ctx context.Context, source, target string, opts unpack.Options) (result unpack.Result, err error) {
	if !path.IsAbs(source) {
		return result, Errorf(KindInput, "%q: a path inside a bottle is absolute", source)
	}
	dir, name := filepath.Dir(filepath.Clean(target)), filepath.Base(filepath.Clean(target))
	if info, err := os.Stat(target); err == nil && info.IsDir() {
		dir, name = target, path.Base(path.Clean(source))
		if name == "/" {
			return result, Errorf(KindInput, "the root directory has no name: copy it under a new one, such as %s", filepath.Join(target, b.Name))
		}
	} else if strings.HasSuffix(target, string(filepath.Separator)) {
		return result, Errorf(KindInput, "%s is not a directory", target)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return result, withKind(KindInput, err)
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	archive, err := b.rt.CopyFrom(ctx, b.agent(), path.Clean(source))
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, archive.Close()) }()
	if result, err = unpack.Extract(ctx, archive, root, name, opts); err != nil {
		return result, fmt.Errorf("copy %s to %s: %w", source, filepath.Join(dir, name), err)
	}
	// What follows the archive's end is read, so that the engine sees it taken.
	_, err = io.Copy(io.Discard, io.LimitReader(archive, 1<<20))
	return result, err
}
