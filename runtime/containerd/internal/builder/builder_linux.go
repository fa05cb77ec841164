package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

const (
	defaultIdle      = 2 * time.Second
	defaultKeepBytes = 10 << 30
	defaultKeepFor   = 30 * 24 * time.Hour
)

// Options say where and how to build.
type Options struct {
	// Address is the path of containerd's socket.
	Address string
	// Namespace is containerd's; images are taken from it and put into it.
	Namespace string
	// Root is a directory for the builder alone, absolute; made if missing. There
	// must be one per daemon and namespace.
	Root string
	// Snapshotter holds the layers, the same that containers use.
	Snapshotter string
	// Runtime is the shim that runs steps; empty means io.containerd.runc.v2.
	Runtime string
	// Network connects RUN steps and downloads; nil leaves them without.
	Network Network
	// Log gets what BuildKit has to say about itself, which is rarely of interest:
	// at debug level, warnings and errors too. Nil drops it.
	Log *slog.Logger
	// Idle is how long the solver is kept for the next build; 0 means two seconds.
	Idle time.Duration
	// KeepBytes and KeepFor limit the cache: its size, 0 meaning 10 GiB, and how long
	// what no build used is kept, 0 meaning 30 days.
	KeepBytes int64
	KeepFor   time.Duration
}

// Builder builds images. Its methods may be called at once.
type Builder struct {
	opts Options
	// ctx ends with Close, and with it what runs.
	ctx    context.Context
	cancel context.CancelFunc

	// gate is held to look at or change what follows; a channel, since one waits
	// for it with a context.
	gate    chan struct{}
	solver  *solver
	lock    *rootLock
	users   int
	unused  chan struct{} // closed when users falls to 0
	expiry  *time.Timer
	expires int // tells an expiry that was overtaken

	closing sync.Once
	closed  error
}

// New checks the options. Nothing is connected to or made yet.
func New(opts Options) (*Builder, error) {
	for name, value := range map[string]string{
		"Address": opts.Address, "Namespace": opts.Namespace, "Root": opts.Root, "Snapshotter": opts.Snapshotter,
	} {
		if value == "" {
			return nil, runtime.Errorf(errdefs.ErrInvalidArgument, "the builder's %s is missing", name)
		}
	}
	if !filepath.IsAbs(opts.Root) {
		return nil, runtime.Errorf(errdefs.ErrInvalidArgument, "the builder's root %q is not absolute", opts.Root)
	}
	if opts.Runtime == "" {
		opts.Runtime = "io.containerd.runc.v2"
	}
	if opts.Idle == 0 {
		opts.Idle = defaultIdle
	}
	if opts.KeepBytes == 0 {
		opts.KeepBytes = defaultKeepBytes
	}
	if opts.KeepFor == 0 {
		opts.KeepFor = defaultKeepFor
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	b := &Builder{opts: opts, gate: make(chan struct{}, 1)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	return b, nil
}

var errClosed = runtime.Errorf(errdefs.ErrUnavailable, "the image builder was closed")

// Close ends running builds, takes the solver down and lets go of the root.
func (b *Builder) Close() error {
	b.closing.Do(func() {
		b.cancel()
		b.gate <- struct{}{}
		for b.users > 0 {
			unused := b.unused
			<-b.gate
			<-unused
			b.gate <- struct{}{}
		}
		b.closed = b.stop()
		<-b.gate
	})
	return b.closed
}

// use gives the running solver, starting it if need be, and what to call after
// its use. The context returned ends with the builder, too.
func (b *Builder) use(ctx context.Context, progress io.Writer) (_ context.Context, _ *solver, done func(), err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(b.ctx, func() { cancel(errClosed) })
	end := func() { unlink(); cancel(nil) }
	defer func() {
		if err != nil {
			end()
		}
	}()
	select {
	case b.gate <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, nil, context.Cause(ctx)
	}
	defer func() { <-b.gate }()
	if b.ctx.Err() != nil {
		return nil, nil, nil, errClosed
	}
	if err := context.Cause(ctx); err != nil {
		return nil, nil, nil, err
	}
	if b.solver == nil {
		if err := b.start(ctx, progress); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return nil, nil, nil, cause
			}
			return nil, nil, nil, ofKind(err, errdefs.ErrUnavailable)
		}
	}
	if b.expiry != nil {
		b.expiry.Stop()
		b.expiry = nil
	}
	b.expires++
	if b.users == 0 {
		b.unused = make(chan struct{})
	}
	b.users++
	return ctx, b.solver, func() { end(); b.release() }, nil
}

// start takes the root, removes what a killed process left in it, and assembles
// the solver. The gate is held.
func (b *Builder) start(ctx context.Context, progress io.Writer) (err error) {
	if os.Geteuid() != 0 {
		return runtime.Errorf(errdefs.ErrPermissionDenied, "the builder takes root: it mounts layers and makes network namespaces")
	}
	if err := os.MkdirAll(b.opts.Root, 0o700); err != nil {
		return fmt.Errorf("make the builder's directory: %w", err)
	}
	lock, err := takeRoot(ctx, b.opts.Root, func() {
		fmt.Fprintf(writer(progress), "waiting for another process that builds in %s\n", b.opts.Root)
	})
	if err != nil {
		return fmt.Errorf("lock the builder's directory: %w", err)
	}
	defer func() {
		if err != nil {
			lock.release()
		}
	}()
	s, err := newSolver(ctx, b.opts)
	if err != nil {
		return err
	}
	b.solver, b.lock = s, lock
	return nil
}

// release ends one use of the solver.
func (b *Builder) release() {
	b.gate <- struct{}{}
	defer func() { <-b.gate }()
	b.users--
	if b.users > 0 {
		return
	}
	close(b.unused)
	b.logStop(b.solver.rest())
	if b.ctx.Err() != nil {
		return // Close does it
	}
	if b.lock.wanted() {
		b.logStop(b.stop())
		return
	}
	mine := b.expires
	b.expiry = time.AfterFunc(b.opts.Idle, func() {
		b.gate <- struct{}{}
		defer func() { <-b.gate }()
		if b.users == 0 && b.expires == mine {
			b.logStop(b.stop())
		}
	})
}

func (b *Builder) logStop(err error) {
	if err != nil {
		b.opts.Log.Warn("the image builder did not clear up", "error", err)
	}
}

// stop takes the solver down and lets go of the root. The gate is held.
func (b *Builder) stop() error {
	if b.expiry != nil {
		b.expiry.Stop()
		b.expiry = nil
	}
	if b.solver == nil {
		return nil
	}
	err := errors.Join(b.solver.collectSometimes(), b.solver.close())
	b.lock.release()
	b.solver, b.lock = nil, nil
	return err
}

func writer(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}
