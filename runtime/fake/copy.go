package fake

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// CopyTo implements [runtime.Containers].
func (e *Engine) CopyTo(ctx context.Context, name, dir string, archive io.Reader) error {
	const op = "copy to container"
	if err := e.enter(ctx, "CopyTo", op, name); err != nil {
		return err
	}
	// Read first: the archive comes from the caller, who may call the engine.
	entries, err := readArchive(ctx, archive)
	if err != nil {
		return fail(op, name, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.container(name)
	switch {
	case c == nil && e.isForeign("containers", name):
		return fail(op, name, foreign("container", name))
	case c == nil:
		return fail(op, name, notFound("container", name))
	}
	node, at, err := c.files.lookup(dir, true)
	switch {
	case err != nil:
		return fail(op, name, pathError(err))
	case !node.Mode.IsDir():
		return fail(op, name, invalid("%q is not a directory", dir))
	case c.readOnly(at):
		return fail(op, name, precondition("%q is read-only", dir))
	}
	// All or nothing: into a copy, which then takes the place of the tree.
	files := c.files.clone()
	if err := extract(files, at, entries); err != nil {
		return fail(op, name, err)
	}
	c.files = files
	return nil
}

// CopyFrom implements [runtime.Containers].
func (e *Engine) CopyFrom(ctx context.Context, name, file string) (io.ReadCloser, error) {
	const op = "copy from container"
	if err := e.enter(ctx, "CopyFrom", op, name); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.container(name)
	if c == nil {
		return nil, fail(op, name, notFound("container", name))
	}
	node, at, err := c.files.lookup(file, false)
	if err != nil {
		return nil, fail(op, name, pathError(err))
	}
	node = node.clone()
	r, w := io.Pipe()
	stop := context.AfterFunc(ctx, func() { w.CloseWithError(context.Cause(ctx)) })
	go func() {
		defer stop()
		tw := tar.NewWriter(w)
		base := path.Base(at)
		if at == "/" {
			base = "."
		}
		w.CloseWithError(errors.Join(node.write(tw, base), tw.Close()))
	}()
	return r, nil
}

// entry is an archive's entry with its content.
type entry struct {
	*tar.Header
	content []byte
}

func readArchive(ctx context.Context, r io.Reader) ([]entry, error) {
	var entries []entry
	for tr := tar.NewReader(contextReader{ctx, r}); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return entries, nil
		}
		if err != nil {
			return nil, archiveError(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			return nil, archiveError(err)
		}
		entries = append(entries, entry{h, content})
	}
}

// contextReader fails when its context has ended.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// archiveError gives a kind to what is the archive's fault, and leaves an error
// of the reader, which may have one, as it is.
func archiveError(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrFieldTooLong) {
		return invalid("the archive cannot be read: %v", err)
	}
	return err
}

func extract(files *tree, dir string, entries []entry) error {
	links := map[string]bool{}
	seen := map[string]bool{}
	for _, h := range entries {
		name := path.Clean(h.Name)
		if path.IsAbs(name) || name == ".." || strings.HasPrefix(name, "../") || strings.Contains("/"+h.Name+"/", "/../") {
			return invalid("archive entry %q leads out of the archive", h.Name)
		}
		for up := path.Dir(name); up != "." && up != "/"; up = path.Dir(up) {
			if links[up] {
				return invalid("archive entry %q is below a symbolic link of the archive", h.Name)
			}
		}
		node := &Node{Mode: h.FileInfo().Mode(), UID: h.Uid, GID: h.Gid, ModTime: h.ModTime}
		switch h.Typeflag {
		case tar.TypeDir:
			node.children = map[string]*Node{}
		case tar.TypeReg, tar.TypeGNUSparse:
			node.Content = h.content
		case tar.TypeSymlink:
			node.Link = h.Linkname
			links[name] = true
		case tar.TypeLink:
			target := path.Clean(h.Linkname)
			if !seen[target] {
				return invalid("archive entry %q is a hard link to outside the archive", h.Name)
			}
			old, _, err := files.lookup(path.Join(dir, target), false)
			if err != nil {
				return pathError(err)
			}
			node = old
		default:
			return invalid("archive entry %q is neither a file, a directory nor a link", h.Name)
		}
		seen[name] = true
		if err := files.put(path.Join(dir, name), node); err != nil {
			return pathError(err)
		}
	}
	return nil
}

// pathError gives a kind to an error of the tree.
func pathError(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return runtime.WithKind(errdefs.ErrNotFound, err)
	default:
		return runtime.WithKind(errdefs.ErrInvalidArgument, err)
	}
}
