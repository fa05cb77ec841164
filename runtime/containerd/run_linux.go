package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	goruntime "runtime"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/bottle-run/bottle/runtime"
)

const (
	shimName = "io.containerd.runc.v2"
	specType = "types.containerd.io/opencontainers/runtime-spec/1/Spec"
	optsType = "containerd.runc.v1.Options"
)

// Run implements [runtime.Containers].
func (e *Engine) Run(ctx context.Context, spec runtime.ContainerSpec) (runtime.Container, error) {
	c, err := e.runContainer(e.ctx(ctx), spec)
	return c, wrap(ctx, "run container", spec.Name, err)
}

func (e *Engine) runContainer(ctx context.Context, spec runtime.ContainerSpec) (_ runtime.Container, err error) {
	none := runtime.Container{}
	if err := errors.Join(spec.Validate(), checkTargets(spec)); err != nil {
		return none, err
	}
	if spec.Hostname == "" {
		spec.Hostname = spec.Name
	}
	binary, err := ociRuntime(spec.OCIRuntime)
	if err != nil {
		return none, err
	}
	if spec.Handshake != nil && spec.OCIRuntime == "runsc" {
		return none, runtime.Errorf(errdefs.ErrNotImplemented, "there is no handshake under runsc, which opens no FIFO of the host's")
	}
	if spec.StopSignal != "" {
		if _, err := signalNumber(spec.StopSignal); err != nil {
			return none, err
		}
	}
	// The name is claimed before there is anything to undo: what is undone below is
	// this call's own.
	claim, err := e.claim(ctx, spec.Name)
	if err != nil {
		return none, err
	}
	defer claim.remove()

	img, source, err := e.resolve(ctx, spec.Image)
	if err != nil {
		return none, err
	}
	c := &stored{
		Container: containers.Container{ID: newID(), CreatedAt: time.Now()},
		record: record{
			Name: spec.Name, Image: spec.Image, ImageID: img.id.String(), Labels: withManaged(spec.Labels),
			StopSignal: first(spec.StopSignal, img.config.StopSignal), AutoRemove: spec.AutoRemove, TTY: spec.TTY,
		},
	}
	talk := e.conversation(ctx, c.ID, spec.Handshake)
	// After the container, if that has to go: its process is not to see an end.
	defer talk.close()
	defer func() {
		if err != nil {
			undo, cancel := undoing(ctx)
			defer cancel()
			err = errors.Join(err, e.destroy(undo, c.ID))
		}
	}()
	if err := e.makeDir(c.ID, spec.Name); err != nil {
		return none, err
	}
	endpoints, err := e.allocate(ctx, c.ID, spec)
	if err != nil {
		return none, err
	}
	for i, ep := range endpoints {
		c.Networks = append(c.Networks, runtime.Endpoint{
			Network: ep.Network, Address: ep.Address, Aliases: spec.Networks[i].Aliases,
		})
	}
	var program []byte
	if !spec.NoInit {
		if program, err = initProgram(goruntime.GOARCH); err != nil {
			return none, err
		}
	}
	// Before it is attached: that adds its peers to the hosts file.
	if err := e.containerFiles(c.ID, spec, endpoints, program); err != nil {
		return none, err
	}
	space, err := newNetspace()
	if err != nil {
		return none, err
	}
	// The container's process holds it once there is one.
	defer func() { err = errors.Join(err, space.Close()) }()
	// Meanwhile the rest is made. Whatever comes of that, this is waited for.
	attached := make(chan error, 1)
	go func() { attached <- e.attach(ctx, space.path(), endpoints) }()
	joined := sync.OnceValue(func() error { return <-attached })
	defer func() { _ = joined() }()
	mounts, err := e.prepareSnapshot(ctx, c.ID, img, func() error { return e.unpack(ctx, source) })
	if err != nil {
		return none, err
	}
	oci, err := e.fill(ctx, c.ID, spec, img, mounts, space.path())
	if err != nil {
		return none, err
	}
	if err := e.create(ctx, c, oci, binary); err != nil {
		return none, err
	}
	watched := make(chan error, 1)
	go func() {
		if !spec.AutoRemove {
			watched <- nil
			return
		}
		watched <- e.ensureWatcher(ctx)
	}()
	if err := e.createTask(ctx, c, oci, mounts, binary); err != nil {
		return none, errors.Join(startError(spec, err), <-watched)
	}
	if err := errors.Join(joined(), <-watched); err != nil {
		return none, err
	}
	if err := context.Cause(ctx); err != nil {
		return none, err
	}
	if _, err := e.tasks().Start(ctx, &tasks.StartRequest{ContainerID: c.ID}); err != nil {
		return none, startError(spec, err)
	}
	if err := talk.have(ctx); err != nil {
		return none, err
	}
	out := c.describe(nil)
	out.State, out.Exit = runtime.StateRunning, runtime.ExitStatus{}
	return out, nil
}

