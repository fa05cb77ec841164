package core

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strconv"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core/imagecache"
	"github.com/bottle-run/bottle/core/trust"
	"github.com/bottle-run/bottle/runtime"
)

// opener opens the archive of a path, as [runtime.Containers.CopyFrom] does.
type opener func(ctx context.Context, name string) (io.ReadCloser, error)

// inContainer opens what a container holds now.
func inContainer(rt runtime.Runtime, container string) opener {
	return func(ctx context.Context, name string) (io.ReadCloser, error) {
		return rt.CopyFrom(ctx, container, name)
	}
}

// view is what a new container shows of its image, before anything is put into it: asked of
// the container, and of what launches before have learnt of the image.
type view struct {
	rt        runtime.Runtime
	container string            // empty if there is none yet: then only what is known is told
	known     *imagecache.Entry // nil if nothing is
}

// errNotKnown is what only the container can tell.
var errNotKnown = errors.New("it is not known what the image holds")

// open is an [opener].
func (v view) open(ctx context.Context, name string) (io.ReadCloser, error) {
	if data, there, known := v.known.Archive(name); known {
		if !there {
			return nil, runtime.Errorf(errdefs.ErrNotFound, "the image has no %s", name)
		}
		return io.NopCloser(bytes.NewReader(data)), nil
	}
	if v.container == "" {
		return nil, errNotKnown
	}
	archive, err := v.rt.CopyFrom(ctx, v.container, name)
	if errdefs.IsNotFound(err) {
		v.known.Absent(name)
	}
	if err != nil || v.known == nil {
		return archive, err
	}
	data, err := io.ReadAll(io.LimitReader(archive, imagecache.MaxEntry))
	if err != nil {
		return nil, errors.Join(err, archive.Close())
	}
	if len(data) == imagecache.MaxEntry { // the rest is not kept, and nothing of it
		return struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(data), archive), archive}, nil
	}
	if err := archive.Close(); err != nil {
		return nil, err
	}
	v.known.Keep(name, data)
	return io.NopCloser(bytes.NewReader(data)), nil
}

// view is of the agent's container.
func (l *launch) view() view { return view{rt: l.rt, container: l.container.ID, known: l.known} }

// recall finds out whether launches before have learnt what this one has to know of the image
// before it fills the agent's container: then the engine need not be asked, and more of what
// is put in goes in before the container starts.
func (l *launch) recall(ctx context.Context) error {
	spec := []string{"user", l.userSpec(), "directory", l.plan.WorkDir, "read-only", strconv.FormatBool(l.plan.ReadOnly), "egress", strconv.FormatBool(l.egress != nil)}
	for _, t := range l.plan.Tmpfs {
		spec = append(spec, "tmpfs", t.Target)
	}
	l.known = l.opts.Images.Load(imagecache.Key{Engine: l.info.Engine + " " + l.info.Version, Image: l.image.ID, Spec: spec})
	v := view{known: l.known}
	user, err := l.agentUser(ctx, v.open)
	var store *trust.Store
	if err == nil && l.egress != nil {
		store, err = readStore(ctx, v.open, trust.ImageFiles(l.image.Config.Env))
	}
	if err != nil {
		// Whatever it is: if it is the image's fault, the container shows it.
		return nil
	}
	l.user, l.store, l.recalled = user, store, true
	return nil
}
