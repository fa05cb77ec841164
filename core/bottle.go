package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/bottle-run/bottle/core/internal/graph"
	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/runtime"
)

// Bottle is a launched instance: one that this process launched, or one that it
// found with [Open]. It is safe for concurrent use.
type Bottle struct {
	// Name is unique on the engine.
	Name string
	// Agent is the agent's name in the manifest.
	Agent string
	// Network is the internal network, of a bottle that this process launched.
	Network runtime.Network
	// Command is the agent's.
	Command []string

	rt       runtime.Runtime
	launch   string
	user     string // as specified
	copied   copied
	report   reporter
	launched []Sidecar // of a bottle that this process launched

	mu        sync.Mutex
	container string      // the agent's; another one after a restart
	undo      *graph.Undo // nil if another process launched it
	recording *recording  // nil without a record
}

// ExecOptions say how a command runs in a bottle.
type ExecOptions struct {
	// Command is the agent's if it is empty.
	Command []string
	// Env is added to the bottle's variables, and kept from the engine's records
	// as those are.
	Env map[string]string
	// Terminal is the value of TERM, if the command has a terminal.
	Terminal string
	// User and WorkDir are the agent's if they are empty. A user that is named does
	// not get the bottle's secret variables, nor what the agent made of them.
	User    string
	WorkDir string

	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer

	TTY    bool
	Size   runtime.Size
	Resize <-chan runtime.Size
}

// agent is the ID of the agent's container.
func (b *Bottle) agent() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.container
}

// Exec runs a command in the bottle and returns when it has ended. A command that
// is not there gives status 127, one that cannot be executed 126, as in a shell,
// with a line on Stderr that says so. When ctx ends the command is killed.
func (b *Bottle) Exec(ctx context.Context, opts ExecOptions) (runtime.ExitStatus, error) {
	command := opts.Command
	if len(command) == 0 {
		command = b.Command
	}
	if len(command) == 0 {
		return runtime.ExitStatus{}, Errorf(KindInput, "there is no command to run in bottle %s", b.Name)
	}
	container := b.agent()
	if len(opts.Env) > 0 {
		file := inside.Tmpfs + "/env-" + newID()
		if err := putEnvAs(ctx, b.rt, container, file, opts.Env, opts.User); err != nil {
			return runtime.ExitStatus{}, err
		}
		command = inside.With(file, command)
	}
	// The agent can write to its own file of variables. For another user they would
	// be the agent's words: LD_PRELOAD would make them code.
	variables := inside.EnvFile
	if opts.User != "" {
		variables = inside.NoEnvFile
	}
	with := inside.With
	if opts.TTY && opts.Size != (runtime.Size{}) {
		with = inside.WithTerminal
	}
	var env map[string]string
	if opts.TTY && opts.Terminal != "" {
		env = map[string]string{"TERM": opts.Terminal}
	}
	if opts.TTY && opts.Stdin != nil {
		ended := make(chan struct{})
		defer close(ended)
		opts.Stdin = &keyboard{r: opts.Stdin, ended: ended}
	}
	return b.rt.Exec(ctx, container, runtime.ExecSpec{
		Command: with(variables, command), Env: env, User: opts.User, WorkDir: opts.WorkDir,
		Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr, TTY: opts.TTY, Size: opts.Size, Resize: opts.Resize,
	})
}

// keyboard makes the end of an input the key by which a terminal is told of it: a
// terminal has no end of its own, and to close it hangs the program up.
type keyboard struct {
	r     io.Reader
	ended <-chan struct{} // the command's end
	eof   bool
}

// endOfText is Control-D.
const endOfText = 4

func (k *keyboard) Read(p []byte) (int, error) {
	if !k.eof && len(p) > 0 {
		n, err := k.r.Read(p)
		if !errors.Is(err, io.EOF) {
			return n, err
		}
		if n == 0 {
			p[0], n, k.eof = endOfText, 1, true
		}
		return n, nil
	}
	<-k.ended
	return 0, io.EOF
}

// CopyTo extracts an archive into a directory of the bottle, as
// [runtime.Containers.CopyTo] does.
func (b *Bottle) CopyTo(ctx context.Context, dir string, archive io.Reader) error {
	return b.rt.CopyTo(ctx, b.agent(), dir, archive)
}

// CopyFrom streams a file or a directory of the bottle as an archive, as
// [runtime.Containers.CopyFrom] does. What it holds is the agent's: see package
// core/unpack for how to lay it down on the host.
func (b *Bottle) CopyFrom(ctx context.Context, path string) (io.ReadCloser, error) {
	return b.rt.CopyFrom(ctx, b.agent(), path)
}

// Detach lets the bottle live on when this process ends: Close does nothing any
// more. [Open] finds it again. If that cannot be recorded, the bottle stays this
// process's, to be closed.
func (b *Bottle) Detach() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.recording.detach(); err != nil {
		return withKind(KindRecord, fmt.Errorf("the bottle cannot be detached: %w", err))
	}
	if b.undo != nil {
		b.undo.Drop()
	}
	b.undo, b.launch, b.recording = nil, "", nil
	return nil
}

// Keep has a record follow the end of a bottle that another process launched.
func (b *Bottle) Keep(r Recording) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.recording = newRecording()
	b.recording.set(r)
}

// Launch identifies the launch that made the bottle; empty if it was detached by this
// process.
func (b *Bottle) Launch() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.launch
}

// Close removes everything of the bottle's, newest first, and returns all errors
// of what could not be removed together, of KindLeftover. It may be called again.
func (b *Bottle) Close(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.launch == "" {
		return nil
	}
	r := b.report.forTeardown()
	if err := b.recording.closing(); err != nil {
		r.note(stepRecord, err.Error()) // what it says is true enough
	}
	var err error
	if b.undo == nil {
		err = withKind(KindLeftover, sweep(ctx, b.rt, b.launch, r))
	} else if undone := b.undo.Run(ctx, r); undone != nil || b.recording != nil {
		// A record goes only when the engine itself says that nothing is left.
		err = leftovers(undone, sweep(ctx, b.rt, b.launch, r))
	}
	if err == nil {
		return b.recording.end(false)
	}
	// Close may be called again; the record says until then that something is left.
	return err
}

// putEnv gives variables to the container's own user.
func putEnv(ctx context.Context, rt runtime.Runtime, container, file string, env map[string]string) error {
	return putEnvAs(ctx, rt, container, file, env, "")
}

func encodeEnv(env map[string]string) ([]byte, error) {
	encoded, err := inside.EncodeEnv(env)
	if err != nil {
		err = withKind(KindInput, err)
	}
	return encoded, err
}

// putEnvAs writes variables into a file that only user can read. They go through
// standard input, so that the engine does not keep them.
func putEnvAs(ctx context.Context, rt runtime.Runtime, container, file string, env map[string]string, user string) error {
	encoded, err := encodeEnv(env)
	if err != nil {
		return err
	}
	var said bytes.Buffer
	status, err := rt.Exec(ctx, container, runtime.ExecSpec{
		Command: inside.Put(file), User: user, WorkDir: "/", Stdin: bytes.NewReader(encoded), Stderr: &said,
	})
	if err != nil {
		return err
	}
	if status.Code != 0 {
		return fmt.Errorf("the variables could not be passed into the container: status %d: %s", status.Code, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}
