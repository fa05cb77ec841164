package podman

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/tinyinit"
)

// Exec implements [runtime.Containers].
func (e *engine) Exec(ctx context.Context, name string, spec runtime.ExecSpec) (runtime.ExitStatus, error) {
	status, err := e.exec(ctx, name, spec)
	return status, wrap(ctx, "execute in container", name, err)
}

func (e *engine) exec(ctx context.Context, name string, spec runtime.ExecSpec) (runtime.ExitStatus, error) {
	c, err := e.own(ctx, name)
	if err != nil {
		return runtime.ExitStatus{}, err
	}
	if s := state(c.State.Status); s != runtime.StateRunning {
		return runtime.ExitStatus{}, runtime.Errorf(errdefs.ErrFailedPrecondition, "it is not running (%s)", c.State.Status)
	}
	token := randomHex(16)
	var made created
	if err := e.ask(ctx, call{method: http.MethodPost, path: "/containers/" + c.ID + "/exec", json: execRequest(spec, token)}, &made); err != nil {
		return runtime.ExitStatus{}, err
	}
	x := &execution{e: e, container: c, id: made.ID, token: token, spec: spec}
	if err := x.run(ctx); err != nil {
		if ctx.Err() != nil {
			if killErr := x.kill(ctx); killErr != nil {
				return runtime.ExitStatus{}, errors.Join(context.Cause(ctx), killErr)
			}
			return runtime.ExitStatus{}, context.Cause(ctx)
		}
		if errors.Is(err, errWrite) {
			// Nobody listens any more.
			_ = x.kill(ctx)
		}
		return runtime.ExitStatus{}, err
	}
	code, err := x.status(ctx)
	if err != nil {
		if ctx.Err() != nil {
			_ = x.kill(ctx)
		}
		return runtime.ExitStatus{}, err
	}
	if err := x.refusal(code); err != nil {
		return runtime.ExitStatus{}, err
	}
	return runtime.ExitStatus{Code: code}, nil
}

// execRequest renders an exec. Input is always attached, so that a process that
// reads it gets an end and not a terminal's silence.
func execRequest(spec runtime.ExecSpec, token string) execConfig {
	env := make([]string, 0, len(spec.Env)+1)
	for k, v := range spec.Env {
		env = append(env, k+"="+v)
	}
	return execConfig{
		Cmd: spec.Command, Env: append(env, tinyinit.ExecID+"="+token), User: spec.User, WorkingDir: spec.WorkDir,
		Tty: spec.TTY, AttachStdin: true, AttachStdout: true, AttachStderr: !spec.TTY,
	}
}

// execution is one exec session.
type execution struct {
	e         *engine
	container apiContainer
	id        string
	token     string
	spec      runtime.ExecSpec
	said      *firstWords
	noted     atomic.Pointer[int] // the exit status, if watch saw it
}

// run starts the session and carries its streams until the output ends.
func (x *execution) run(ctx context.Context) error {
	conn, reader, err := x.attach(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	// The connection knows nothing of the context.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)); _ = conn.Close() })
	defer stop()

	done := make(chan struct{})
	defer close(done)
	go x.input(ctx, conn, done)
	if x.spec.TTY && x.spec.Resize != nil {
		go x.resize(ctx, done)
	}
	go x.watch(ctx, done)
	err = x.output(reader)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// attach asks for the start on a connection of its own, which then carries the
// streams.
func (x *execution) attach(ctx context.Context) (net.Conn, *bufio.Reader, error) {
	start := execStart{Tty: x.spec.TTY}
	if x.spec.TTY {
		start.Height, start.Width = x.spec.Size.Rows, x.spec.Size.Cols
	}
	return x.e.hijack(ctx, "/exec/"+x.id+"/start", start)
}

// hijack sends a POST, whose path is below /libpod, on a connection of its own, which then
// carries streams.
func (e *engine) hijack(ctx context.Context, path string, body any) (net.Conn, *bufio.Reader, error) {
	conn, client, err := e.dial(ctx)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	reader, err := upgrade(conn, baseURL(client)+"/"+apiVersion+"/libpod"+path, body)
	if !stop() || err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, nil, err
	}
	return conn, reader, nil
}

// upgrade sends a request whose answer turns the connection into a stream. Body is JSON, or
// nil: what is left of it unread would begin the stream.
func upgrade(conn net.Conn, target string, body any) (*bufio.Reader, error) {
	req, err := http.NewRequest(http.MethodPost, target, http.NoBody)
	if err != nil {
		return nil, err
	}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "tcp")
	if err := req.Write(conn); err != nil {
		return nil, transportError(err)
	}
	reader := bufio.NewReaderSize(conn, 64<<10)
	resp, err := http.ReadResponse(reader, req)
	if err != nil {
		return nil, transportError(err)
	}
	// 200 comes from services that take the connection without saying so.
	if resp.StatusCode != http.StatusSwitchingProtocols && resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return reader, nil
}

