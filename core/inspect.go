package core

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
)

// Inspection is what a bottle is. It holds no secret.
type Inspection struct {
	Name    string    `json:"name"`
	Agent   string    `json:"agent"`
	State   string    `json:"state"`
	Created time.Time `json:"created"`
	Launch  string    `json:"launch"`
	Engine  EngineRef `json:"engine"`
	// Command is the agent's, User who runs it as it was specified.
	Command []string `json:"command,omitempty"`
	User    string   `json:"user,omitempty"`
	// PolicyRevision changes whenever what may leave the bottle does; empty without sidecars.
	PolicyRevision string `json:"policy_revision,omitempty"`
	// Containers are the agent's and the sidecars', oldest first.
	Containers []ContainerView   `json:"containers"`
	Networks   []NetworkView     `json:"networks"`
	Labels     map[string]string `json:"labels"`
	// Notes say what could not be told.
	Notes []string `json:"notes,omitempty"`
}

// EngineRef is where a bottle runs.
type EngineRef struct {
	Name     string `json:"name"`
	Version  string `json:"version"`
	Endpoint string `json:"endpoint"`
	Rootless bool   `json:"rootless"`
}

// ContainerView is one of a bottle's containers.
type ContainerView struct {
	Role  string `json:"role"`
	Name  string `json:"name"`
	ID    string `json:"id"`
	Image string `json:"image"`
	State string `json:"state"`
	// Status is the exit status of one that has ended.
	Status *int `json:"status,omitempty"`
	// Health is of a sidecar: "ready", "not ready", or "unknown" of one that cannot be asked.
	Health string `json:"health,omitempty"`
	// Reason is why it is not ready.
	Reason    string            `json:"reason,omitempty"`
	Created   time.Time         `json:"created"`
	Addresses map[string]string `json:"addresses"`
}

// NetworkView is one of a bottle's networks.
type NetworkView struct {
	Role     string       `json:"role"`
	Name     string       `json:"name"`
	ID       string       `json:"id"`
	Subnet   netip.Prefix `json:"subnet"`
	Internal bool         `json:"internal"`
}

// The health of a sidecar.
const (
	HealthReady    = "ready"
	HealthNotReady = "not ready"
	HealthUnknown  = "unknown"
)

// Inspect describes the bottle, broken or whole.
func (b *Bottle) Inspect(ctx context.Context) (Inspection, error) {
	in := Inspection{Name: b.Name, Agent: b.Agent, State: StateBroken, Command: b.Command, User: b.user, Containers: []ContainerView{}, Networks: []NetworkView{}, Labels: map[string]string{}}
	b.mu.Lock()
	in.Launch = b.launch
	b.mu.Unlock()
	info, err := b.rt.Info(ctx)
	if err != nil {
		return in, err
	}
	in.Engine = EngineRef{Name: info.Engine, Version: info.Version, Endpoint: info.Endpoint, Rootless: info.Rootless}
	mine := runtime.Filter{Labels: map[string]string{LabelLaunch: in.Launch}}
	networks, err := b.rt.ListNetworks(ctx, mine)
	if err != nil {
		return in, err
	}
	names := map[string]string{} // of networks
	for _, n := range networks {
		names[n.ID], names[n.Name] = n.Name, n.Name
		in.Networks = append(in.Networks, NetworkView{Role: n.Labels[LabelRole], Name: n.Name, ID: n.ID, Subnet: n.Subnet, Internal: n.Internal})
		if in.Created.IsZero() || n.Created.Before(in.Created) {
			in.Created = n.Created
		}
	}
	// They are made at once: the sealed one comes first, whichever was there first.
	slices.SortStableFunc(in.Networks, func(a, b NetworkView) int {
		switch {
		case a.Internal == b.Internal:
			return 0
		case a.Internal:
			return -1
		}
		return 1
	})
	containers, err := b.rt.ListContainers(ctx, mine)
	if err == nil {
		containers, err = inspectAll(ctx, b.rt, containers)
	}
	if err != nil {
		return in, err
	}
	for _, c := range containers {
		view := containerView(c, names)
		if view.Role == RoleAgent {
			in.State, in.Created = view.State, c.Created
			in.Labels = maps.Clone(c.Labels)
			delete(in.Labels, LabelSeal)
		}
		in.Containers = append(in.Containers, view)
	}
	b.askHealth(ctx, in.Containers)
	in.PolicyRevision, err = b.policyRevision(ctx, in.Containers)
	if err != nil {
		in.Notes = append(in.Notes, "what is in force cannot be told: "+escaped(err.Error()))
	}
	return in, context.Cause(ctx)
}

// inspectAll asks for the whole description of each container of a list. Those that are gone
// meanwhile are left out.
func inspectAll(ctx context.Context, rt runtime.Runtime, list []runtime.Container) ([]runtime.Container, error) {
	whole, errs := make([]runtime.Container, len(list)), make([]error, len(list))
	var calls sync.WaitGroup
	for i, c := range list {
		calls.Go(func() { whole[i], errs[i] = rt.InspectContainer(ctx, c.ID) })
	}
	calls.Wait()
	var there []runtime.Container
	for i, err := range errs {
		switch {
		case err == nil:
			there = append(there, whole[i])
		case !errdefs.IsNotFound(err):
			return nil, err
		}
	}
	return there, nil
}

func containerView(c runtime.Container, networks map[string]string) ContainerView {
	view := ContainerView{
		Role: c.Labels[LabelRole], Name: c.Name, ID: c.ID, Image: c.Image, State: string(c.State), Created: c.Created,
		Addresses: map[string]string{},
	}
	if c.State == runtime.StateExited {
		view.Status = &c.Exit.Code
	}
	for _, e := range c.Networks {
		name := orDefault(networks[e.Network], e.Network)
		view.Addresses[name] = ""
		if e.Address.IsValid() {
			view.Addresses[name] = e.Address.String()
		}
	}
	return view
}

// askHealth asks all sidecars at once how they are.
func (b *Bottle) askHealth(ctx context.Context, list []ContainerView) {
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	var wg sync.WaitGroup
	for i := range list {
		v := &list[i]
		if !isSidecar(v.Role) {
			continue
		}
		if v.State != string(runtime.StateRunning) {
			v.Health, v.Reason = HealthNotReady, "its container does not run"
			continue
		}
		wg.Go(func() {
			err := b.ask(ctx, Sidecar{Role: v.Role, Container: v.ID}, []string{"healthcheck"}, nil, nil)
			var said *AskError
			switch {
			case err == nil:
				v.Health = HealthReady
			case errdefs.IsNotFound(err):
				// An image of somebody else's has no program of ours.
				v.Health, v.Reason = HealthUnknown, "its image has no program that could be asked"
			case errors.As(err, &said):
				v.Health, v.Reason = HealthNotReady, strings.TrimPrefix(said.Said, "bottle-sidecar: ")
			default:
				v.Health, v.Reason = HealthUnknown, escaped(err.Error())
			}
		})
	}
	wg.Wait()
}

// policyRevision identifies what is in force.
func (b *Bottle) policyRevision(ctx context.Context, list []ContainerView) (string, error) {
	if !slices.ContainsFunc(list, func(v ContainerView) bool { return isSidecar(v.Role) && v.Health == HealthReady }) {
		return "", nil
	}
	p, err := b.Policy(ctx)
	if err != nil {
		return "", err
	}
	if p.Supervise != nil {
		return change.Revision(p.Supervise.Policy), nil
	}
	return change.Revision(p.allowed()), nil
}
