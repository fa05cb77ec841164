package docker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/tinyinit"
)

// Exec runs a command in a running container.
func (e *engine) Exec(ctx context.Context, name string, spec runtime.ExecSpec) (runtime.ExitStatus, error) {
	const op = "exec in container"
	c, err := e.own(ctx, name)
	if err != nil {
		return runtime.ExitStatus{}, fail(ctx, op, name, err)
	}
	if c.State != nil && !c.State.Running {
		return runtime.ExitStatus{}, fail(ctx, op, name, runtime.Errorf(errdefs.ErrFailedPrecondition, "it does not run"))
	}
	x := &execution{e: e, container: c.ID, spec: spec, token: rand.Text()}
	status, err := x.run(ctx)
	return status, fail(ctx, op, name, err)
}

// execution is one command in a container.
type execution struct {
	e         *engine
	container string
	spec      runtime.ExecSpec
	token     string // in its environment, to find it and its descendants by
	id        string
	// containerGone is set when kill finds that there is nothing to kill.
	containerGone bool
}

func (x *execution) run(ctx context.Context) (runtime.ExitStatus, error) {
	var none runtime.ExitStatus
	env := append(environment(x.spec.Env), tinyinit.ExecID+"="+x.token)
	options := client.ExecCreateOptions{
		User: x.spec.User, WorkingDir: x.spec.WorkDir, Env: env, Cmd: x.spec.Command, TTY: x.spec.TTY,
		AttachStdin: x.spec.Stdin != nil, AttachStdout: true, AttachStderr: true,
		DetachKeys: noDetachKeys,
	}
	attach := client.ExecAttachOptions{TTY: x.spec.TTY}
	if x.spec.TTY && x.e.api("1.42") {
		size := client.ConsoleSize{Height: uint(x.spec.Size.Rows), Width: uint(x.spec.Size.Cols)}
		options.ConsoleSize, attach.ConsoleSize = size, size
	}
	created, err := x.e.cli.ExecCreate(ctx, x.container, options)
	if err != nil {
		return none, execError(err)
	}
	x.id = created.ID
	// From here on the process may run, whatever becomes of the connection.
	conn, err := detached(ctx, func(ctx context.Context) (client.ExecAttachResult, error) {
		return x.e.cli.ExecAttach(ctx, x.id, attach)
	}, func(_ context.Context, conn client.ExecAttachResult) error {
		conn.Close()
		return nil
	})
	if err != nil {
		if ctx.Err() != nil {
			return none, errors.Join(context.Cause(ctx), x.kill(ctx))
		}
		return none, execError(err)
	}
	defer conn.Close()

	streamCtx, stop := context.WithCancel(ctx)
	defer stop()
	if x.spec.Stdin != nil {
		go func() {
			// An error here is the process's end, or shows at the other end.
			_, _ = io.Copy(conn.Conn, x.spec.Stdin)
			_ = conn.CloseWrite()
		}()
	}
	if x.spec.TTY {
		go x.resize(streamCtx)
	}
	out := &startFailure{w: orDiscard(x.spec.Stdout)}
	in := &countingReader{r: conn.Reader}
	streamed := make(chan error, 1)
	go func() {
		var err error
		if x.spec.TTY {
			_, err = io.Copy(out, in)
		} else {
			_, err = stdcopy.StdCopy(out, orDiscard(x.spec.Stderr), in)
		}
		streamed <- err
	}()
	go cutOff(streamCtx, x.ended, in, conn.Close)
	select {
	case <-ctx.Done():
		err := x.kill(ctx)
		conn.Close()
		_ = <-streamed // nothing is written any more
		return none, errors.Join(context.Cause(ctx), err)
	case err = <-streamed:
	}
	if err != nil && !in.cut.Load() {
		return none, x.broken(ctx, out, err)
	}
	return x.status(ctx, out)
}

// noDetachKeys is a sequence that nobody types. The daemon's own begins with
// ctrl-p, which a shell is to see at once.
const noDetachKeys = `ctrl-@,ctrl-],ctrl-@,ctrl-\,ctrl-@,ctrl-],ctrl-@,ctrl-_`

// broken is the end of an execution whose streams failed: a writer of the
// caller's, or the connection. The process must not go on unattended.
func (x *execution) broken(ctx context.Context, out *startFailure, err error) error {
	kill := x.kill(ctx)
	if out.err != nil {
		err = out.err
	}
	return errors.Join(fmt.Errorf("streams: %w", err), kill)
}

// cutOff closes the connection some time after the process has ended: a process
// that it left in the background may hold the streams open for good.
func cutOff(ctx context.Context, ended func(context.Context) bool, in *countingReader, closeConn func()) {
	for delay := 250 * time.Millisecond; ; delay = min(2*delay, 2*time.Second) {
		if pause(ctx, delay) != nil {
			return
		}
		if ended(ctx) {
			break
		}
	}
	// The last of the output may still be on its way. Ticks are counted, and no
	// time is taken: where the daemon gets no time to write, the count gets none
	// either.
	for quiet, last := 0, in.pending(); quiet < quietTicks; {
		if pause(ctx, quietTick) != nil {
			return
		}
		if now := in.pending(); now != 0 && now == last {
			quiet++
		} else {
			quiet, last = 0, now
		}
	}
	in.cut.Store(true)
	closeConn()
}

