package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/session"
	"github.com/bottle-run/bottle/runtime"
)

// Timeout bounds what is asked of one engine.
const Timeout = 10 * time.Second

// youth is the age below which what has no agent may be a bottle that is just being
// launched.
const youth = 2 * time.Minute

// Options say what to examine.
type Options struct {
	Drivers []runtime.Driver
	// Engines go to each driver.
	Engines runtime.Options
	Host    Host
	// Sessions is the user's session directory; it may be missing. Empty leaves the
	// records out.
	Sessions string
	// System looks at the records' owners.
	System session.System
	Now    func() time.Time
}

// Report is what was found.
type Report struct {
	Engines  []Engine  `json:"engines"`
	Findings []Finding `json:"findings"`
	// Worst is the worst severity, or empty.
	Worst Severity `json:"worst,omitempty"`
}

// Engine is the state of one engine.
type Engine struct {
	Name      string `json:"name"`
	Installed bool   `json:"installed"`
	Healthy   bool   `json:"healthy"`
	Endpoint  string `json:"endpoint,omitempty"`
	Version   string `json:"version,omitempty"`
	API       string `json:"api,omitempty"`
	Rootless  bool   `json:"rootless"`
	// Local reports that the engine is this machine's.
	Local    bool     `json:"local"`
	Kernel   string   `json:"kernel,omitempty"`
	Cgroup   string   `json:"cgroup,omitempty"`
	Storage  string   `json:"storage,omitempty"`
	Network  string   `json:"network,omitempty"`
	Builder  string   `json:"builder,omitempty"`
	Runtimes []string `json:"runtimes,omitempty"`
	// Components are versions by program.
	Components map[string]string `json:"components,omitempty"`
	// Missing are the features that it lacks, with the reason.
	Missing map[runtime.Feature]string `json:"missing,omitempty"`
	// Bottles and Networks are how many there are; Pool is how many networks the
	// address pool has room for.
	Bottles  int `json:"bottles"`
	Networks int `json:"networks"`
	Pool     int `json:"pool,omitempty"`
	// Milliseconds is how long the engine took to answer.
	Milliseconds int64 `json:"milliseconds"`

	findings []Finding
	info     runtime.Info
	// launches are those that have objects on the engine.
	launches map[string]bool
}

// Examine looks at everything.
func Examine(ctx context.Context, opts Options) Report {
	engines := make([]Engine, len(opts.Drivers))
	var wg sync.WaitGroup
	for i, d := range opts.Drivers {
		wg.Go(func() { engines[i] = opts.engine(ctx, d) })
	}
	wg.Wait()
	r := Report{Engines: engines}
	local := false
	for _, e := range engines {
		r.Findings = append(r.Findings, e.findings...)
		local = local || e.Local || !e.Healthy
	}
	if local {
		r.Findings = append(r.Findings, opts.Host.check()...)
	}
	r.Findings = append(r.Findings, opts.sessions(engines)...)
	sortFindings(r.Findings)
	r.Worst = Worst(r.Findings)
	return r
}

// Healthy reports whether any engine answers.
func (r Report) Healthy() bool {
	return slices.ContainsFunc(r.Engines, func(e Engine) bool { return e.Healthy })
}

// engine examines one engine.
func (o Options) engine(ctx context.Context, d runtime.Driver) (e Engine) {
	e.Name = d.Name()
	begun := time.Now()
	defer func() { e.Milliseconds = time.Since(begun).Milliseconds() }()
	// The driver has a bound of its own, and says what it waited for: this one is longer.
	opening, opened := context.WithTimeout(ctx, 2*Timeout)
	defer opened()
	rt, err := d.Open(opening, o.Engines.Probing())
	if err != nil {
		// Only the driver knows whether that is a fault, or an engine that is not here.
		status := d.Probe(ctx, o.Engines)
		e.Installed, e.Endpoint, e.Version = status.Installed, status.Endpoint, status.Version
		e.failed(status.Reason, status.Fix, err)
		return e
	}
	defer func() { _ = rt.Close() }()
	e.Installed = true

	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	var wg sync.WaitGroup
	var containers []runtime.Container
	var networks []runtime.Network
	errs := make([]error, 3)
	wg.Go(func() { e.info, errs[0] = rt.Info(ctx) })
	wg.Go(func() { containers, errs[1] = rt.ListContainers(ctx, runtime.Filter{}) })
	wg.Go(func() { networks, errs[2] = rt.ListNetworks(ctx, runtime.Filter{}) })
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		e.failed("", "", err)
		return e
	}
	e.describe()
	e.components(ctx, o.Host)
	e.findings = append(e.findings, e.judge(o.Host)...)
	e.findings = append(e.findings, e.objects(o, containers, networks)...)
	return e
}

