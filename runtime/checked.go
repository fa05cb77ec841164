package runtime

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime/internal/safetar"
)

// Checked wraps an implementation with what must hold for all of them and is
// therefore written once: arguments are validated and defaults filled in before
// the engine sees them, and every archive that crosses the border of a container
// is checked entry by entry. [Registry] applies it to whatever it opens.
func Checked(rt Runtime) Runtime { return &checked{rt} }

type checked struct{ Runtime }

func failed(op, object string, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Op: op, Object: object, Err: err}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *checked) CreateNetwork(ctx context.Context, spec NetworkSpec) (Network, error) {
	if err := spec.Validate(); err != nil {
		return Network{}, failed("create network", spec.Name, err)
	}
	return c.Runtime.CreateNetwork(ctx, spec)
}

func (c *checked) InspectNetwork(ctx context.Context, network string) (Network, error) {
	if err := objectName("network", network); err != nil {
		return Network{}, failed("inspect network", network, err)
	}
	return c.Runtime.InspectNetwork(ctx, network)
}

func (c *checked) RemoveNetwork(ctx context.Context, network string) error {
	if err := objectName("network", network); err != nil {
		return failed("remove network", network, err)
	}
	return c.Runtime.RemoveNetwork(ctx, network)
}

func (c *checked) BuildImage(ctx context.Context, spec BuildSpec) (Image, error) {
	if err := spec.Validate(); err != nil {
		return Image{}, failed("build image", strings.Join(spec.Tags, " "), err)
	}
	if spec.Dockerfile == "" {
		spec.Dockerfile = "Dockerfile"
	}
	if spec.Progress == nil {
		spec.Progress = io.Discard
	}
	return c.Runtime.BuildImage(ctx, spec)
}

func (c *checked) PullImage(ctx context.Context, ref string, opts PullOptions) (Image, error) {
	if err := checkReference(ref); err != nil {
		return Image{}, failed("pull image", ref, err)
	}
	if opts.Progress == nil {
		opts.Progress = io.Discard
	}
	return c.Runtime.PullImage(ctx, ref, opts)
}

func (c *checked) InspectImage(ctx context.Context, ref string) (Image, error) {
	if err := objectName("image", ref); err != nil {
		return Image{}, failed("inspect image", ref, err)
	}
	return c.Runtime.InspectImage(ctx, ref)
}

func (c *checked) RemoveImage(ctx context.Context, ref string) error {
	if err := objectName("image", ref); err != nil {
		return failed("remove image", ref, err)
	}
	return c.Runtime.RemoveImage(ctx, ref)
}

func (c *checked) Run(ctx context.Context, spec ContainerSpec) (Container, error) {
	if err := spec.Validate(); err != nil {
		return Container{}, failed("run container", spec.Name, err)
	}
	return c.Runtime.Run(ctx, spec.withDefaults())
}

func (s ContainerSpec) withDefaults() ContainerSpec {
	if s.Hostname == "" {
		s.Hostname = strings.Trim(strings.ReplaceAll(s.Name, "_", "-"), "-.")
	}
	files := make([]File, len(s.Files))
	for i, f := range s.Files {
		if f.Mode == 0 {
			f.Mode = 0o644
		}
		files[i] = f
	}
	s.Files = files
	tmpfs := make([]Tmpfs, len(s.Tmpfs))
	for i, t := range s.Tmpfs {
		if t.Size == 0 {
			t.Size = DefaultTmpfsSize
		}
		if t.Mode == 0 {
			t.Mode = 0o1777
		}
		tmpfs[i] = t
	}
	s.Tmpfs = tmpfs
	return s
}

func (c *checked) InspectContainer(ctx context.Context, container string) (Container, error) {
	if err := objectName("container", container); err != nil {
		return Container{}, failed("inspect container", container, err)
	}
	return c.Runtime.InspectContainer(ctx, container)
}

func (c *checked) Wait(ctx context.Context, container string) (ExitStatus, error) {
	if err := objectName("container", container); err != nil {
		return ExitStatus{}, failed("wait for container", container, err)
	}
	return c.Runtime.Wait(ctx, container)
}

