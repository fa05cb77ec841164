package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/tinyinit"
)

const processType = "types.containerd.io/opencontainers/runtime-spec/1/Process"

// Exec implements [runtime.Containers].
func (e *Engine) Exec(ctx context.Context, name string, spec runtime.ExecSpec) (runtime.ExitStatus, error) {
	status, err := e.exec(e.ctx(ctx), name, spec)
	return status, wrap(ctx, "exec in container", name, err)
}

func (e *Engine) exec(ctx context.Context, name string, spec runtime.ExecSpec) (_ runtime.ExitStatus, err error) {
	none := runtime.ExitStatus{}
	if err := spec.Validate(); err != nil {
		return none, err
	}
	c, init, err := e.running(ctx, name)
	if err != nil {
		return none, err
	}
	id := newID()
	process, err := e.execProcess(c, init.Pid, id, spec)
	if err != nil {
		return none, err
	}
	streams, err := e.openStreams(id, spec)
	if err != nil {
		return none, err
	}
	defer streams.close()
	encoded, err := json.Marshal(process)
	if err != nil {
		return none, err
	}
	_, err = e.tasks().Exec(ctx, &tasks.ExecProcessRequest{
		ContainerID: c.ID, ExecID: id, Terminal: spec.TTY,
		Stdin: streams.stdin, Stdout: streams.stdout.name(), Stderr: streams.stderr.name(),
		Spec: &anypb.Any{TypeUrl: processType, Value: encoded},
	})
	x := &execution{engine: e, container: c.ID, id: id, streams: streams}
	defer func() {
		undo, cancel := undoing(ctx)
		defer cancel()
		err = errors.Join(err, x.remove(undo))
	}()
	if err != nil {
		// Of a call that was cut off it is not known whether it was done.
		x.removed = ctx.Err() == nil
		return none, execError(err)
	}
	return x.run(ctx, spec)
}

