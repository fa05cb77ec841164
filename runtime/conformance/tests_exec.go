package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

var execTests = []Test{
	{
		Name: "exec/split-streams",
		Doc:  "Stdout and stderr arrive apart, and complete.",
		Run:  execSplit,
	},
	{
		Name: "exec/all-256-statuses", Timeout: 2 * DefaultTimeout,
		Doc: "Every exit status, 0 to 255, arrives.",
		Run: execStatuses,
	},
	{
		Name: "exec/status-by-signal", Kernel: true,
		Doc: "An exec that a signal ends has status 128 plus the signal.",
		Run: execSignals,
	},
	{
		Name: "exec/env-exact",
		Doc:  "The container's environment with the exec's on top arrives as it was given.",
		Run:  execEnv,
	},
	{
		Name: "exec/args-exact",
		Doc:  "Arguments arrive as they were given.",
		Run:  execArgs,
	},
	{
		Name: "exec/command-not-found",
		Doc:  "A command that is not there is NotFound, one that may not be executed PermissionDenied.",
		Run:  execNotFound,
	},
	{
		Name: "exec/working-directory", Kernel: true,
		Doc: "The working directory is the one asked for, or the container's; a missing one is NotFound.",
		Run: execWorkDir,
	},
	{
		Name: "exec/user", Kernel: true,
		Doc: "The user is the one asked for, or the container's.",
		Run: execUser,
	},
	{
		Name: "exec/in-what-does-not-run",
		Doc:  "Exec in a container that has ended is FailedPrecondition, in one that is not there NotFound.",
		Run:  execEnded,
	},
	{
		Name: "exec/stdin-eof",
		Doc:  "Stdin is passed on to its end and the end too; without stdin the input is empty.",
		Run:  execStdin,
	},
	{
		Name: "exec/dialogue",
		Doc:  "What is written to stdin arrives at once, and so does the answer, while both stay open.",
		Run:  execDialogue,
	},
	{
		Name: "exec/does-not-wait-for-stdin",
		Doc:  "When the process has ended, Exec returns though its stdin has not.",
		Run:  execOpenStdin,
	},
	{
		Name: "exec/background-child-holds-stdout", Kernel: true,
		Doc: "When the process has ended, Exec returns though a child of it in the background keeps stdout open.",
		Run: execBackground,
	},
	{
		Name: "exec/thirty-two-at-once", Timeout: 2 * DefaultTimeout,
		Doc: "32 execs run in one container at once, each with its own streams and status.",
		Run: execMany,
	},
	{
		Name: "exec/cancelled-leaves-no-process", Kernel: true,
		Doc: "When its context ends, an exec's process is gone when Exec returns, with its stubborn children and those in a session of their own; the error says so, and nothing else is harmed.",
		Run: execCancelled,
	},
	{
		Name: "exec/cancelled-with-a-terminal", Kernel: true,
		Doc: "The same holds with a terminal.",
		Run: execCancelledTTY,
	},
	{
		Name: "exec/ends-with-the-container", Kernel: true,
		Doc: "An exec returns when its container is removed.",
		Run: execRemoved,
	},
}

func execSplit(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	out, err := b.Exec(ctx, "both", "to stdout", "to stderr")
	if err != nil {
		return err
	}
	return check(out == Output{Stdout: "to stdout\n", Stderr: "to stderr\n"}, "expected one line on each stream, got %+v", out)
}

func execStatuses(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	const lanes = 4
	errs := make([]error, lanes)
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			for code := lane; code < 256; code += lanes {
				out, err := b.Exec(ctx, "exit", fmt.Sprint(code))
				if err == nil && out.Code != code {
					err = failed("expected exit status %d, got %d", code, out.Code)
				}
				if err != nil {
					errs[lane] = failed("status %d: %w", code, err)
					return
				}
			}
		})
	}
	wg.Wait()
	return first(errs...)
}

