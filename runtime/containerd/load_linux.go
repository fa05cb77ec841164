package containerd

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// LoadImage implements [runtime.Images].
func (e *Engine) LoadImage(ctx context.Context, r io.Reader) ([]runtime.Image, error) {
	list, err := e.loadImage(e.ctx(ctx), r)
	return list, wrap(ctx, "load image", "", err)
}

func (e *Engine) loadImage(ctx context.Context, r io.Reader) ([]runtime.Image, error) {
	source := &sourceReader{ctx: ctx, r: r}
	plain, err := compression.DecompressStream(bufio.NewReader(source))
	if err != nil {
		return nil, source.blame(ctx, err)
	}
	defer plain.Close()
	ctx, release, err := e.lease(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	records, err := e.client.Import(ctx, plain,
		client.WithImageRefTranslator(loadedName),
		// An image without a tag is stored under its digest.
		client.WithDigestRef(archive.DigestTranslator("bottle.invalid/untagged")),
		client.WithSkipDigestRef(func(name string) bool { return name != "" }),
		client.WithImportPlatform(platform()),
	)
	if err != nil {
		return nil, source.blame(ctx, err)
	}
	if len(records) == 0 {
		return nil, invalid("the archive holds no image")
	}
	for _, record := range records {
		if err := e.unpackLoaded(ctx, record); err != nil {
			undo, cancel := undoing(ctx)
			defer cancel()
			for _, r := range records {
				err = errors.Join(err, e.dropRecord(undo, r))
			}
			return nil, source.blame(ctx, err)
		}
	}
	return e.describeAll(ctx, records), nil
}

func (e *Engine) unpackLoaded(ctx context.Context, record images.Image) error {
	if _, err := e.readImage(ctx, record); err != nil {
		return err
	}
	return e.unpack(ctx, record)
}

// dropRecord removes a record unless it means something else by now.
func (e *Engine) dropRecord(ctx context.Context, record images.Image) error {
	err := e.imageStore().Delete(ctx, record.Name, images.SynchronousDelete(), images.DeleteTarget(&record.Target))
	if isNotFound(err) {
		return nil
	}
	return err
}

// loadedName spells a name out of an archive as [storedName] does. An OCI layout may
// give a tag alone, which names nothing.
func loadedName(name string) string {
	if !strings.ContainsAny(name, ":/@") {
		return ""
	}
	stored, err := storedName(name)
	if err != nil {
		return ""
	}
	return stored
}

// leaseTime is how long a lease lasts if nobody releases it.
const leaseTime = 24 * time.Hour

// lease keeps what is stored from the garbage collector until an image refers to
// it. Should this process die before it releases the lease, the next to open the engine
// does, or it expires.
func (e *Engine) lease(ctx context.Context) (context.Context, func(), error) {
	leased, release, err := e.client.WithLease(ctx, leases.WithRandomID(), leases.WithExpiration(leaseTime), leases.WithLabel(labelConnection, e.name))
	if err != nil {
		return nil, nil, err
	}
	return leased, func() {
		undo, cancel := undoing(leased)
		defer cancel()
		if err := release(undo); err != nil && !isNotFound(err) {
			e.log.Debug("a lease stays until it expires", "error", err)
		}
	}, nil
}

// sourceReader remembers why an archive could not be read, and stops with its
// context.
type sourceReader struct {
	ctx context.Context
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	if err := context.Cause(s.ctx); err != nil {
		return 0, err
	}
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// blame tells a failing engine or source from an archive that is none.
func (s *sourceReader) blame(ctx context.Context, err error) error {
	switch {
	case s.err != nil:
		return fmt.Errorf("read the archive: %w", s.err)
	case ctx.Err() != nil:
		return errors.Join(context.Cause(ctx), err)
	}
	err = native(err)
	for _, is := range []func(error) bool{errdefs.IsUnavailable, errdefs.IsPermissionDenied, errdefs.IsResourceExhausted} {
		if is(err) {
			return err
		}
	}
	if strings.Contains(err.Error(), "no space left on device") {
		return err
	}
	return runtime.WithKind(errdefs.ErrInvalidArgument, fmt.Errorf("it is not an image archive that can be used: %w", err))
}
