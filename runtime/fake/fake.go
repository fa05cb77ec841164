package fake

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/bottle-run/bottle/runtime"
)

// Name is the engine's name.
const Name = "fake"

// Engine is an engine in memory. The zero value is not usable; see [New].
type Engine struct {
	mu         sync.Mutex
	programs   map[string]Program
	fault      func(op, object string) error
	calls      []Call
	info       runtime.Info
	seq        int
	networks   map[string]*network   // by ID
	containers map[string]*container // by ID
	images     map[string]*image     // by ID
	foreign    runtime.Inventory
	closed     bool
}

var _ runtime.Runtime = (*Engine)(nil)

// New makes an engine that holds nothing.
func New() *Engine {
	return &Engine{
		programs:   map[string]Program{},
		networks:   map[string]*network{},
		containers: map[string]*container{},
		images:     map[string]*image{},
		foreign:    runtime.Inventory{},
		info: runtime.Info{
			Engine: Name, Version: "1", APIVersion: "1", Endpoint: "memory:", Simulated: true,
			OS: "linux", Arch: "amd64", Kernel: "none", CgroupVersion: "2",
			NetworkStack: "none", StorageDriver: "memory", Builder: "fake",
			OCIRuntimes: []string{"fake"}, DefaultRuntime: "fake",
			Missing: map[runtime.Feature]string{
				runtime.FeatureGVisor: "nothing is really run",
			},
		},
	}
}

// SetInfo changes what Info returns, such as the features that are missing. A
// spec that asks for a missing feature is refused from then on.
func (e *Engine) SetInfo(change func(*runtime.Info)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(&e.info)
}

// Handle registers the function that runs in place of a program: by its
// absolute path, or by its base name for every path that ends so.
func (e *Engine) Handle(program string, p Program) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.programs[program] = p
}

// SetFault makes calls fail: f is asked at the start of each with the method's
// name ("Run", "CreateNetwork") and the object's name, and what it returns other
// than nil is the call's error, before the call has any effect. A nil f ends it.
// f must not call the engine.
func (e *Engine) SetFault(f func(op, object string) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.fault = f
}

// Call is one call that was made.
type Call struct {
	Op     string // the method's name
	Object string
}

// Sweep implements [runtime.Runtime]: nothing outlives this process.
func (e *Engine) Sweep(context.Context) error { return nil }

// Calls returns the calls made so far, in order, those that failed too. Info and
// Inventory are not among them.
func (e *Engine) Calls() []Call {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.calls)
}

// AddForeign puts an object on the engine that bottle did not make, so that a
// name is taken or an inventory holds more: kind is one of Inventory's.
func (e *Engine) AddForeign(kind, name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.foreign[kind] = append(e.foreign[kind], name)
}

// RemoveForeign takes away what AddForeign put there. For "images" it removes the
// image of that reference, whoever made it.
func (e *Engine) RemoveForeign(kind, name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.foreign[kind] = slices.DeleteFunc(e.foreign[kind], func(n string) bool { return n == name })
	if img := e.image(name); kind == "images" && img != nil {
		delete(e.images, img.ID)
	}
}

// enter notes a call and asks for its fault. The caller holds no lock.
func (e *Engine) enter(ctx context.Context, method, op, object string) error {
	e.mu.Lock()
	e.calls = append(e.calls, Call{Op: method, Object: object})
	fault, closed := e.fault, e.closed
	e.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return fail(op, object, err)
	}
	if closed {
		return fail(op, object, errClosed)
	}
	if fault != nil {
		if err := fault(method, object); err != nil {
			return fail(op, object, err)
		}
	}
	return nil
}

// fail wraps err as an engine does.
func fail(op, object string, err error) error {
	if err == nil {
		return nil
	}
	return &runtime.Error{Engine: Name, Op: op, Object: object, Err: err}
}

// id makes a new identifier. The caller holds the lock.
func (e *Engine) id(kind string) string {
	e.seq++
	return fmt.Sprintf("%s-%06d", kind, e.seq)
}

// now is a time that differs from call to call, so that lists have an order. The
// caller holds the lock.
func (e *Engine) now() time.Time {
	e.seq++
	return time.Now().Add(time.Duration(e.seq) * time.Nanosecond)
}

func (e *Engine) program(name string) Program {
	if p := e.programs[name]; p != nil {
		return p
	}
	return e.programs[path.Base(name)]
}

// Info implements [runtime.Runtime].
func (e *Engine) Info(ctx context.Context) (runtime.Info, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return runtime.Info{}, fail("ask for information", "", err)
	}
	if e.closed {
		return runtime.Info{}, fail("ask for information", "", errClosed)
	}
	return e.info, nil
}

// Brief implements [runtime.Runtime].
func (e *Engine) Brief(ctx context.Context) (runtime.Info, error) { return e.Info(ctx) }

// Inventory implements [runtime.Runtime].
func (e *Engine) Inventory(ctx context.Context) (runtime.Inventory, error) {
	if err := ctx.Err(); err != nil {
		return nil, fail("take inventory", "", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	inv := runtime.Inventory{"containers": nil, "networks": nil, "images": nil}
	for id, c := range e.containers {
		inv["containers"] = append(inv["containers"], id+" "+c.spec.Name)
	}
	for id, n := range e.networks {
		inv["networks"] = append(inv["networks"], id+" "+n.Name)
	}
	for id, i := range e.images {
		inv["images"] = append(inv["images"], fmt.Sprintf("%s %v", id, i.Tags))
	}
	for kind, names := range e.foreign {
		inv[kind] = append(inv[kind], names...)
	}
	for kind := range inv {
		slices.Sort(inv[kind])
	}
	return inv, nil
}

// Close implements [runtime.Runtime]. What is on the engine stays there, and
// its processes run on.
func (e *Engine) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	return nil
}

// addressPool is what networks without a subnet get theirs from.
var addressPool = netip.MustParsePrefix("10.211.0.0/16")
