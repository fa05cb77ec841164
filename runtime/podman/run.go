package podman

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// Run implements [runtime.Containers].
//
// What changes something on the engine is not interrupted when ctx ends: a
// request that was cut off may or may not have happened. It is let to end and then
// undone.
func (e *engine) Run(ctx context.Context, spec runtime.ContainerSpec) (runtime.Container, error) {
	const op = "run container"
	c, err := e.run(ctx, spec)
	if err != nil {
		return runtime.Container{}, wrap(ctx, op, spec.Name, err)
	}
	return c, nil
}

func (e *engine) run(ctx context.Context, spec runtime.ContainerSpec) (_ runtime.Container, err error) {
	p, err := e.plan(ctx, spec)
	if err != nil {
		return runtime.Container{}, err
	}
	body, err := p.request()
	if err != nil {
		return runtime.Container{}, err
	}
	if body.SeccompProfile, err = e.seccompProfile(spec.Capabilities); err != nil {
		return runtime.Container{}, err
	}
	creator, endCreator, err := e.creator(ctx, spec.OCIRuntime)
	if err != nil {
		return runtime.Container{}, err
	}
	// steps are the requests that are not interrupted.
	steps := context.WithoutCancel(ctx)
	step := func(f func(context.Context) error) error {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		limited, cancel := untilSettled(ctx, steps)
		defer cancel()
		if err := f(limited); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return nil
	}

	endCreator = sync.OnceFunc(endCreator)
	defer endCreator()
	talk := &conversation{e: e, with: spec.Handshake}
	// After the container, if that has to go: its process is not to see an end.
	defer talk.close()
	var made created
	defer func() {
		if err != nil && made.ID != "" {
			undo, cancel := detached(ctx)
			defer cancel()
			if rmErr := e.deleteContainer(undo, made.ID); rmErr != nil {
				err = errors.Join(err, fmt.Errorf("the container %s could not be removed again: %w", made.ID, rmErr))
			}
		}
	}()
	if err := step(func(ctx context.Context) error {
		defer endCreator()
		return creator.ask(ctx, call{method: http.MethodPost, path: "/containers/create", json: body}, &made)
	}); err != nil {
		return runtime.Container{}, createError(err, spec)
	}
	if err := step(func(ctx context.Context) error { return e.putFiles(ctx, made.ID, spec.Files) }); err != nil {
		return runtime.Container{}, fmt.Errorf("put the files in: %w", err)
	}
	if !spec.NoInit {
		// The init would be started, and fail where nobody sees it.
		if err := e.checkCommand(ctx, made.ID, p); err != nil {
			return runtime.Container{}, err
		}
	}
	// Initialising makes the network and everything else but the process.
	if err := step(func(ctx context.Context) error {
		return e.ask(ctx, call{method: http.MethodPost, path: "/containers/" + made.ID + "/init"}, nil)
	}); err != nil {
		return runtime.Container{}, startError(err, p)
	}
	c, err := e.inspect(ctx, made.ID)
	if err != nil {
		return runtime.Container{}, err
	}
	if err := checkRuntime(spec, c); err != nil {
		return runtime.Container{}, err
	}
	if err := e.sealFor(c, p); err != nil {
		return runtime.Container{}, err
	}
	if err := e.announce(ctx, c, p.networks); err != nil {
		return runtime.Container{}, err
	}
	if err := talk.attach(ctx, made.ID); err != nil {
		return runtime.Container{}, err
	}
	if err := step(func(ctx context.Context) error {
		return e.ask(ctx, call{method: http.MethodPost, path: "/containers/" + made.ID + "/start"}, nil)
	}); err != nil {
		return runtime.Container{}, startError(err, p)
	}
	if err := talk.have(ctx); err != nil {
		return runtime.Container{}, err
	}
	out := container(c)
	out.State, out.Image = runtime.StateRunning, spec.Image
	return out, nil
}

// untilSettled is a context for a step: it ends settle after the caller's does.
func untilSettled(ctx, steps context.Context) (context.Context, context.CancelFunc) {
	limited, cancel := context.WithCancelCause(steps)
	stop := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(settle, func() { cancel(context.Cause(ctx)) })
		context.AfterFunc(limited, func() { t.Stop() })
	})
	return limited, func() { stop(); cancel(nil) }
}