// failed notes an engine that does not answer.
func (e *Engine) failed(reason, fix string, err error) {
	if reason == "" {
		reason = err.Error()
	}
	f := Finding{Severity: Note, Check: "engine", Engine: e.Name, Text: "not here: " + reason, Fix: fix}
	if e.Installed {
		f.Severity, f.Text = Warning, "installed, and does not answer: "+reason
	}
	e.findings = append(e.findings, f)
}

// describe copies what the engine says of itself.
func (e *Engine) describe() {
	i := e.info
	e.Healthy, e.Version, e.API, e.Endpoint, e.Rootless = true, i.Version, i.APIVersion, i.Endpoint, i.Rootless
	e.Kernel, e.Cgroup, e.Storage, e.Network, e.Builder = i.Kernel, i.CgroupVersion, i.StorageDriver, i.NetworkStack, i.Builder
	e.Runtimes, e.Missing = i.OCIRuntimes, i.Missing
	e.Local = strings.HasPrefix(i.Endpoint, "unix:") || i.Simulated
}

// components collects versions: the engine's own, what it tells, and what this host
// tells if the engine is here and does not.
func (e *Engine) components(ctx context.Context, h Host) {
	e.Components = map[string]string{}
	for _, c := range e.info.Components {
		e.Components[c.Name] = c.Version
	}
	if e.Components[e.info.DefaultRuntime] == "" && e.Local && h.Version != nil && !strings.ContainsAny(e.info.DefaultRuntime, "/ ") && e.info.DefaultRuntime != "" {
		if v := h.Version(ctx, e.info.DefaultRuntime); v != "" {
			e.Components[e.info.DefaultRuntime] = v
		}
	}
}

// judge says what is wrong with an engine that answers.
func (e *Engine) judge(h Host) []Finding {
	var list []Finding
	add := func(s Severity, check, fix, format string, args ...any) {
		list = append(list, Finding{Severity: s, Check: check, Engine: e.Name, Text: fmt.Sprintf(format, args...), Fix: fix})
	}
	for _, w := range e.info.Warnings {
		add(Note, "engine-warning", "", "%s", w)
	}
	switch e.info.StorageDriver {
	case "vfs":
		add(Warning, "storage-driver", "have the engine use overlay (native since Linux 5.13 for users, or fuse-overlayfs); existing images have to be pulled again", "the storage driver is vfs: every container is a full copy of its image")
	case "devicemapper", "aufs":
		add(Warning, "storage-driver", "have the engine use overlay2", "the storage driver %s is no longer maintained", e.info.StorageDriver)
	}
	for _, limit := range []runtime.Feature{runtime.FeatureMemoryLimit, runtime.FeaturePIDsLimit, runtime.FeatureCPULimit} {
		if reason, missing := e.info.Missing[limit]; missing {
			add(Warning, string(limit), "use control groups of version 2, delegated to the user if the engine is rootless", "no %s: %s: an agent can use up the machine", limit.Doc(), reason)
		}
	}
	if e.Local && e.Rootless && h.UID != 0 {
		list = append(list, h.rootless(e.Name)...)
	}
	if !e.Rootless {
		add(Note, "rootful", "", "the engine runs as root: what gets out of a container is root on its host")
	}
	parts := []runtime.Component{{Name: e.Name, Version: e.Version}}
	for name, v := range e.Components {
		// What the engine tells as its package's version is more exact.
		if name == e.Name {
			parts[0].Version = v
			continue
		}
		parts = append(parts, runtime.Component{Name: name, Version: v})
	}
	slices.SortFunc(parts[1:], func(a, b runtime.Component) int { return strings.Compare(a.Name, b.Name) })
	return append(list, h.escapes(e.Name, parts, e.Local)...)
}