// input carries the input, and its end, to the process.
//
// It must not go through the service if that can be helped: input that the process
// has not read when it ends makes the service lose output (its monitor closes a
// socket with unread data in it, and Podman takes the reset for the end). On this
// machine it is written into the process's own pipe. Everywhere it waits until the
// process runs, so that one that is soon over and reads nothing is sent nothing.
func (x *execution) input(ctx context.Context, conn net.Conn, done <-chan struct{}) {
	finish := func() { closeWrite(conn) }
	if x.spec.Stdin == nil {
		if !x.spec.TTY {
			finish()
		}
		return
	}
	pid, ok := x.process(ctx, done)
	if !ok {
		return
	}
	var target io.Writer = conn
	if x.e.local && !x.spec.TTY {
		pipe, err := openInput(pid)
		if err != nil {
			x.e.log.Debug("podman: the input goes through the service", "err", err)
		} else {
			defer pipe.Close()
			finish() // the monitor's own end of the pipe
			stop := make(chan struct{})
			defer close(stop)
			go func() {
				select {
				case <-done: // a child of the process may hold the pipe without reading
					_ = pipe.Close()
				case <-stop:
				}
			}()
			target, finish = pipe, func() {}
		}
	}
	// Hidden, so that the copy uses one buffer and not what either side offers.
	_, err := io.CopyBuffer(struct{ io.Writer }{target}, struct{ io.Reader }{x.spec.Stdin}, make([]byte, 64<<10))
	if err == nil {
		finish()
	}
}

// closeWrite ends one direction of a connection.
func closeWrite(conn net.Conn) {
	if half, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}

// process waits until the session has a process. It is false if it never had one,
// or has none any more.
func (x *execution) process(ctx context.Context, done <-chan struct{}) (pid int, ok bool) {
	// The service has no event for this.
	for wait := time.Millisecond; ; wait = min(wait*3/2, 50*time.Millisecond) {
		var s execState
		if err := x.e.ask(ctx, call{method: http.MethodGet, path: "/exec/" + x.id + "/json"}, &s); err != nil {
			return 0, false
		}
		if s.Pid > 0 {
			return s.Pid, true
		}
		select {
		case <-done:
			return 0, false
		case <-ctx.Done():
			return 0, false
		case <-time.After(wait):
		}
	}
}

// resize passes changes of the terminal's size on.
func (x *execution) resize(ctx context.Context, done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case s, ok := <-x.spec.Resize:
			if !ok {
				return
			}
			err := x.e.ask(ctx, call{method: http.MethodPost, path: "/exec/" + x.id + "/resize", query: url.Values{
				"h": {strconv.Itoa(int(s.Rows))}, "w": {strconv.Itoa(int(s.Cols))},
			}}, nil)
			if err != nil {
				x.e.log.Debug("podman: resize", "err", err)
			}
		}
	}
}