// createError adds what libpod leaves out.
func createError(err error, spec runtime.ContainerSpec) error {
	if strings.Contains(err.Error(), "image not known") || strings.Contains(err.Error(), "no such image") {
		return runtime.WithKind(errdefs.ErrNotFound, fmt.Errorf("image %q is not on the engine: %w", spec.Image, err))
	}
	return err
}

// startError tells a command that is not there from everything else.
func startError(err error, p *plan) error {
	text := err.Error()
	if p.spec.NoInit && (strings.Contains(text, "executable file not found") || strings.Contains(text, "OCI runtime attempted to invoke a command that was not found")) {
		return runtime.WithKind(errdefs.ErrNotFound, fmt.Errorf("command %q: %w", p.argv[0], err))
	}
	if strings.Contains(text, "unable to find user") || strings.Contains(text, "no matching entries") {
		return runtime.WithKind(errdefs.ErrInvalidArgument, err)
	}
	return err
}

// plan asks the engine about the image and the networks.
func (e *engine) plan(ctx context.Context, spec runtime.ContainerSpec) (*plan, error) {
	if err := checkFiles(spec); err != nil {
		return nil, err
	}
	p := &plan{spec: spec, local: e.local, ipv6: e.hasIPv6(), networks: make([]apiNetwork, len(spec.Networks))}
	errs := make([]error, len(spec.Networks)+2)
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		if p.image, err = e.findImage(ctx, spec.Image); isNotFound(err) {
			err = runtime.Errorf(errdefs.ErrNotFound, "image %q is not on the engine", spec.Image)
		}
		errs[0] = err
	})
	wg.Go(func() { errs[1] = e.checkLimits(ctx, spec.Limits, p) })
	for i, a := range spec.Networks {
		wg.Go(func() {
			n, err := e.findNetwork(ctx, a.Network)
			if isNotFound(err) {
				err = runtime.Errorf(errdefs.ErrNotFound, "there is no network %q", a.Network)
			}
			if err == nil && n.Labels[runtime.LabelManaged] != "true" {
				err = fmt.Errorf("network %q: %w", a.Network, foreign("network"))
			}
			p.networks[i], errs[i+2] = n, err
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	var err error
	if p.argv, err = commandLine(spec, p.image); err != nil {
		return nil, err
	}
	return p, nil
}

// hasIPv6 reports whether containers have IPv6 at all, as far as can be told.
func (e *engine) hasIPv6() bool {
	if !e.local {
		return true
	}
	_, err := os.Stat("/proc/sys/net/ipv6")
	return err == nil
}

// checkLimits refuses a limit that would be dropped.
func (e *engine) checkLimits(ctx context.Context, l runtime.Limits, p *plan) error {
	why, err := e.limited(ctx, runtime.FeaturePIDsLimit)
	if err != nil {
		return err
	}
	p.pids = why == ""
	for _, asked := range []struct {
		yes bool
		f   runtime.Feature
	}{{l.PIDs > 0, runtime.FeaturePIDsLimit}, {l.Memory > 0, runtime.FeatureMemoryLimit}, {l.CPUs > 0, runtime.FeatureCPULimit}} {
		if !asked.yes {
			continue
		}
		if why, err := e.limited(ctx, asked.f); err != nil {
			return err
		} else if why != "" {
			return runtime.NotImplemented(asked.f, why)
		}
	}
	return nil
}

// sealFor seals the internal networks of a container. If that cannot be done, a
// container that can do nothing about its network is still sealed by its
// configuration; another is refused.
func (e *engine) sealFor(c apiContainer, p *plan) error {
	if !slices.ContainsFunc(p.networks, func(n apiNetwork) bool { return n.Internal }) {
		return nil
	}
	err := e.seal(c, p.networks)
	if err == nil {
		return nil
	}
	for _, name := range p.spec.Capabilities {
		if dangerous[strings.TrimPrefix(strings.ToUpper(name), "CAP_")] {
			return runtime.WithKind(errdefs.ErrNotImplemented,
				fmt.Errorf("a container with %s cannot be kept on an internal network here: %w", name, err))
		}
	}
	e.log.Warn("podman: a bridge could not be closed towards the host", "container", p.spec.Name, "err", err)
	return nil
}

// dangerous are the capabilities with which a container can change its network,
// or speak on it below IP.
var dangerous = map[string]bool{
	"NET_ADMIN": true, "NET_RAW": true, "SYS_ADMIN": true, "SYS_MODULE": true, "SYS_RAWIO": true, "BPF": true, "ALL": true,
}

// putFiles puts files into a container whose process does not run yet.
func (e *engine) putFiles(ctx context.Context, id string, files []runtime.File) error {
	if len(files) == 0 {
		return nil
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(writeFiles(w, files)) }()
	defer func() { _ = r.Close() }()
	return e.putArchive(ctx, id, "/", r)
}

// writeFiles writes an archive of the files. Parents are not in it: those that
// exist keep their mode, and the others are made by who extracts.
func writeFiles(w io.Writer, files []runtime.File) error {
	t := tar.NewWriter(w)
	for _, f := range files {
		hdr := &tar.Header{
			Typeflag: tar.TypeReg, Name: strings.TrimPrefix(path.Clean(f.Path), "/"), Size: int64(len(f.Content)),
			Mode: int64(f.Mode), Uid: f.UID, Gid: f.GID, ModTime: time.Now(), Format: tar.FormatPAX,
		}
		if f.Mode == 0 {
			hdr.Mode = 0o644
		}
		if err := t.WriteHeader(hdr); err != nil {
			return err
		}
		if _, err := io.Copy(t, bytes.NewReader(f.Content)); err != nil {
			return err
		}
	}
	return t.Close()
}

// commandCache remembers which images hold which commands.
type commandCache struct {
	mu sync.Mutex
	m  map[string]bool
}

func (c *commandCache) known(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.m[key]
}

func (c *commandCache) add(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil || len(c.m) > 1024 {
		c.m = map[string]bool{}
	}
	c.m[key] = true
}

// checkCommand looks for the command in the container.
func (e *engine) checkCommand(ctx context.Context, id string, p *plan) error {
	searched := searchPath(p.spec, p.image)
	list := candidates(p.argv[0], workDir(p.spec, p.image), searched)
	key := p.image.ID + "\x00" + strings.Join(list, "\x00")
	if len(p.spec.Files) == 0 && e.commands.known(key) {
		return nil
	}
	var found bool
	for _, c := range list {
		if mounted(p.spec, c) {
			return nil // what is there shows when the process starts
		}
		ok, err := e.executable(ctx, id, c)
		if err != nil {
			return err
		}
		if ok == statRuns {
			if len(p.spec.Files) == 0 {
				e.commands.add(key)
			}
			return nil
		}
		found = found || ok == statThere
	}
	if found {
		return runtime.Errorf(errdefs.ErrPermissionDenied, "command %q may not be executed", p.argv[0])
	}
	return runtime.Errorf(errdefs.ErrNotFound, "command %q is not in the image", p.argv[0])
}

// What a path is to somebody who wants to run it.
const (
	statMissing = iota
	statThere   // but not to be executed
	statRuns
)

func (e *engine) executable(ctx context.Context, id, file string) (int, error) {
	// The last element may be a link, and that to another.
	for range 10 {
		st, err := e.stat(ctx, id, file)
		if isNotFound(err) {
			return statMissing, nil
		}
		if err != nil {
			return 0, err
		}
		switch {
		case st.Mode&os.ModeSymlink != 0 && st.LinkTarget != "" && st.LinkTarget != file:
			file = st.LinkTarget
			if !path.IsAbs(file) {
				return statRuns, nil // the service could not follow it either
			}
		case st.Mode.IsRegular() && st.Mode&0o111 != 0:
			return statRuns, nil
		case st.Mode&os.ModeSymlink != 0:
			return statRuns, nil
		default:
			return statThere, nil
		}
	}
	return statMissing, nil
}

// deleteContainer removes a container whatever it does, with its volumes. That
// it is missing is no error.
func (e *engine) deleteContainer(ctx context.Context, id string) error {
	var reports []report
	err := e.ask(ctx, call{method: http.MethodDelete, path: "/containers/" + esc(id), query: url.Values{
		"force": {"true"}, "timeout": {"0"}, "volumes": {"true"}, "v": {"true"},
	}}, &reports)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, r := range reports {
		if r.failed() {
			return fmt.Errorf("the service could not remove it: %s", r.Err)
		}
	}
	return nil
}
