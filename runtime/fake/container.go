package fake

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/handshake"
)

type container struct {
	id        string
	spec      runtime.ContainerSpec
	imageID   string
	config    runtime.ImageConfig
	args      []string
	env       []string
	labels    map[string]string
	created   time.Time
	endpoints []runtime.Endpoint
	files     *tree
	logs      *logs
	state     runtime.State
	exit      runtime.ExitStatus

	process *Process
	input   *io.PipeWriter // of a handshake
	kill    context.CancelFunc
	life    context.Context // ends with the process
	done    chan struct{}   // closed when it has ended
	removed bool
	looks   int // at its figures
}

// Run implements [runtime.Containers].
func (e *Engine) Run(ctx context.Context, spec runtime.ContainerSpec) (runtime.Container, error) {
	const op = "run container"
	if err := e.enter(ctx, "Run", op, spec.Name); err != nil {
		return runtime.Container{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c, err := e.create(spec)
	if err == nil && spec.Handshake != nil {
		e.mu.Unlock()
		err = e.talk(ctx, c, spec.Handshake)
		e.mu.Lock()
		if err != nil {
			e.endedLocked(c, 128+9)
			e.drop(c)
		}
	}
	if err != nil {
		return runtime.Container{}, fail(op, spec.Name, err)
	}
	return c.describe(), nil
}

// talk has the handshake with a container's process.
func (e *Engine) talk(ctx context.Context, c *container, with *runtime.Handshake) error {
	listening, stop := context.WithCancel(ctx)
	defer stop()
	err := handshake.Do(ctx, with, handshake.Process{
		Input:  c.input,
		Errors: func(w io.Writer) error { return c.logs.write(listening, runtime.LogOptions{Follow: true, Stderr: w}) },
		Ended: func(ctx context.Context) (runtime.ExitStatus, error) {
			select {
			case <-c.done:
				return c.exit, nil
			case <-ctx.Done():
				return runtime.ExitStatus{}, context.Cause(ctx)
			}
		},
	})
	if err != nil {
		_ = c.input.CloseWithError(io.ErrClosedPipe) // which is no end
	}
	return errors.Join(err, c.input.Close())
}

// create makes and starts a container, or changes nothing. The caller holds the
// lock.
func (e *Engine) create(spec runtime.ContainerSpec) (*container, error) {
	if err := e.supported(spec); err != nil {
		return nil, err
	}
	if e.container(spec.Name) != nil || e.isForeign("containers", spec.Name) {
		return nil, taken("container", spec.Name)
	}
	img := e.image(spec.Image)
	if img == nil {
		return nil, notFound("image", spec.Image)
	}
	c := &container{
		spec: clone(spec), imageID: img.ID, config: img.Config, labels: managed(spec.Labels),
		files: img.files.clone(), logs: newLogs(), state: runtime.StateRunning, done: make(chan struct{}),
	}
	c.args = command(spec, img.Config)
	c.env = environment(img.Config.Env, spec.Env)
	if err := c.prepare(); err != nil {
		return nil, err
	}
	program, err := e.command(c, c.args, c.env)
	if err != nil {
		return nil, err
	}
	c.id = e.id("container")
	if err := e.attach(c); err != nil {
		e.detach(c)
		return nil, err
	}
	c.created = e.now()
	e.containers[c.id] = c
	c.life, c.kill = context.WithCancel(context.Background())
	stdout, stderr := newGate(stream{logs: c.logs}), newGate(stream{logs: c.logs, stderr: !spec.TTY})
	c.process = e.newProcess(c, c.args, c.env)
	c.process.main = true
	c.process.Stdout, c.process.Stderr, c.process.TTY = stdout, stderr, spec.TTY
	if spec.Handshake != nil {
		c.process.Stdin, c.input = io.Pipe()
	}
	go func() {
		code := program(c.life, c.process)
		stdout.close()
		stderr.close()
		e.ended(c, code)
	}()
	return c, nil
}

// capabilities are the kernel's.
var capabilities = strings.Fields("AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN " +
	"DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD " +
	"NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT " +
	"SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM")

// supported refuses what asks for a missing feature or an unknown runtime.
func (e *Engine) supported(spec runtime.ContainerSpec) error {
	asked := map[runtime.Feature]bool{
		runtime.FeatureMemoryLimit: spec.Limits.Memory > 0,
		runtime.FeaturePIDsLimit:   spec.Limits.PIDs > 0,
		runtime.FeatureCPULimit:    spec.Limits.CPUs > 0,
		runtime.FeatureGVisor:      spec.OCIRuntime == "runsc",
	}
	for _, f := range runtime.Features() {
		if reason, missing := e.info.Missing[f]; missing && asked[f] {
			return runtime.NotImplemented(f, reason)
		}
	}
	for _, c := range spec.Capabilities {
		if !slices.Contains(capabilities, strings.TrimPrefix(strings.ToUpper(c), "CAP_")) {
			return invalid("there is no capability %q", c)
		}
	}
	if spec.OCIRuntime != "" && !slices.Contains(e.info.OCIRuntimes, spec.OCIRuntime) {
		return invalid("OCI runtime %q is not one of %s", spec.OCIRuntime, strings.Join(e.info.OCIRuntimes, ", "))
	}
	return nil
}

// prepare makes the directories and files that the spec asks for.
func (c *container) prepare() error {
	for _, t := range c.spec.Tmpfs {
		if _, err := c.files.mkdirs(t.Target); err != nil {
			return pathError(err)
		}
	}
	for _, f := range c.spec.Files {
		mode := fs.FileMode(f.Mode)
		if mode == 0 {
			mode = 0o644
		}
		node := &Node{Mode: mode.Perm(), UID: f.UID, GID: f.GID, ModTime: time.Now(), Content: slices.Clone(f.Content)}
		if err := c.files.put(f.Path, node); err != nil {
			return pathError(err)
		}
	}
	if dir := c.dir(); dir != "/" {
		if _, err := c.files.mkdirs(dir); err != nil {
			return pathError(err)
		}
	}
	return nil
}

func (e *Engine) attach(c *container) error {
	for _, a := range c.spec.Networks {
		n := e.network(a.Network)
		if n == nil {
			return notFound("network", a.Network)
		}
		address, err := n.attach(c.id, a.Address)
		if err != nil {
			return err
		}
		c.endpoints = append(c.endpoints, runtime.Endpoint{Network: n.Name, Address: address, Aliases: slices.Clone(a.Aliases)})
	}
	return nil
}

func (e *Engine) detach(c *container) {
	for _, n := range e.networks {
		n.detach(c.id)
	}
}

func (e *Engine) newProcess(c *container, args, env []string) *Process {
	return &Process{
		Args: slices.Clone(args), Env: env, User: c.user(), Dir: c.dir(), Container: c.spec.Name,
		Stdin: strings.NewReader(""), Files: Files{e, c},
		signals: make(chan string, 16), caught: make(chan struct{}),
	}
}

// ended notes the end of a container's process, if it has not been noted.
func (e *Engine) ended(c *container, code int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.endedLocked(c, code)
}

func (e *Engine) endedLocked(c *container, code int) {
	if c.state == runtime.StateExited {
		return
	}
	c.state, c.exit = runtime.StateExited, runtime.ExitStatus{Code: code & 0xff}
	c.kill()
	close(c.done)
	if c.spec.AutoRemove {
		e.drop(c)
	}
	c.logs.end()
}

// drop removes the container. The caller holds the lock.
func (e *Engine) drop(c *container) {
	if c.removed {
		return
	}
	c.removed = true
	e.detach(c)
	delete(e.containers, c.id)
}

// signal delivers a signal. The caller holds the lock.
func (e *Engine) signal(c *container, name string) error {
	n := signalNumber(name)
	if n == 0 {
		return invalid("there is no signal %q", name)
	}
	const sigkill, sigchld, sigcont, sigurg, sigwinch = 9, 17, 18, 23, 28
	switch {
	case n != sigkill && c.process.catches():
		select {
		case c.process.signals <- "SIG" + strings.TrimPrefix(strings.ToUpper(name), "SIG"):
		default: // as a pending signal, it is not queued without end
		}
	case n == sigchld, n == sigcont, n == sigurg, n == sigwinch:
	default:
		e.endedLocked(c, 128+n)
	}
	return nil
}

// InspectContainer implements [runtime.Containers].
func (e *Engine) InspectContainer(ctx context.Context, name string) (runtime.Container, error) {
	const op = "inspect container"
	if err := e.enter(ctx, "InspectContainer", op, name); err != nil {
		return runtime.Container{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.container(name)
	if c == nil {
		return runtime.Container{}, fail(op, name, notFound("container", name))
	}
	return c.describe(), nil
}

// ListContainers implements [runtime.Containers].
func (e *Engine) ListContainers(ctx context.Context, filter runtime.Filter) ([]runtime.Container, error) {
	if err := e.enter(ctx, "ListContainers", "list containers", ""); err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var list []runtime.Container
	for _, c := range e.containers {
		if filter.Match(c.labels) {
			list = append(list, c.describe().Brief())
		}
	}
	slices.SortFunc(list, func(a, b runtime.Container) int { return a.Created.Compare(b.Created) })
	return list, nil
}

// Wait implements [runtime.Containers].
func (e *Engine) Wait(ctx context.Context, name string) (runtime.ExitStatus, error) {
	const op = "wait for container"
	if err := e.enter(ctx, "Wait", op, name); err != nil {
		return runtime.ExitStatus{}, err
	}
	e.mu.Lock()
	c := e.container(name)
	e.mu.Unlock()
	if c == nil {
		return runtime.ExitStatus{}, fail(op, name, notFound("container", name))
	}
	select {
	case <-c.done:
		return c.exit, nil
	case <-ctx.Done():
		return runtime.ExitStatus{}, fail(op, name, context.Cause(ctx))
	}
}

// Stop implements [runtime.Containers].
func (e *Engine) Stop(ctx context.Context, name string, grace time.Duration) error {
	const op = "stop container"
	if err := e.enter(ctx, "Stop", op, name); err != nil {
		return err
	}
	e.mu.Lock()
	c := e.container(name)
	if c == nil || c.state != runtime.StateRunning {
		defer e.mu.Unlock()
		if c == nil && e.isForeign("containers", name) {
			return fail(op, name, foreign("container", name))
		}
		return nil
	}
	err := error(nil)
	if grace > 0 {
		err = e.signal(c, c.stopSignal())
	}
	e.mu.Unlock()
	if err != nil {
		return fail(op, name, err)
	}
	if grace > 0 {
		// Rounded up to whole seconds, as promised.
		timer := time.NewTimer((grace + time.Second - 1).Truncate(time.Second))
		defer timer.Stop()
		select {
		case <-c.done:
			return nil
		case <-ctx.Done():
			return fail(op, name, context.Cause(ctx))
		case <-timer.C:
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return fail(op, name, e.signal(c, "SIGKILL"))
}

// Kill implements [runtime.Containers].
func (e *Engine) Kill(ctx context.Context, name, signal string) error {
	const op = "kill container"
	if err := e.enter(ctx, "Kill", op, name); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.container(name)
	switch {
	case c == nil && e.isForeign("containers", name):
		return fail(op, name, foreign("container", name))
	case c == nil:
		return fail(op, name, notFound("container", name))
	case c.state != runtime.StateRunning:
		return fail(op, name, precondition("it does not run"))
	}
	return fail(op, name, e.signal(c, signal))
}

// Stats implements [runtime.Containers]: each process counts for a millisecond and a page.
func (e *Engine) Stats(ctx context.Context, name string) (runtime.Stats, error) {
	const op = "read figures of container"
	if err := e.enter(ctx, "Stats", op, name); err != nil {
		return runtime.Stats{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.container(name)
	if reason, missing := e.info.Missing[runtime.FeatureStats]; missing {
		return runtime.Stats{}, fail(op, name, runtime.NotImplemented(runtime.FeatureStats, reason))
	}
	switch {
	case c == nil && e.isForeign("containers", name):
		return runtime.Stats{}, fail(op, name, foreign("container", name))
	case c == nil:
		return runtime.Stats{}, fail(op, name, notFound("container", name))
	case c.state != runtime.StateRunning:
		return runtime.Stats{}, fail(op, name, precondition("it does not run"))
	}
	c.looks++
	return runtime.Stats{CPU: time.Duration(c.looks) * time.Millisecond, Memory: 4096, MemoryLimit: c.spec.Limits.Memory, PIDs: 1}, nil
}

// RemoveContainer implements [runtime.Containers].
func (e *Engine) RemoveContainer(ctx context.Context, name string) error {
	const op = "remove container"
	if err := e.enter(ctx, "RemoveContainer", op, name); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.container(name)
	switch {
	case c == nil && e.isForeign("containers", name):
		return fail(op, name, foreign("container", name))
	case c == nil:
		return nil
	}
	e.endedLocked(c, 128+9)
	e.drop(c)
	return nil
}

// Exec implements [runtime.Containers].
func (e *Engine) Exec(ctx context.Context, name string, spec runtime.ExecSpec) (runtime.ExitStatus, error) {
	const op = "exec in container"
	if err := e.enter(ctx, "Exec", op, name); err != nil {
		return runtime.ExitStatus{}, err
	}
	e.mu.Lock()
	c, program, p, err := e.prepareExec(name, spec)
	e.mu.Unlock()
	if err != nil {
		return runtime.ExitStatus{}, fail(op, name, err)
	}
	life, cancel := context.WithCancel(c.life)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	stdout, stderr := newGate(spec.Stdout), newGate(spec.Stderr)
	p.Stdout, p.Stderr = stdout, stderr
	if spec.TTY {
		p.Stderr = stdout
	}
	ended := make(chan int, 1)
	go func() { ended <- program(life, p) }()
	defer stdout.close()
	defer stderr.close()
	select {
	case code := <-ended:
		// A program that its context made return was killed.
		if err := ctx.Err(); err != nil {
			return runtime.ExitStatus{}, fail(op, name, context.Cause(ctx))
		}
		return runtime.ExitStatus{Code: code & 0xff}, nil
	case <-ctx.Done():
		return runtime.ExitStatus{}, fail(op, name, context.Cause(ctx))
	case <-c.life.Done():
		return runtime.ExitStatus{Code: 128 + 9}, nil
	}
}

func (e *Engine) prepareExec(name string, spec runtime.ExecSpec) (*container, Program, *Process, error) {
	c := e.container(name)
	switch {
	case c == nil && e.isForeign("containers", name):
		return nil, nil, nil, foreign("container", name)
	case c == nil:
		return nil, nil, nil, notFound("container", name)
	case c.state != runtime.StateRunning:
		return nil, nil, nil, precondition("it does not run")
	}
	env := environment(c.env, spec.Env)
	if spec.WorkDir != "" {
		if n, _, err := c.files.lookup(spec.WorkDir, true); err != nil || !n.Mode.IsDir() {
			return nil, nil, nil, notFound("working directory", spec.WorkDir)
		}
	}
	program, err := e.command(c, spec.Command, env)
	if err != nil {
		return nil, nil, nil, err
	}
	p := e.newProcess(c, spec.Command, env)
	if spec.User != "" {
		p.User = spec.User
	}
	if spec.WorkDir != "" {
		p.Dir = spec.WorkDir
	}
	if spec.Stdin != nil {
		p.Stdin = spec.Stdin
	}
	p.TTY, p.Size, p.Resize = spec.TTY, spec.Size, spec.Resize
	return c, program, p, nil
}

// State is everything that a container was given and has.
type State struct {
	runtime.Container
	Spec runtime.ContainerSpec
	// Args and Env are those of its process, the image's part included.
	Args []string
	Env  []string
}

// Snapshot shows a container.
func (e *Engine) Snapshot(name string) (State, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.container(name)
	if c == nil {
		return State{}, fail("take snapshot of container", name, notFound("container", name))
	}
	return State{Container: c.describe(), Spec: clone(c.spec), Args: slices.Clone(c.args), Env: slices.Clone(c.env)}, nil
}

// Files gives access to a container's files.
func (e *Engine) Files(name string) (Files, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.container(name)
	if c == nil {
		return Files{}, fail("open files of container", name, notFound("container", name))
	}
	return Files{e, c}, nil
}

// container finds a container by name or ID. The caller holds the lock.
func (e *Engine) container(name string) *container {
	if c := e.containers[name]; c != nil {
		return c
	}
	for _, c := range e.containers {
		if c.spec.Name == name {
			return c
		}
	}
	return nil
}

func (c *container) describe() runtime.Container {
	endpoints := slices.Clone(c.endpoints)
	for i := range endpoints {
		endpoints[i].Aliases = slices.Clone(endpoints[i].Aliases)
	}
	return runtime.Container{
		ID: c.id, Name: c.spec.Name, Image: c.spec.Image, ImageID: c.imageID, Labels: maps.Clone(c.labels),
		State: c.state, Exit: c.exit, Created: c.created, Networks: endpoints,
	}
}

func (c *container) user() string {
	if c.spec.User != "" {
		return c.spec.User
	}
	return c.config.User
}

func (c *container) dir() string {
	switch {
	case c.spec.WorkDir != "":
		return c.spec.WorkDir
	case c.config.WorkDir != "":
		return c.config.WorkDir
	}
	return "/"
}

func (c *container) stopSignal() string {
	switch {
	case c.spec.StopSignal != "":
		return c.spec.StopSignal
	case c.config.StopSignal != "":
		return c.config.StopSignal
	}
	return "SIGTERM"
}

// readOnly reports whether the path may not be written to.
func (c *container) readOnly(name string) bool {
	if !c.spec.ReadOnly {
		return false
	}
	for _, t := range c.spec.Tmpfs {
		if rel := strings.TrimPrefix(path.Clean(name), path.Clean(t.Target)); rel == "" || strings.HasPrefix(rel, "/") {
			return false
		}
	}
	return true
}

// command is the argument vector by the rules of ENTRYPOINT and CMD.
func command(spec runtime.ContainerSpec, config runtime.ImageConfig) []string {
	entrypoint, cmd := config.Entrypoint, config.Cmd
	if spec.Entrypoint != nil {
		entrypoint, cmd = spec.Entrypoint, nil
	}
	if spec.Command != nil {
		cmd = spec.Command
	}
	return slices.Concat(entrypoint, cmd)
}

// environment is base with more added in order of name, replacing same names.
func environment(base []string, more map[string]string) []string {
	env := slices.DeleteFunc(slices.Clone(base), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		_, replaced := more[name]
		return replaced
	})
	for _, name := range slices.Sorted(maps.Keys(more)) {
		env = append(env, name+"="+more[name])
	}
	return env
}

// clone copies a spec deep enough that the caller's changes do not show. Of a handshake
// nothing is kept.
func clone(spec runtime.ContainerSpec) runtime.ContainerSpec {
	spec.Handshake = nil
	spec.Entrypoint, spec.Command = slices.Clone(spec.Entrypoint), slices.Clone(spec.Command)
	spec.Env, spec.Labels = maps.Clone(spec.Env), maps.Clone(spec.Labels)
	spec.Groups, spec.Capabilities = slices.Clone(spec.Groups), slices.Clone(spec.Capabilities)
	spec.Networks, spec.Mounts, spec.Tmpfs = slices.Clone(spec.Networks), slices.Clone(spec.Mounts), slices.Clone(spec.Tmpfs)
	spec.Files = slices.Clone(spec.Files)
	for i := range spec.Files {
		spec.Files[i].Content = slices.Clone(spec.Files[i].Content)
	}
	for i := range spec.Networks {
		spec.Networks[i].Aliases = slices.Clone(spec.Networks[i].Aliases)
	}
	return spec
}