func execSignals(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	for _, signal := range []int{1, 2, 6, 9, 11, 15} {
		out, err := b.Exec(ctx, "raise", fmt.Sprint(signal))
		if err != nil {
			return err
		}
		if out.Code != 128+signal {
			return failed("an exec that signal %d ends: expected exit status %d, got %d", signal, 128+signal, out.Code)
		}
	}
	return nil
}

func execEnv(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Env: map[string]string{"FROM_SPEC": "yes", "REPLACED": "no"}})
	if err != nil {
		return err
	}
	env := map[string]string{"REPLACED": "yes"}
	for k, v := range awkward {
		env[k] = v
	}
	out, err := b.ExecOf(ctx, runtime.ExecSpec{Command: []string{probe.Path, "env"}, Env: env})
	if err != nil {
		return err
	}
	env["FROM_SPEC"], env["FROM_IMAGE"] = "yes", "yes"
	extra := map[string]bool{"PATH": true, "HOME": true, "HOSTNAME": true, "TERM": true, "container": true, "BOTTLE_EXEC_ID": true}
	return sameEnv(out.Stdout, env, extra)
}

func execArgs(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	args := []string{"", "a b", "new\nline", `quote"s '`, `back\slash`, "$HOME", "žluťoučký", "--flag", "-", "*", "a=b", ""}
	out, err := b.Exec(ctx, append([]string{"args"}, args...)...)
	if err != nil {
		return err
	}
	return sameArgs(out.Stdout, args)
}

func execNotFound(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	for _, tty := range []bool{false, true} {
		for _, command := range []string{"/no/such/program", "no-such-program"} {
			_, err := b.ExecOf(ctx, runtime.ExecSpec{Command: []string{command}, TTY: tty})
			if err := kind(err, errdefs.IsNotFound, "NotFound", "exec "+command); err != nil {
				return failed("TTY %v: %w", tty, err)
			}
		}
		_, err = b.ExecOf(ctx, runtime.ExecSpec{Command: []string{"/etc/passwd"}, TTY: tty})
		if err := kind(err, errdefs.IsPermissionDenied, "PermissionDenied", "exec a file that may not be executed"); err != nil {
			return failed("TTY %v: %w", tty, err)
		}
	}
	// A program that says 126 and 127 itself is no such error.
	for _, code := range []int{126, 127} {
		out, err := b.Exec(ctx, "exit", fmt.Sprint(code))
		if err != nil || out.Code != code {
			return failed("a program that exits with %d: expected that status, got %d, %v", code, out.Code, err)
		}
	}
	return nil
}

func (b *Box) identity(ctx context.Context, spec runtime.ExecSpec) (probe.Identity, error) {
	spec.Command = []string{probe.Path, "id"}
	var id probe.Identity
	out, err := b.ExecOf(ctx, spec)
	if err != nil {
		return id, err
	}
	if err := json.Unmarshal([]byte(out.Stdout), &id); err != nil {
		return id, failed("expected an identity, got %q %q", out.Stdout, out.Stderr)
	}
	return id, nil
}

func execWorkDir(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{WorkDir: "/data"})
	if err != nil {
		return err
	}
	for dir, want := range map[string]string{"": "/data", "/tmp": "/tmp", "/": "/"} {
		id, err := b.identity(ctx, runtime.ExecSpec{WorkDir: dir})
		if err != nil {
			return err
		}
		if id.Dir != want {
			return failed("working directory %q: expected %s, got %s", dir, want, id.Dir)
		}
	}
	_, err = b.ExecOf(ctx, runtime.ExecSpec{Command: []string{probe.Path, "id"}, WorkDir: "/no/such/dir"})
	return kind(err, errdefs.IsNotFound, "NotFound", "exec in a working directory that is not there")
}

func execUser(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{User: probeUser})
	if err != nil {
		return err
	}
	for user, want := range map[string][2]int{
		"": {probeUID, probeGID}, "root": {0, 0}, "0": {0, 0}, "4321:8765": {4321, 8765}, probeUser + ":" + extraGroup: {probeUID, extraGID},
	} {
		id, err := b.identity(ctx, runtime.ExecSpec{User: user})
		if err != nil {
			return failed("user %q: %w", user, err)
		}
		if id.UID != want[0] || id.GID != want[1] {
			return failed("user %q: expected %v, got %d:%d", user, want, id.UID, id.GID)
		}
	}
	return nil
}