func (x *execution) ended(ctx context.Context) bool {
	res, err := x.e.cli.ExecInspect(ctx, x.id, client.ExecInspectOptions{})
	return err == nil && !res.Running
}

// A stream that is silent for so many ticks after the process has ended counts as
// held open by another.
const (
	quietTicks = 10
	quietTick  = 75 * time.Millisecond
)

// countingReader numbers its reads. The time between two of them is the one that
// the caller's writer takes, and no silence.
type countingReader struct {
	r       io.Reader
	reads   int64        // begun; of the reading goroutine only
	current atomic.Int64 // number of the read under way; 0 for none
	cut     atomic.Bool
}

func (c *countingReader) Read(p []byte) (int, error) {
	c.reads++
	c.current.Store(c.reads)
	n, err := c.r.Read(p)
	c.current.Store(0)
	return n, err
}

// pending is the number of the read that waits for input, 0 if none does.
func (c *countingReader) pending() int64 { return c.current.Load() }

// status is the end of an execution whose streams have ended.
func (x *execution) status(ctx context.Context, out *startFailure) (runtime.ExitStatus, error) {
	var none runtime.ExitStatus
	for delay := time.Millisecond; ; delay = min(2*delay, 100*time.Millisecond) {
		res, err := x.e.cli.ExecInspect(ctx, x.id, client.ExecInspectOptions{})
		if err != nil {
			if errdefs.IsNotFound(err) {
				return none, runtime.Errorf(errdefs.ErrFailedPrecondition, "the container was removed before the command ended")
			}
			return none, err
		}
		if res.Running {
			// The streams end a little before the daemon notes the status.
			if err := pause(ctx, delay); err != nil {
				return none, errors.Join(err, x.kill(ctx))
			}
			continue
		}
		if failure := out.failure(); failure != "" && res.PID == 0 {
			return none, execError(errors.New(failure))
		}
		if err := out.flush(); err != nil {
			return none, fmt.Errorf("streams: %w", err)
		}
		return runtime.ExitStatus{Code: res.ExitCode}, nil
	}
}

// resize sets the terminal's size, first and whenever it changes.
func (x *execution) resize(ctx context.Context) {
	set := func(size runtime.Size) {
		if size == (runtime.Size{}) {
			return
		}
		// The first may come before the process has started.
		for delay := 5 * time.Millisecond; delay < time.Second; delay *= 2 {
			_, err := x.e.cli.ExecResize(ctx, x.id, client.ExecResizeOptions{Height: uint(size.Rows), Width: uint(size.Cols)})
			if err == nil || pause(ctx, delay) != nil {
				return
			}
		}
	}
	set(x.spec.Size)
	for {
		select {
		case <-ctx.Done():
			return
		case size, ok := <-x.spec.Resize:
			if !ok {
				return
			}
			set(size)
		}
	}
}

// startFailure holds back a text that is the daemon's and not the process's: that
// the command could not be started comes on its stdout.
type startFailure struct {
	w    io.Writer
	held []byte
	past bool
	err  error
}

// startFailures begin such texts.
var startFailures = []string{"OCI runtime exec failed: ", "failed to ", "cannot exec in ", "unable to find ", "rpc error: "}

// maxHeld is more than such a text has.
const maxHeld = 64 << 10

func (s *startFailure) Write(p []byte) (int, error) {
	if s.past {
		return s.write(p)
	}
	s.held = append(s.held, p...)
	if len(s.held) <= maxHeld && couldBegin(s.held) {
		return len(p), nil
	}
	if err := s.flush(); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (s *startFailure) write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	if err != nil && s.err == nil {
		s.err = err
	}
	return n, err
}

// couldBegin reports whether text is, or may become, such a text.
func couldBegin(text []byte) bool {
	for _, prefix := range startFailures {
		n := min(len(prefix), len(text))
		if string(text[:n]) == prefix[:n] {
			return true
		}
	}
	return false
}

// flush passes on what was held back.
func (s *startFailure) flush() error {
	held := s.held
	s.held, s.past = nil, true
	if len(held) == 0 {
		return s.err
	}
	_, err := s.write(held)
	return err
}

// failure is the text held back.
func (s *startFailure) failure() string { return strings.TrimSpace(string(s.held)) }

// execError gives a failure to start a kind.
func execError(err error) error {
	switch {
	case errdefs.IsConflict(err), containsAny(err, "is not running", "is paused"):
		return runtime.Errorf(errdefs.ErrFailedPrecondition, "%s", message(err))
	case containsAny(err, "executable file not found", "no such file or directory", "unable to find user", "unable to find group", "no matching entries in passwd"):
		return runtime.Errorf(errdefs.ErrNotFound, "%s", message(err))
	case containsAny(err, "permission denied", "is a directory", "exec format error"):
		return runtime.Errorf(errdefs.ErrPermissionDenied, "%s", message(err))
	case containsAny(err, "not a directory"):
		return runtime.Errorf(errdefs.ErrNotFound, "%s", message(err))
	}
	return err
}
