package podman

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/fdtar"
	"github.com/bottle-run/bottle/runtime/internal/procs"
)

// The service's archives give every file to the container's user (of 5.8 too). So
// the files of a container that runs on this machine are read from here, below
// its process's root: in this process by root, and for a rootless engine by this
// program once more, in the engine's user namespace, where it may read what
// belongs to the container's users and sees their numbers as the container does.

// archiverName is how this program knows that it is the one that reads files.
const archiverName = "bottle-podman-archive"

// rootDescriptor is where the archiver finds the container's root.
const rootDescriptor = 3

func init() {
	if len(os.Args) == 2 && os.Args[0] == archiverName {
		os.Exit(archiverMain(os.Args[1]))
	}
}

// The first byte of the archiver's output.
const (
	archiveFollows  = 'A'
	archiveNotFound = 'N'
	archiveFailed   = 'F' // the text follows
)

func archiverMain(file string) int {
	out := bufio.NewWriterSize(os.Stdout, 256<<10)
	fd, name, err := openSource(rootDescriptor, file)
	if err != nil {
		kind := byte(archiveFailed)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			kind = archiveNotFound
		}
		_ = out.WriteByte(kind)
		_, _ = out.WriteString(err.Error())
		_ = out.Flush()
		return 1
	}
	_ = out.WriteByte(archiveFollows)
	if err := errors.Join(fdtar.Write(context.Background(), out, fd, name), unix.Close(fd), out.Flush()); err != nil {
		_, _ = fmt.Fprint(os.Stderr, err)
		return 1
	}
	return 0
}

// archive streams a path of a container.
func (e *engine) archive(ctx context.Context, c apiContainer, file string) (io.ReadCloser, error) {
	if !e.local || state(c.State.Status) != runtime.StateRunning {
		return e.getArchive(ctx, c.ID, file)
	}
	root, userNS, err := e.openRoot(ctx, c)
	if err != nil {
		e.log.Debug("podman: the service makes the archive", "err", err)
		return e.getArchive(ctx, c.ID, file)
	}
	defer root.Close()
	if userNS == nil {
		return archiveHere(ctx, root, file)
	}
	defer userNS.Close()
	return archiveThere(ctx, root, userNS, file)
}

// openRoot opens the root directory of a container's process, and its user
// namespace if that is not this process's.
func (e *engine) openRoot(ctx context.Context, c apiContainer) (root, userNS *os.File, err error) {
	name := procs.File(c.State.Pid, "root")
	const flags = unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC
	if os.Geteuid() == 0 {
		if root, err = os.OpenFile(name, flags, 0); err != nil {
			return nil, nil, err
		}
	} else {
		if userNS, err = os.Open(procs.File(c.State.Pid, "ns/user")); err != nil {
			return nil, nil, err
		}
		files, err := openThroughUser(userNS, []string{name}, flags)
		if err == nil && files[0] == nil {
			err = fmt.Errorf("%s cannot be opened", name)
		}
		if err != nil {
			_ = userNS.Close()
			return nil, nil, err
		}
		root = files[0]
	}
	// The process may have ended and its number be another's by now; not if the
	// container still has it.
	now, err := e.inspect(ctx, c.ID)
	if err == nil && (now.State.Pid != c.State.Pid || state(now.State.Status) != runtime.StateRunning) {
		err = runtime.Errorf(errdefs.ErrFailedPrecondition, "the container has ended")
	}
	if err != nil {
		_ = root.Close()
		if userNS != nil {
			_ = userNS.Close()
		}
		return nil, nil, err
	}
	return root, userNS, nil
}

// openSource opens what is to be copied below a root, as the container would
// resolve it; the last element may be a link, which is then copied itself. The
// name is that of the archive's first entry.
func openSource(root int, file string) (fd int, name string, err error) {
	clean := path.Clean("/" + file)
	name = path.Base(clean)
	if clean == "/" {
		name = "."
	}
	inside := strings.TrimPrefix(clean, "/")
	if inside == "" {
		inside = "."
	}
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for {
		fd, err = unix.Openat2(root, inside, &how)
		// EAGAIN: something was renamed while a ".." was resolved.
		if err != unix.EAGAIN && err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return -1, "", &os.PathError{Op: "open", Path: clean, Err: err}
	}
	return fd, name, nil
}

// archiveHere reads in this process.
func archiveHere(ctx context.Context, root *os.File, file string) (io.ReadCloser, error) {
	fd, name, err := openSource(int(root.Fd()), file)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil, runtime.WithKind(errdefs.ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		out := bufio.NewWriterSize(w, 256<<10)
		_ = w.CloseWithError(errors.Join(fdtar.Write(ctx, out, fd, name), unix.Close(fd), out.Flush()))
	}()
	return &hereArchive{r, cancel}, nil
}

type hereArchive struct {
	*io.PipeReader
	cancel context.CancelFunc
}

func (h *hereArchive) Close() error {
	h.cancel()
	return h.PipeReader.Close()
}

// archiveThere reads in a process of its own.
func archiveThere(ctx context.Context, root, userNS *os.File, file string) (io.ReadCloser, error) {
	a, err := startArchiver(root, userNS, file)
	if err != nil {
		return nil, err
	}
	a.stop = context.AfterFunc(ctx, func() { _ = a.out.Close() })
	var first [1]byte
	if _, err := io.ReadFull(a.out, first[:]); err != nil {
		_ = a.Close()
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("the process that reads the container's files: %w: %s", err, a.said())
	}
	if first[0] == archiveFollows {
		a.ctx = ctx
		return a, nil
	}
	text, _ := io.ReadAll(io.LimitReader(a.out, maxError))
	_ = a.Close()
	if first[0] == archiveNotFound {
		return nil, runtime.Errorf(errdefs.ErrNotFound, "%s", text)
	}
	return nil, errors.New(string(text))
}

// archiverProcess is its output, what it says about an error, and its end.
type archiverProcess struct {
	ctx      context.Context
	stop     func() bool
	out, err *os.File
	process  *os.Process
	ended    bool
	failure  error
}

func (a *archiverProcess) said() string {
	b, _ := io.ReadAll(io.LimitReader(a.err, maxError))
	return strings.TrimSpace(string(b))
}

// Read ends with an error if the process did.
func (a *archiverProcess) Read(p []byte) (int, error) {
	if a.ended {
		return 0, a.failure
	}
	n, err := a.out.Read(p)
	if err == nil {
		return n, nil
	}
	a.ended, a.failure = true, err
	switch {
	case a.ctx.Err() != nil:
		a.failure = context.Cause(a.ctx)
	case errors.Is(err, io.EOF):
		text := a.said()
		if state, werr := a.process.Wait(); werr != nil || !state.Success() {
			a.failure = fmt.Errorf("read the container's files: %s (%v)", text, state)
		}
		a.process = nil
	}
	return n, a.failure
}

// Close ends the process, which cannot write any more.
func (a *archiverProcess) Close() error {
	if a.stop != nil {
		a.stop()
	}
	_ = a.out.Close()
	if a.process != nil {
		_ = a.process.Kill()
		_, _ = a.process.Wait()
		a.process = nil
	}
	_ = a.err.Close()
	return nil
}
