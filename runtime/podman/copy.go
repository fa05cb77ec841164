package podman

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/safetar"
)

const statHeader = "X-Docker-Container-Path-Stat"

// pathStat describes a path in a container.
type pathStat struct {
	Name       string      `json:"name"`
	Size       int64       `json:"size"`
	Mode       os.FileMode `json:"mode"`
	ModTime    time.Time   `json:"mtime"`
	LinkTarget string      `json:"linkTarget"`
}

// stat looks at a path in a container.
func (e *engine) stat(ctx context.Context, id, file string) (pathStat, error) {
	resp, err := e.do(ctx, call{method: http.MethodHead, path: "/containers/" + id + "/archive", query: url.Values{"path": {file}}})
	if err != nil {
		return pathStat{}, err
	}
	defer resp.Body.Close()
	var st pathStat
	b, err := base64.URLEncoding.DecodeString(resp.Header.Get(statHeader))
	if err == nil {
		err = json.Unmarshal(b, &st)
	}
	return st, err
}

// putArchive extracts an archive in a container, owners as they are in it.
func (e *engine) putArchive(ctx context.Context, id, dir string, archive io.Reader) error {
	return e.ask(ctx, call{
		method: http.MethodPut, path: "/containers/" + id + "/archive",
		query:  url.Values{"path": {dir}, "copyUIDGID": {"false"}, "noOverwriteDirNonDir": {"true"}},
		header: http.Header{"Content-Type": {"application/x-tar"}}, body: archive,
	}, nil)
}

// putHosts replaces /etc/hosts where it is a plain file.
func (e *engine) putHosts(ctx context.Context, id string, content []byte) error {
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	err := errors.Join(
		t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/hosts", Mode: 0o644, Size: int64(len(content)), ModTime: time.Now()}),
		func() error { _, err := t.Write(content); return err }(),
		t.Close(),
	)
	if err != nil {
		return err
	}
	return e.putArchive(ctx, id, "/", &b)
}

// cleanupTime bounds the wait for the cleanup after a container: who does it may have been
// killed.
const cleanupTime = 10 * time.Second

// ownSettled describes a container of bottle's. If its process has ended it waits until the
// engine has cleaned up after it: until then its root is mounted, and a copy, which uses that,
// would have it taken away in the middle (an archive is cut off, what is copied in is lost).
func (e *engine) ownSettled(ctx context.Context, name string) (apiContainer, error) {
	for end := time.Now().Add(cleanupTime); ; {
		c, err := e.own(ctx, name)
		if err != nil || c.State.Status != "stopped" || time.Now().After(end) {
			return c, err
		}
		select {
		case <-time.After(waitInterval):
		case <-ctx.Done():
			return c, context.Cause(ctx)
		}
	}
}

// CopyTo implements [runtime.Containers].
func (e *engine) CopyTo(ctx context.Context, name, dir string, archive io.Reader) error {
	const op = "copy to container"
	c, err := e.ownSettled(ctx, name)
	if err == nil {
		err = e.checkTarget(ctx, c, dir)
	}
	if err != nil {
		return wrap(ctx, op, name, err)
	}
	buffered := bufio.NewReader(archive)
	if safetar.Empty(buffered) {
		return nil // and the directory is there
	}
	source := &errReader{r: buffered}
	err = e.putArchive(ctx, c.ID, dir, source)
	if source.err != nil {
		// What the archive's reader says is the reason, and the broken request its
		// consequence.
		err = source.err
	} else if err != nil {
		err = fmt.Errorf("into %s: %w", dir, err)
	}
	return wrap(ctx, op, name, err)
}

// checkTarget refuses what the service would make (a missing directory) or allow
// (a read-only root, which a container that does not run does not have).
func (e *engine) checkTarget(ctx context.Context, c apiContainer, dir string) error {
	for range 10 {
		st, err := e.stat(ctx, c.ID, dir)
		if err != nil {
			if isNotFound(err) {
				return runtime.Errorf(errdefs.ErrNotFound, "there is no directory %s in the container", dir)
			}
			return err
		}
		if st.Mode&os.ModeSymlink != 0 && st.LinkTarget != "" && st.LinkTarget != dir {
			dir = st.LinkTarget
			continue
		}
		if !st.Mode.IsDir() && st.Mode&os.ModeSymlink == 0 {
			return runtime.Errorf(errdefs.ErrInvalidArgument, "%s is not a directory in the container", dir)
		}
		break
	}
	if readOnly(c, dir) {
		return runtime.Errorf(errdefs.ErrFailedPrecondition, "%s is on a read-only file system", dir)
	}
	return nil
}