func execEnded(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	if err := e.Runtime.Stop(ctx, b.ID, 0); err != nil {
		return err
	}
	_, err = b.Exec(ctx, "echo", "x")
	if err := kind(err, errdefs.IsFailedPrecondition, "FailedPrecondition", "exec in a container that has ended"); err != nil {
		return err
	}
	_, err = e.Runtime.Exec(ctx, e.Name("missing"), runtime.ExecSpec{Command: []string{probe.Path}})
	return kind(err, errdefs.IsNotFound, "NotFound", "exec in a container that is not there")
}

func execStdin(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	for _, input := range []string{"", "no newline", "binary \x00\xff\x04\x1a end\n", strings.Repeat("many\n", 50000)} {
		out, err := b.ExecOf(ctx, runtime.ExecSpec{Command: []string{probe.Path, "cat"}, Stdin: strings.NewReader(input)})
		if err != nil {
			return err
		}
		if out.Stdout != input {
			return failed("expected %d bytes of stdin back, got %d: %.80q", len(input), len(out.Stdout), out.Stdout)
		}
	}
	out, err := b.Exec(ctx, "cat")
	if err != nil {
		return err
	}
	return check(out.Stdout == "" && out.Code == 0, "without stdin: expected an empty input, got %+v", out)
}

func execDialogue(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := e.Runtime.Exec(ctx, b.ID, runtime.ExecSpec{Command: []string{probe.Path, "greet"}, Stdin: inR, Stdout: outW})
		done <- errors.Join(err, outW.CloseWithError(io.EOF))
	}()
	for i := range 3 {
		line := fmt.Sprintf("hello %d", i)
		if _, err := io.WriteString(inW, line+"\n"); err != nil {
			return err
		}
		want := "got " + line + "\n"
		got := make([]byte, len(want))
		if _, err := io.ReadFull(outR, got); err != nil {
			return err
		}
		if string(got) != want {
			return failed("expected answer %q, got %q", want, got)
		}
	}
	if err := inW.Close(); err != nil {
		return err
	}
	return <-done
}

func execOpenStdin(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	r, w := io.Pipe()
	defer func() { _ = w.Close() }()
	out, err := b.ExecOf(ctx, runtime.ExecSpec{Command: []string{probe.Path, "exit", "3"}, Stdin: r})
	if err != nil {
		return err
	}
	return check(out.Code == 3, "expected exit status 3, got %d", out.Code)
}

func execBackground(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	out, err := b.Exec(ctx, "background")
	if err != nil {
		return err
	}
	if out.Code != 0 {
		return failed("expected exit status 0, got %d", out.Code)
	}
	return check(out.Stdout == "started\n", "expected what was written before the end, got %q", out.Stdout)
}