// execProcess says what to run: as the container's first process, but for what the
// spec changes.
func (e *Engine) execProcess(c *stored, pid uint32, id string, spec runtime.ExecSpec) (*specs.Process, error) {
	p, err := c.processSpec()
	if err != nil {
		return nil, err
	}
	p.Args, p.Terminal, p.ConsoleSize = spec.Command, spec.TTY, nil
	set := func(name, value string) {
		p.Env = slices.DeleteFunc(p.Env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		p.Env = append(p.Env, name+"="+value)
	}
	if spec.User != "" {
		root, err := openProcessRoot(pid)
		if err != nil {
			return nil, err
		}
		defer func() { _ = root.Close() }()
		who, err := lookupUser(root, spec.User, nil)
		if err != nil {
			return nil, err
		}
		p.User = specs.User{UID: who.uid, GID: who.gid, AdditionalGids: who.groups}
		set("HOME", who.home)
	}
	if spec.WorkDir != "" {
		p.Cwd = spec.WorkDir
	}
	if spec.TTY {
		if variable(p.Env, "TERM") == "" {
			set("TERM", "xterm")
		}
		if spec.Size.Cols > 0 && spec.Size.Rows > 0 {
			p.ConsoleSize = &specs.Box{Width: uint(spec.Size.Cols), Height: uint(spec.Size.Rows)}
		}
	}
	names := make([]string, 0, len(spec.Env))
	for name := range spec.Env {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		set(name, spec.Env[name])
	}
	set(tinyinit.ExecID, id)
	return p, nil
}

// execution is a process in a container.
type execution struct {
	engine        *Engine
	container, id string
	streams       *streams
	pid           uint32
	removed       bool
}

func (x *execution) run(ctx context.Context, spec runtime.ExecSpec) (runtime.ExitStatus, error) {
	none := runtime.ExitStatus{}
	e := x.engine
	// The wait goes on when ctx ends: the process is then killed and waited for.
	waiting, stopWaiting := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWaiting()
	type ended struct {
		code uint32
		err  error
	}
	exit := make(chan ended, 1)
	// The record of a process cannot be removed before its end is known.
	end := func() {
		x.kill(ctx)
		select {
		case <-exit:
		case <-time.After(killPatience):
		}
	}
	go func() {
		r, err := e.tasks().Wait(waiting, &tasks.WaitRequest{ContainerID: x.container, ExecID: x.id})
		exit <- ended{r.GetExitStatus(), err}
	}()
	// The start, too, is seen to its end: what is cut off starts all the same.
	type starting struct {
		pid uint32
		err error
	}
	started := make(chan starting, 1)
	go func() {
		r, err := e.tasks().Start(waiting, &tasks.StartRequest{ContainerID: x.container, ExecID: x.id})
		started <- starting{r.GetPid(), err}
	}()
	select {
	case r := <-started:
		if r.err != nil {
			return none, execError(r.err)
		}
		x.pid = r.pid
	case <-ctx.Done():
		select {
		case r := <-started:
			if r.err == nil {
				x.pid = r.pid
				end()
			}
		case <-time.After(killPatience):
			end()
		}
		return none, context.Cause(ctx)
	}
	x.streams.start(spec, func() {
		_, _ = e.tasks().CloseIO(waiting, &tasks.CloseIORequest{ContainerID: x.container, ExecID: x.id, Stdin: true})
	})
	if spec.TTY {
		go x.resize(waiting, spec.Size, spec.Resize)
	}
	select {
	case ended := <-exit:
		if ended.err != nil {
			if isNotFound(ended.err) {
				return none, precondition("the container ended")
			}
			return none, ended.err
		}
		if err := x.finish(ctx); err != nil {
			x.kill(ctx)
			return none, err
		}
		return runtime.ExitStatus{Code: int(ended.code)}, nil
	case err := <-x.streams.failed:
		end()
		return none, err
	case <-ctx.Done():
		end()
		return none, context.Cause(ctx)
	}
}

func (x *execution) resize(ctx context.Context, size runtime.Size, changes <-chan runtime.Size) {
	for {
		if size.Cols > 0 && size.Rows > 0 {
			_, _ = x.engine.tasks().ResizePty(ctx, &tasks.ResizePtyRequest{
				ContainerID: x.container, ExecID: x.id, Width: uint32(size.Cols), Height: uint32(size.Rows),
			})
		}
		var ok bool
		select {
		case <-ctx.Done():
			return
		case size, ok = <-changes:
			if !ok {
				return
			}
		}
	}
}

// killPatience bounds the wait for the end of a process that has been killed.
const killPatience = 5 * time.Second

// What can be on its way when a process ends: its pipe, the shim's buffer, the
// FIFO. More than that comes from a child that holds the pipe.
const inFlight = 1 << 20

// finish waits until the output of an ended process has been written. A child of
// it may hold the output open and even go on writing: that is not waited for.
func (x *execution) finish(ctx context.Context) error {
	const quiet = 50 * time.Millisecond
	before := x.streams.count()
	last, idle := before, 0
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	for x.streams.open() {
		select {
		case <-x.streams.done:
		case err := <-x.streams.failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			now := x.streams.count()
			if now == last && !x.streams.busy() {
				idle++
			} else {
				idle = 0
			}
			last = now
		}
		if idle >= 3 || last-before > inFlight {
			break
		}
	}
	if !x.streams.open() {
		return x.streams.failure()
	}
	// Removing the process closes the shim's ends.
	if err := x.remove(ctx); err != nil {
		return err
	}
	for x.streams.open() {
		select {
		case <-x.streams.done:
		case err := <-x.streams.failed:
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			x.streams.hurry()
		}
	}
	return x.streams.failure()
}

// remove removes containerd's record of the process.
func (x *execution) remove(ctx context.Context) error {
	if x.removed {
		return nil
	}
	_, err := x.engine.tasks().DeleteProcess(ctx, &tasks.DeleteProcessRequest{ContainerID: x.container, ExecID: x.id})
	if err != nil && !isNotFound(err) {
		// A container that ended took the process along.
		if p, getErr := x.engine.process(ctx, x.container); getErr == nil && p == nil {
			return nil
		}
		return fmt.Errorf("remove the process: %w", native(err))
	}
	x.removed = true
	return nil
}

// execKind is the kind of an OCI runtime's complaint about a process, or nil.
func execKind(err error) error {
	text := strings.ToLower(err.Error())
	has := func(parts ...string) bool {
		return slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(text, p) })
	}
	switch {
	case has("executable file not found", "not found in $path", "no such file or directory"):
		return errdefs.ErrNotFound
	case has("permission denied", "is a directory"):
		return errdefs.ErrPermissionDenied
	case has("not a directory"):
		return errdefs.ErrNotFound
	case has("in a stopped state", "process does not exist", "container not running", "ttrpc: closed", "no running task"):
		return errdefs.ErrFailedPrecondition
	}
	return nil
}

func execError(err error) error {
	err = native(err)
	if kind := execKind(err); kind != nil {
		return runtime.WithKind(kind, err)
	}
	if errdefs.IsNotFound(err) {
		return runtime.WithKind(errdefs.ErrFailedPrecondition, err)
	}
	return err
}