// readOnly reports whether a directory is on a read-only root or mount.
func readOnly(c apiContainer, dir string) bool {
	dir = path.Clean("/" + dir)
	ro, longest := c.HostConfig.ReadonlyRootfs, 0
	consider := func(target string, readOnly bool) {
		target = path.Clean(target)
		if below(dir, target) && len(target) > longest {
			ro, longest = readOnly, len(target)
		}
	}
	for _, m := range c.Mounts {
		consider(m.Destination, !m.RW)
	}
	for target := range c.HostConfig.Tmpfs {
		consider(target, false)
	}
	for _, always := range []string{"/dev", "/dev/shm", "/run/secrets", "/proc", "/sys"} {
		consider(always, false) // the kernel decides
	}
	return ro
}

// errReader remembers the error of a reader.
type errReader struct {
	r   io.Reader
	err error
}

func (e *errReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		e.err = err
	}
	return n, err
}

// CopyFrom implements [runtime.Containers].
func (e *engine) CopyFrom(ctx context.Context, name, file string) (io.ReadCloser, error) {
	const op = "copy from container"
	c, err := e.ownSettled(ctx, name)
	if err != nil {
		return nil, wrap(ctx, op, name, err)
	}
	stream, err := e.archive(ctx, c, file)
	if err != nil {
		if isNotFound(err) {
			err = runtime.Errorf(errdefs.ErrNotFound, "there is no %s in the container", file)
		}
		return nil, wrap(ctx, op, name, err)
	}
	return stream, nil
}

// getArchive is the service's own archive of a path. It gives all files to the
// container's user, and cannot say when it failed on the way: it then just ends.
func (e *engine) getArchive(ctx context.Context, id, file string) (io.ReadCloser, error) {
	resp, err := e.do(ctx, call{method: http.MethodGet, path: "/containers/" + id + "/archive", query: url.Values{"path": {file}}})
	if err != nil {
		return nil, err
	}
	whole := &wholeTar{r: resp.Body}
	if path.Clean("/"+file) == "/" {
		return belowDot(whole), nil
	}
	return whole, nil
}

// belowDot makes names that begin at the root begin at a dot.
func belowDot(archive io.ReadCloser) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		defer archive.Close()
		in, out := tar.NewReader(archive), tar.NewWriter(w)
		for {
			hdr, err := in.Next()
			if errors.Is(err, io.EOF) {
				_, err = io.Copy(io.Discard, archive)
				_ = w.CloseWithError(errors.Join(err, out.Close()))
				return
			}
			if err == nil {
				hdr.Name = "./" + strings.TrimLeft(hdr.Name, "/")
				if hdr.Typeflag == tar.TypeLink {
					hdr.Linkname = "./" + strings.TrimLeft(hdr.Linkname, "/")
				}
				hdr.Format = tar.FormatPAX
				err = out.WriteHeader(hdr)
			}
			if err == nil {
				_, err = io.Copy(out, in)
			}
			if err != nil {
				_ = w.CloseWithError(err)
				return
			}
		}
	}()
	return r
}

// wholeTar makes an archive without its end (two blocks of zeros) an error.
type wholeTar struct {
	r     io.ReadCloser
	zeros int // at the end of what was read so far
}

const tarEnd = 1024

func (w *wholeTar) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	tail := p[:n]
	trimmed := strings.TrimRight(string(tail[max(0, n-tarEnd):]), "\x00")
	if len(trimmed) == 0 {
		w.zeros += n
	} else {
		w.zeros = min(n, tarEnd) - len(trimmed)
	}
	if errors.Is(err, io.EOF) && w.zeros < tarEnd {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (w *wholeTar) Close() error { return w.r.Close() }
