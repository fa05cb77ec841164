package core

import (
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/bottle-run/bottle/core/session"
	"github.com/bottle-run/bottle/runtime"
)

// Recorder keeps a record of each launch outside of this process, so that another
// finds what is left when this one is killed. A launch makes nothing on the engine
// before Begin has returned without an error.
type Recorder interface {
	// Begin records what a launch is about to do.
	Begin(Intent) (Recording, error)
}

// Intent is what a launch is about to do.
type Intent struct {
	// Launch is the value of [LabelLaunch] on all that it makes.
	Launch string
	// Bottle is the name that it wants; it may get another.
	Bottle string
	Agent  string
	// Engine is the engine's name, Endpoint how another process reaches it; empty if it
	// has to start a service of its own.
	Engine, Endpoint string
}

// Recording is the record of one launch. Its methods are called one at a time.
type Recording interface {
	// Claimed notes the name that the bottle got, and what its objects are called.
	Claimed(bottle string, containers, networks []string) error
	// Running notes that the launch is complete.
	Running() error
	// Closing notes that the bottle is being removed.
	Closing() error
	// Detach notes that the bottle lives on without this process.
	Detach() error
	// End is the end: nothing is left and the record goes; or something is, and it is
	// kept for whoever clears up later.
	End(left bool) error
}

// stepRecord writes the record of a launch.
const stepRecord = "write record"

// record writes the launch's record, and lets those go on that wait for it.
func (l *launch) record(context.Context) error {
	r, err := l.opts.Recorder.Begin(Intent{
		Launch: l.id, Bottle: candidate(l.plan.Name.Base, l.next), Agent: l.plan.Agent, Engine: l.info.Engine, Endpoint: l.info.Reach(),
	})
	if err != nil {
		return withKind(KindRecord, fmt.Errorf("%w; nothing was made on the engine, and nothing is without a record: it could not be found again if this process were killed", err))
	}
	l.recording.set(r)
	return nil
}

// claimed tells the record the bottle's name. The label finds everything without it: that
// it cannot be written is worth a note.
func (l *launch) claimed() {
	containers := []string{containerName(l.name)}
	for _, role := range l.roles() {
		containers = append(containers, sidecarName(l.name, role))
	}
	if err := l.recording.claimed(l.name, containers, []string{internalNetworkName(l.name), egressNetworkName(l.name)}); err != nil {
		l.report.note(stepClaim, fmt.Sprintf("the record does not know the bottle's name: %v", err))
	}
}

// recording is a launch's record, or none.
type recording struct {
	mu    sync.Mutex
	r     Recording
	there chan struct{} // closed when there is one
}

func newRecording() *recording { return &recording{there: make(chan struct{})} }

func (r *recording) set(it Recording) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.r = it
	close(r.there)
}

// wait returns when there is a record.
func (r *recording) wait(ctx context.Context) error {
	select {
	case <-r.there:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// with does something with the record, if there is one.
func (r *recording) with(do func(Recording) error) error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.r == nil {
		return nil
	}
	return do(r.r)
}

func (r *recording) claimed(bottle string, containers, networks []string) error {
	return r.with(func(r Recording) error { return r.Claimed(bottle, containers, networks) })
}
func (r *recording) running() error { return r.with(Recording.Running) }
func (r *recording) closing() error { return r.with(Recording.Closing) }
func (r *recording) detach() error  { return r.with(Recording.Detach) }

// end is the end of the record, if it has not come yet.
func (r *recording) end(left bool) error {
	if r == nil {
		return nil
	}
	return r.with(func(it Recording) error {
		r.r = nil
		return it.End(left)
	})
}

// intentFirst is an engine on which nothing can be made before the launch has its
// record.
type intentFirst struct {
	runtime.Runtime
	recording *recording
}

func (i intentFirst) CreateNetwork(ctx context.Context, spec runtime.NetworkSpec) (runtime.Network, error) {
	if err := i.recording.wait(ctx); err != nil {
		return runtime.Network{}, err
	}
	return i.Runtime.CreateNetwork(ctx, spec)
}

func (i intentFirst) Run(ctx context.Context, spec runtime.ContainerSpec) (runtime.Container, error) {
	if err := i.recording.wait(ctx); err != nil {
		return runtime.Container{}, err
	}
	return i.Runtime.Run(ctx, spec)
}

func (i intentFirst) BuildImage(ctx context.Context, spec runtime.BuildSpec) (runtime.Image, error) {
	if err := i.recording.wait(ctx); err != nil {
		return runtime.Image{}, err
	}
	return i.Runtime.BuildImage(ctx, spec)
}

func (i intentFirst) LoadImage(ctx context.Context, archive io.Reader) ([]runtime.Image, error) {
	if err := i.recording.wait(ctx); err != nil {
		return nil, err
	}
	return i.Runtime.LoadImage(ctx, archive)
}

func (i intentFirst) PullImage(ctx context.Context, ref string, opts runtime.PullOptions) (runtime.Image, error) {
	if err := i.recording.wait(ctx); err != nil {
		return runtime.Image{}, err
	}
	return i.Runtime.PullImage(ctx, ref, opts)
}

// ownerLabel identifies the process that launches.
func ownerLabel(p session.Process) string {
	if p.PID == 0 {
		return ""
	}
	return p.String()
}