// nameFile is whose container a directory is: by it, a later process finds the claim. A
// directory without it is nobody's.
const nameFile = "name"

// makeDir makes a container's directory, which is there with its name or not at all.
func (e *Engine) makeDir(id, name string) error {
	unnamed := e.unnamedDir(name)
	// The name is claimed: one that is there is of a process that died.
	if err := errors.Join(os.RemoveAll(unnamed), os.Mkdir(unnamed, 0o700)); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(unnamed, nameFile), []byte(name), 0o600); err != nil {
		return err
	}
	return os.Rename(unnamed, e.containerDir(id))
}

// unnamedDir is what a container's directory is before it has its name.
func (e *Engine) unnamedDir(name string) string { return e.dir("names", name+unnamedSuffix) }

const unnamedSuffix = ".new"

// claim takes the lock of a name, and checks that no container has it.
func (e *Engine) claim(ctx context.Context, name string) (*fileLock, error) {
	taken := func() error {
		return runtime.Errorf(errdefs.ErrAlreadyExists, "a container of that name exists")
	}
	l, err := tryLock(e.nameLock(name))
	if err != nil {
		return nil, err
	}
	if l == nil {
		// Its holder makes or removes the container of that name.
		if l, err = lock(ctx, e.nameLock(name)); err != nil {
			return nil, err
		}
	}
	if _, err := e.find(ctx, name); err == nil {
		l.remove()
		return nil, taken()
	} else if !isNotFound(err) {
		l.remove()
		return nil, err
	}
	return l, nil
}

func (e *Engine) nameLock(name string) string { return e.dir("names", name+".lock") }

// prepareSnapshot makes a container's writable layer.
func (e *Engine) prepareSnapshot(ctx context.Context, id string, img *image, unpack func() error) ([]mount.Mount, error) {
	prepare := func() ([]mount.Mount, error) {
		return e.snapshots().Prepare(ctx, id, img.chain.String(), snapshots.WithLabels(map[string]string{
			// No record refers to it yet, and the collector may come by before one does.
			"containerd.io/gc.root": time.Now().UTC().Format(time.RFC3339),
			runtime.LabelManaged:    "true",
		}))
	}
	mounts, err := prepare()
	if isNotFound(err) {
		if err := unpack(); err != nil {
			return nil, err
		}
		mounts, err = prepare()
	}
	if err != nil {
		return nil, fmt.Errorf("make the container's file system: %w", err)
	}
	return mounts, nil
}

// fill puts the files into a new container's root, and reads there what its
// specification depends on.
func (e *Engine) fill(ctx context.Context, id string, spec runtime.ContainerSpec, img *image, mounts []mount.Mount, network string) (_ *specs.Spec, err error) {
	root, err := e.openSnapshot(mounts)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	if err := root.putFiles(ctx, spec.Files); err != nil {
		return nil, err
	}
	oci, err := e.ociSpec(id, spec, img, root, network)
	if err != nil {
		return nil, err
	}
	return oci, nil
}

// create makes containerd's record.
func (e *Engine) create(ctx context.Context, c *stored, oci *specs.Spec, binary string) error {
	encoded, err := json.Marshal(oci)
	if err != nil {
		return err
	}
	extensions, err := c.record.encode()
	if err != nil {
		return err
	}
	labels := map[string]string{runtime.LabelManaged: "true", labelName: c.Name, labelImage: c.ImageID}
	if c.AutoRemove {
		labels[labelAutoRemove] = "true"
	}
	created, err := e.containers().Create(ctx, containers.Container{
		ID:          c.ID,
		Image:       c.record.Image,
		Labels:      labels,
		Runtime:     containers.RuntimeInfo{Name: shimName, Options: shimOptions(oci, binary)},
		Spec:        &rawAny{url: specType, value: encoded},
		SnapshotKey: c.ID,
		Snapshotter: e.snapshotter,
		Extensions:  extensions,
	})
	if err != nil {
		return fmt.Errorf("make containerd's record: %w", err)
	}
	c.Container = created
	return nil
}

func shimOptions(oci *specs.Spec, binary string) typeurl.Any {
	opts := &options.Options{
		BinaryName: binary,
		// The process may open its own standard output again.
		IoUid: oci.Process.User.UID, IoGid: oci.Process.User.GID,
	}
	value, err := proto.Marshal(opts)
	if err != nil {
		panic(err) // a fixed message of strings and numbers
	}
	return &rawAny{url: optsType, value: value}
}