// objects looks at what there is on the engine: leftovers, and room for more.
func (e *Engine) objects(o Options, containers []runtime.Container, networks []runtime.Network) []Finding {
	var list []Finding
	type launch struct {
		name, what string
		agent      bool
		newest     time.Time
	}
	launches := map[string]*launch{}
	note := func(labels map[string]string, what, name string, created time.Time) {
		id := labels[core.LabelLaunch]
		if id == "" {
			return
		}
		l := launches[id]
		if l == nil {
			l = &launch{name: labels[core.LabelBottle]}
			launches[id] = l
		}
		l.agent = l.agent || labels[core.LabelRole] == core.RoleAgent
		if created.After(l.newest) {
			l.newest = created
		}
		l.what += fmt.Sprintf(", %s %s", what, name)
	}
	for _, c := range containers {
		note(c.Labels, "container", c.Name, c.Created)
	}
	for _, n := range networks {
		note(n.Labels, "network", n.Name, n.Created)
	}
	e.launches = map[string]bool{}
	for id, l := range launches {
		e.launches[id] = true
		if l.agent {
			e.Bottles++
			continue
		}
		if age := o.Now().Sub(l.newest); age >= 0 && age < youth {
			list = append(list, Finding{Severity: Note, Check: "leftovers", Engine: e.Name, Text: fmt.Sprintf("bottle %s has no agent: it is just being launched or removed, or was left by a launch that was killed", l.name)})
			continue
		}
		list = append(list, Finding{Severity: Warning, Check: "leftovers", Engine: e.Name, Text: fmt.Sprintf("bottle %s has no agent any more, and these are left of it: %s", l.name, strings.TrimPrefix(l.what, ", ")), Fix: fmt.Sprintf("bottle rm %s --runtime %s", l.name, e.Name)})
	}
	return append(list, e.pool(o, networks)...)
}

// networkBits is the size of the networks that engines take from the pool.
const networkBits = 27

// pool looks how much of the address pool is used.
func (e *Engine) pool(o Options, networks []runtime.Network) []Finding {
	var list []Finding
	pool := o.Engines.SubnetPool
	if !pool.IsValid() {
		pool = runtime.DefaultSubnetPool
	}
	if pool.Bits() <= networkBits {
		e.Pool = 1 << (networkBits - pool.Bits())
	}
	e.Networks = len(networks)
	used := 0
	own := map[netip.Prefix]bool{}
	for _, n := range networks {
		own[n.Subnet.Masked()] = true
		if n.Subnet.IsValid() && pool.Overlaps(n.Subnet) {
			used++
		}
	}
	if e.Pool > 0 && used*10 >= e.Pool*8 {
		list = append(list, Finding{Severity: Warning, Check: "address-pool", Engine: e.Name, Text: fmt.Sprintf("%d of %d networks of the address pool %s are used", used, e.Pool, pool), Fix: "remove bottles that are not needed: bottle ps, bottle rm"})
	}
	if !e.Local {
		return list
	}
	for route, device := range o.Host.routes() {
		// Networks of the engine's are routes, too.
		if !own[route] && pool.Overlaps(route) && route.Bits() < networkBits {
			list = append(list, Finding{Severity: Note, Check: "address-pool", Engine: e.Name, Text: fmt.Sprintf("the host's route to %s by %s takes part of the address pool %s: it is left out", route, device, pool)})
		}
	}
	return list
}

// sessions looks at the records of bottles.
func (o Options) sessions(engines []Engine) []Finding {
	if o.Sessions == "" {
		return nil
	}
	store, err := session.At(o.Sessions, o.System)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var entries []session.Entry
	if err == nil {
		entries, err = store.List()
	}
	if err != nil {
		return []Finding{{Severity: Warning, Check: "sessions", Text: err.Error(), Fix: "make it a directory of your own with mode 0700"}}
	}
	var list []Finding
	for _, entry := range entries {
		switch {
		case errors.Is(entry.Err, session.ErrNewer):
			list = append(list, Finding{Severity: Note, Check: "sessions", Text: entry.Err.Error()})
		case entry.Err != nil:
			list = append(list, Finding{Severity: Warning, Check: "sessions", Text: entry.Err.Error(), Fix: "if bottle ps shows nothing of it, remove the file"})
		case entry.Abandoned():
			r := entry.Record
			i := slices.IndexFunc(engines, func(e Engine) bool { return e.Name == r.Engine && e.Healthy })
			text := fmt.Sprintf("the process of bottle %s (%d) died without removing it", r.Bottle, r.Owner.PID)
			if i >= 0 && !engines[i].launches[r.Launch] {
				text += "; nothing of it is left on the engine"
			}
			list = append(list, Finding{Severity: Warning, Check: "sessions", Engine: r.Engine, Text: text, Fix: fmt.Sprintf("bottle rm %s --runtime %s", r.Bottle, r.Engine)})
		}
	}
	return list
}