func (c *checked) Stop(ctx context.Context, container string, grace time.Duration) error {
	if err := objectName("container", container); err != nil {
		return failed("stop container", container, err)
	}
	if grace < 0 {
		grace = 0
	}
	return c.Runtime.Stop(ctx, container, grace)
}

func (c *checked) Kill(ctx context.Context, container, signal string) error {
	if err := firstError(objectName("container", container), checkSignal(signal)); err != nil {
		return failed("kill container", container, err)
	}
	return c.Runtime.Kill(ctx, container, signal)
}

func (c *checked) RemoveContainer(ctx context.Context, container string) error {
	if err := objectName("container", container); err != nil {
		return failed("remove container", container, err)
	}
	return c.Runtime.RemoveContainer(ctx, container)
}

func (c *checked) Logs(ctx context.Context, container string, opts LogOptions) error {
	if err := objectName("container", container); err != nil {
		return failed("read logs of container", container, err)
	}
	if opts.Stdout == nil {
		opts.Stdout = io.Discard
	}
	if opts.Stderr == nil {
		opts.Stderr = io.Discard
	}
	return c.Runtime.Logs(ctx, container, opts)
}

func (c *checked) Stats(ctx context.Context, container string) (Stats, error) {
	if err := objectName("container", container); err != nil {
		return Stats{}, failed("read figures of container", container, err)
	}
	return c.Runtime.Stats(ctx, container)
}

func (c *checked) Exec(ctx context.Context, container string, spec ExecSpec) (ExitStatus, error) {
	if err := firstError(objectName("container", container), spec.Validate()); err != nil {
		return ExitStatus{}, failed("exec in container", container, err)
	}
	if spec.Stdout == nil {
		spec.Stdout = io.Discard
	}
	if spec.Stderr == nil {
		spec.Stderr = io.Discard
	}
	return c.Runtime.Exec(ctx, container, spec)
}

func (c *checked) CopyTo(ctx context.Context, container, dir string, archive io.Reader) error {
	err := objectName("container", container)
	if err == nil && !isCleanAbs(dir) {
		err = invalid("the target %q is not a clean absolute path", dir)
	}
	if err != nil {
		return failed("copy to container", container, err)
	}
	safe := safetar.Filter(archive, safetar.Into)
	watched := &watchedReader{r: safe}
	err = c.Runtime.CopyTo(ctx, container, dir, watched)
	if err == nil {
		// An engine may stop at the archive's end marker, or stop early: read to
		// the end, so that what is wrong behind it is still seen.
		_, _ = io.Copy(io.Discard, watched)
	}
	archiveErr := watched.failure()
	_ = safe.Close()
	// What was wrong with the archive explains the engine's failure better than
	// its own words, and must not pass for success.
	var refused *safetar.Error
	switch {
	case errors.As(archiveErr, &refused):
		return failed("copy to container", container, WithKind(errdefs.ErrInvalidArgument, archiveErr))
	case archiveErr != nil && ctx.Err() == nil:
		return failed("copy to container", container, archiveErr)
	}
	return err
}

func (c *checked) CopyFrom(ctx context.Context, container, path string) (io.ReadCloser, error) {
	err := objectName("container", container)
	if err == nil && !isCleanAbs(path) {
		err = invalid("the path %q is not a clean absolute path", path)
	}
	if err != nil {
		return nil, failed("copy from container", container, err)
	}
	archive, err := c.Runtime.CopyFrom(ctx, container, path)
	if err != nil {
		return nil, err
	}
	return &filteredArchive{ReadCloser: safetar.Filter(archive, safetar.OutOf), source: archive}, nil
}

// watchedReader remembers the first error other than the end of the stream. An
// engine's client may go on reading after its call has returned.
type watchedReader struct {
	r   io.Reader
	mu  sync.Mutex
	err error
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		w.mu.Lock()
		if w.err == nil {
			w.err = err
		}
		w.mu.Unlock()
	}
	return n, err
}

func (w *watchedReader) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// filteredArchive closes the engine's stream with its own.
type filteredArchive struct {
	io.ReadCloser
	source io.Closer
}

func (f *filteredArchive) Close() error { return errors.Join(f.ReadCloser.Close(), f.source.Close()) }