func execMany(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	const many = 32
	errs := make([]error, many)
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			input := strings.Repeat(fmt.Sprintf("%d.", i), 20000)
			out, err := b.ExecOf(ctx, runtime.ExecSpec{Command: []string{probe.Path, "cat"}, Stdin: strings.NewReader(input)})
			if err == nil && out.Stdout != input {
				err = failed("exec %d: expected its own input back, got %d of %d bytes", i, len(out.Stdout), len(input))
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return first(errs...)
}

// noneOf fails while a process of the container has an argument.
func (b *Box) noneOf(ctx context.Context, mark string) error {
	var all []probe.Process
	if err := b.JSON(ctx, &all, "ps"); err != nil {
		return err
	}
	for _, p := range all {
		if p.State != "Z" && strings.Contains(strings.Join(p.Args, " "), mark) {
			return failed("expected no process of a cancelled exec, got %+v", p)
		}
	}
	return nil
}

func execCancelled(ctx context.Context, e *Env) error { return cancelExec(ctx, e, false) }

func execCancelledTTY(ctx context.Context, e *Env) error { return cancelExec(ctx, e, true) }

func cancelExec(ctx context.Context, e *Env, tty bool) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{User: probeUser})
	if err != nil {
		return err
	}
	bystander := make(chan error, 1)
	stop, cancelBystander := context.WithCancel(ctx)
	defer cancelBystander()
	go func() {
		_, err := e.Runtime.Exec(stop, b.ID, runtime.ExecSpec{Command: []string{probe.Path, "sleep"}})
		bystander <- err
	}()
	mark := e.Token()
	execCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	reason := errors.New("the test has seen enough")
	ready := &lineWriter{seen: make(chan struct{}), want: "ready"}
	done := make(chan error, 1)
	go func() {
		_, err := e.Runtime.Exec(execCtx, b.ID, runtime.ExecSpec{Command: []string{probe.Path, "family", mark}, Stdout: ready, TTY: tty})
		done <- err
	}()
	select {
	case <-ready.seen:
	case err := <-done:
		return failed("the exec ended before it was cancelled: %v, output %q", err, ready.text())
	}
	cancel(reason)
	began := time.Now()
	err = <-done
	if took := time.Since(began); took > patience {
		return failed("expected Exec to return soon after its context ended, it took %s", took)
	}
	if !errors.Is(err, reason) && !errors.Is(err, context.Canceled) {
		return failed("expected the context's error, got %w", err)
	}
	if err := b.noneOf(ctx, mark); err != nil {
		return err
	}
	select {
	case err := <-bystander:
		return failed("another exec of the container ended too: %w", err)
	default:
	}
	cancelBystander()
	_ = <-bystander // the cancellation
	return nil
}

func execRemoved(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	ready := &lineWriter{seen: make(chan struct{}), want: "ready"}
	done := make(chan error, 1)
	go func() {
		status, err := e.Runtime.Exec(ctx, b.ID, runtime.ExecSpec{Command: []string{probe.Path, "stubborn"}, Stdout: ready})
		if err == nil && status.Code == 0 {
			err = failed("expected a status other than 0 or an error of an exec whose container was removed, got neither")
		} else {
			err = nil
		}
		done <- err
	}()
	select {
	case <-ready.seen:
	case err := <-done:
		return failed("the exec ended before its container: %v", err)
	}
	if err := e.Runtime.RemoveContainer(ctx, b.ID); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return failed("expected the exec to return when its container was removed, it went on")
	}
}

var ttyTests = []Test{
	{
		Name: "tty/size", Kernel: true,
		Doc: "With TTY the process has a terminal of the size asked for.",
		Run: ttySize,
	},
	{
		Name: "tty/resize", Kernel: true,
		Doc: "The terminal's size follows what arrives on Resize.",
		Run: ttyResize,
	},
	{
		Name: "tty/one-stream", Kernel: true,
		Doc: "With TTY everything arrives in Stdout, with the terminal's line ends, and the exit status as usual.",
		Run: ttyStream,
	},
	{
		Name: "tty/input", Kernel: true,
		Doc: "What is typed arrives, is echoed, and control-D and control-C do what they do.",
		Run: ttyInput,
	},
}

func ttySize(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	for _, size := range []runtime.Size{{Cols: 123, Rows: 45}, {Cols: 80, Rows: 24}} {
		var out bytes.Buffer
		if _, err := b.ExecOf(ctx, runtime.ExecSpec{Command: []string{probe.Path, "tty-settled"}, TTY: true, Size: size, Stdout: &out}); err != nil {
			return err
		}
		var tty probe.TTY
		if err := json.Unmarshal(out.Bytes(), &tty); err != nil {
			return failed("expected a description of the terminal, got %q", out.String())
		}
		if want := (probe.TTY{Stdin: true, Stdout: true, Stderr: true, Cols: int(size.Cols), Rows: int(size.Rows)}); tty != want {
			return failed("expected %+v, got %+v", want, tty)
		}
	}
	return nil
}