// output carries the output until it ends.
func (x *execution) output(r io.Reader) error {
	if !x.spec.TTY {
		x.said = &firstWords{w: orDiscard(x.spec.Stderr)}
		return demultiplex(r, x.spec.Stdout, x.said)
	}
	x.said = &firstWords{w: orDiscard(x.spec.Stdout)}
	buf := make([]byte, 64<<10)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := x.said.Write(buf[:n]); werr != nil {
				return fmt.Errorf("%w: %w", errWrite, werr)
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("output: %w", err)
		}
	}
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

// firstWords holds the first output back if it looks like the service's own words
// about a command that could not be started: those come as the process's output.
type firstWords struct {
	w    io.Writer
	held []byte
	open bool // what came first was passed on
}

// lostInput is what the service writes into the stream when its monitor went with
// input unread.
var lostInput = regexp.MustCompile(`^Error: (read|write) unixpacket @->/proc/self/fd/[0-9]+/attach: [^\n]*\n$`)

// serviceSays begins what the service writes into the stream.
const serviceSays = "Error: "

func (f *firstWords) Write(p []byte) (int, error) {
	if lostInput.Match(p) {
		return len(p), nil
	}
	if f.open {
		return f.w.Write(p)
	}
	f.held = append(f.held, p...)
	begin := f.held[:min(len(f.held), len(serviceSays))]
	if strings.HasPrefix(serviceSays, string(begin)) && len(f.held) < maxError {
		return len(p), nil
	}
	return len(p), f.flush()
}

// flush passes on what was held back.
func (f *firstWords) flush() error {
	held := f.held
	f.open, f.held = true, nil
	if len(held) == 0 {
		return nil
	}
	_, err := f.w.Write(held)
	return err
}

// refusal turns the service's words about a command that did not start into an
// error, and passes everything else on.
func (x *execution) refusal(code int) error {
	text := string(x.said.held)
	if code == 126 || code == 127 {
		var kind error
		switch {
		case strings.Contains(text, "OCI runtime attempted to invoke a command that was not found"),
			strings.Contains(text, "executable file not found"):
			kind = errdefs.ErrNotFound
		case strings.Contains(text, "OCI permission denied"), strings.Contains(text, "OCI runtime permission denied"):
			kind = errdefs.ErrPermissionDenied
		}
		if kind != nil {
			line, _, _ := strings.Cut(strings.TrimPrefix(text, serviceSays), "\n")
			return runtime.Errorf(kind, "command %q: %s", x.spec.Command[0], strings.TrimSpace(line))
		}
	}
	if strings.Contains(text, "unable to find user") || strings.Contains(text, "no matching entries in passwd file") {
		return runtime.Errorf(errdefs.ErrInvalidArgument, "%s", strings.TrimSpace(text))
	}
	if err := x.said.flush(); err != nil {
		return fmt.Errorf("%w: %w", errWrite, err)
	}
	return nil
}

// watchInterval is well below the exitCommandDelay seconds for which a session is
// remembered.
const watchInterval = 2 * time.Second

// watch notes the exit status of a process whose output is read so slowly that the
// service would have forgotten the session at its end.
func (x *execution) watch(ctx context.Context, done <-chan struct{}) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	ran := false
	for {
		select {
		case <-done:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			var s execState
			if x.e.ask(ctx, call{method: http.MethodGet, path: "/exec/" + x.id + "/json"}, &s) != nil {
				continue
			}
			if ran && !s.Running {
				x.noted.Store(&s.ExitCode)
				return
			}
			ran = ran || s.Running
		}
	}
}

// status asks for the exit status. The output may end before the process does,
// and the service notes the end some milliseconds after it; it has no event for it.
func (x *execution) status(ctx context.Context) (int, error) {
	for wait := time.Millisecond; ; wait = min(wait*3/2, 100*time.Millisecond) {
		var s execState
		if code := x.noted.Load(); code != nil {
			return *code, nil
		}
		if err := x.e.ask(ctx, call{method: http.MethodGet, path: "/exec/" + x.id + "/json"}, &s); err != nil {
			return 0, err
		}
		if !s.Running {
			return s.ExitCode, nil
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}