// createTask makes the process, which waits to be started.
func (e *Engine) createTask(ctx context.Context, c *stored, oci *specs.Spec, mounts []mount.Mount, binary string) error {
	logger, err := e.loggerURI(c.ID)
	if err != nil {
		return err
	}
	opts := shimOptions(oci, binary)
	_, err = e.tasks().Create(ctx, &tasks.CreateTaskRequest{
		ContainerID: c.ID,
		Rootfs:      mount.ToProto(mounts),
		Stdout:      logger,
		Stderr:      logger,
		Terminal:    oci.Process.Terminal,
		Options:     &anypb.Any{TypeUrl: opts.GetTypeUrl(), Value: opts.GetValue()},
	})
	return native(err)
}

// loggerURI names the program that the shim starts for a container's output.
func (e *Engine) loggerURI(id string) (string, error) {
	program, err := e.hostProgram()
	if err != nil {
		return "", err
	}
	u := url.URL{Scheme: "binary", Path: program, RawQuery: url.Values{"log": {filepath.Join(e.containerDir(id), logFile)}}.Encode()}
	return u.String(), nil
}

// hostProgram writes the init program where the host can run it, under a name of
// its content: the version of another process stays as it is.
func (e *Engine) hostProgram() (string, error) {
	content, err := initProgram(goruntime.GOARCH)
	if err != nil {
		return "", err
	}
	path := e.dir("init-" + shortHash(string(content)))
	if st, err := os.Stat(path); err == nil && st.Size() == int64(len(content)) && st.Mode().Perm() == 0o755 {
		return path, nil
	}
	temporary := path + "." + e.name + "-" + newID()
	if err := os.WriteFile(temporary, content, 0o755); err != nil {
		return "", err
	}
	if err := errors.Join(os.Chmod(temporary, 0o755), os.Rename(temporary, path)); err != nil {
		_ = os.Remove(temporary)
		return "", err
	}
	return path, nil
}

// RemoveContainer implements [runtime.Containers].
func (e *Engine) RemoveContainer(ctx context.Context, name string) error {
	return wrap(ctx, "remove container", name, e.removeContainer(e.ctx(ctx), name))
}

func (e *Engine) removeContainer(ctx context.Context, name string) error {
	c, err := e.find(ctx, name)
	if isNotFound(err) && isName(name) {
		// It may be on its way: wait for whoever makes it.
		var l *fileLock
		if _, statErr := os.Stat(e.nameLock(name)); statErr != nil {
			return nil
		}
		if l, err = lock(ctx, e.nameLock(name)); err != nil {
			return err
		}
		defer l.remove()
		if c, err = e.find(ctx, name); err == nil {
			return e.destroy(ctx, c.ID)
		}
	}
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	l, err := lock(ctx, e.nameLock(c.Name))
	if err != nil {
		return err
	}
	defer l.remove()
	return e.destroy(ctx, c.ID)
}

// destroy removes whatever there is of a container. What is missing is no error.
func (e *Engine) destroy(ctx context.Context, id string) error {
	var errs []error
	fail := func(what string, err error) {
		if err != nil && !isNotFound(err) && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s: %w", what, native(err)))
		}
	}
	err := e.killAndWait(ctx, id)
	fail("end its process", err)
	detached := make(chan error, 1)
	go func() { detached <- e.detach(ctx, id) }()
	_, err = e.tasks().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	fail("remove its task", err)
	fail("detach it from its networks", <-detached)
	// Where something fails the record stays, so that it can be found and removed; if there is
	// none yet, it is found without.
	if len(errs) == 0 {
		fail("remove its file system", e.snapshots().Remove(ctx, id))
		fail("remove its record", e.containers().Delete(ctx, id))
	}
	if len(errs) == 0 {
		fail("remove its directory", os.RemoveAll(e.containerDir(id)))
	}
	if len(errs) > 0 {
		e.sweepAgain()
	}
	return errors.Join(errs...)
}

// startError gives the OCI runtime's words a kind.
func startError(spec runtime.ContainerSpec, err error) error {
	err = native(err)
	if kind := execKind(err); kind != nil {
		return runtime.WithKind(kind, err)
	}
	for _, m := range spec.Mounts {
		if _, statErr := os.Stat(m.Source); errors.Is(statErr, unix.ENOENT) {
			return runtime.WithKind(errdefs.ErrNotFound, fmt.Errorf("mount source %s: %w", m.Source, err))
		}
	}
	return err
}