func ttyResize(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	resize := make(chan runtime.Size)
	r, w := io.Pipe()
	done := make(chan error, 1)
	execCtx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	go func() {
		_, err := e.Runtime.Exec(execCtx, b.ID, runtime.ExecSpec{
			Command: []string{probe.Path, "winch"}, TTY: true, Size: runtime.Size{Cols: 10, Rows: 10}, Resize: resize, Stdout: w,
		})
		_ = w.CloseWithError(io.EOF)
		done <- err
	}()
	sizes := json.NewDecoder(r)
	// until waits for a size: others may come first, such as the one before the
	// first was set.
	until := func(cols, rows int) error {
		for {
			var tty probe.TTY
			if err := sizes.Decode(&tty); err != nil {
				return failed("expected size %dx%d to be seen: %w", cols, rows, errors.Join(err, context.Cause(execCtx)))
			}
			if tty.Cols == cols && tty.Rows == rows {
				return nil
			}
		}
	}
	if err := until(10, 10); err != nil {
		return err
	}
	for _, s := range []runtime.Size{{Cols: 200, Rows: 50}, {Cols: 81, Rows: 25}} {
		select {
		case resize <- s:
		case err := <-done:
			return failed("the exec ended: %v", err)
		}
		if err := until(int(s.Cols), int(s.Rows)); err != nil {
			return err
		}
	}
	cancel()
	go func() { _, _ = io.Copy(io.Discard, r) }()
	err = <-done
	return kind(err, func(err error) bool { return errors.Is(err, context.Canceled) }, "the context's error", "cancel")
}

func ttyStream(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	status, err := b.ExecOf(ctx, runtime.ExecSpec{Command: []string{probe.Path, "both", "one", "two"}, TTY: true, Stdout: &out})
	if err != nil {
		return err
	}
	if out.String() != "one\r\ntwo\r\n" || status.Code != 0 {
		return failed("expected both streams in one, got %q, status %d", out.String(), status.Code)
	}
	status, err = b.ExecOf(ctx, runtime.ExecSpec{Command: []string{probe.Path, "exit", "77"}, TTY: true})
	if err != nil {
		return err
	}
	return check(status.Code == 77, "expected exit status 77, got %d", status.Code)
}

func ttyInput(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	type session struct {
		in   *io.PipeWriter
		out  *lineWriter
		done chan Output
		errs chan error
	}
	start := func(args ...string) session {
		r, w := io.Pipe()
		s := session{in: w, out: &lineWriter{seen: make(chan struct{}), want: "got hello"}, done: make(chan Output, 1), errs: make(chan error, 1)}
		go func() {
			out, err := b.ExecOf(ctx, runtime.ExecSpec{Command: append([]string{probe.Path}, args...), TTY: true, Stdin: r, Stdout: s.out})
			if err != nil {
				s.errs <- err
				return
			}
			s.done <- out
		}()
		return s
	}
	for _, end := range []struct {
		key  string
		code int
	}{{"\x04", 0}, {"\x03", 130}} {
		s := start("greet")
		if _, err := io.WriteString(s.in, "hello\r"); err != nil {
			return err
		}
		select {
		case <-s.out.seen:
		case err := <-s.errs:
			return err
		case <-time.After(patience):
			return failed("expected an answer to what was typed, got %q", s.out.text())
		}
		if !strings.HasPrefix(s.out.text(), "hello\r\n") {
			return failed("expected what was typed to be echoed, got %q", s.out.text())
		}
		if _, err := io.WriteString(s.in, end.key); err != nil {
			return err
		}
		select {
		case out := <-s.done:
			// Go's runtime turns an interrupt into exit status 2.
			if interrupted := end.code == 130 && out.Code == 2; out.Code != end.code && !interrupted {
				return failed("after key %q: expected exit status %d, got %d", end.key, end.code, out.Code)
			}
		case err := <-s.errs:
			return err
		case <-time.After(patience):
			return failed("after key %q: expected the process to end", end.key)
		}
		_ = s.in.Close()
	}
	return nil
}
