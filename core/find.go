package core

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/hashicorp/go-multierror"

	"github.com/bottle-run/bottle/core/internal/graph"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/core/session"
	"github.com/bottle-run/bottle/runtime"
)

// Status describes a bottle on an engine.
type Status struct {
	Name    string    `json:"name"`
	Agent   string    `json:"agent"`
	State   string    `json:"state"`
	Created time.Time `json:"created"`
	// Launch identifies the launch that made it.
	Launch string `json:"launch"`
	// Sidecars are the roles of those that it was launched with.
	Sidecars  []string `json:"sidecars,omitempty"`
	container string   // the agent's; empty if it is gone
	// Dead are the roles of its sidecars that do not run: the agent cannot reach
	// anything through them.
	Dead []string `json:"dead,omitempty"`
	// Detached reports that it was launched to outlive the process that launched it.
	Detached bool `json:"detached,omitempty"`
	// Owner is that process, if its labels tell.
	Owner *session.Process `json:"owner,omitempty"`
}

// StateBroken is the state of a bottle of which only a part is there.
const StateBroken = "broken"

// List describes the bottles on an engine, oldest first. Objects of a bottle
// whose agent container is gone count as a broken one.
func List(ctx context.Context, rt runtime.Runtime) ([]Status, error) {
	containers, err := rt.ListContainers(ctx, runtime.Filter{})
	if err != nil {
		return nil, err
	}
	networks, err := rt.ListNetworks(ctx, runtime.Filter{})
	if err != nil {
		return nil, err
	}
	byLaunch := map[string]Status{}
	// Any object will do: what a launch that was killed has left may be any.
	broken := func(labels map[string]string, created time.Time) {
		id := labels[LabelLaunch]
		if _, known := byLaunch[id]; id != "" && !known {
			byLaunch[id] = statusOf(labels, StateBroken, created)
		}
	}
	for _, n := range networks {
		broken(n.Labels, n.Created)
	}
	for _, c := range containers {
		broken(c.Labels, c.Created)
	}
	current := currentAgents(containers)
	alive := map[string]bool{} // launch and role
	for _, c := range containers {
		if c.State == runtime.StateRunning {
			alive[c.Labels[LabelLaunch]+"/"+c.Labels[LabelRole]] = true
		}
	}
	for _, c := range containers {
		id := c.Labels[LabelLaunch]
		if id == "" || c.Labels[LabelRole] != RoleAgent || c.ID != current[id].ID {
			continue
		}
		s := statusOf(c.Labels, string(c.State), c.Created)
		s.container = c.ID
		s.Sidecars = strings.FieldsFunc(c.Labels[LabelSidecars], func(r rune) bool { return r == ',' })
		for _, role := range s.Sidecars {
			if !alive[id+"/"+role] {
				s.Dead = append(s.Dead, role)
			}
		}
		byLaunch[id] = s
	}
	list := make([]Status, 0, len(byLaunch))
	for _, s := range byLaunch {
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Status) int {
		return orElse(a.Created.Compare(b.Created), strings.Compare(a.Name, b.Name))
	})
	return list, nil
}

// statusOf is what the labels of an object say about its bottle.
func statusOf(labels map[string]string, state string, created time.Time) Status {
	s := Status{
		Name: labels[LabelBottle], Agent: labels[LabelAgent], State: state, Created: created, Launch: labels[LabelLaunch],
		Detached: labels[LabelDetached] == "true",
	}
	if owner, err := session.ParseProcess(labels[LabelOwner]); err == nil {
		s.Owner = &owner
	}
	return s
}

func orElse(a, b int) int {
	if a != 0 {
		return a
	}
	return b
}

// Open finds a bottle by its name, whichever process launched it. One that is not
// there is of KindNotFound. A broken one can be closed, and nothing else.
func Open(ctx context.Context, rt runtime.Runtime, name string, observe Observer) (*Bottle, error) {
	all, err := List(ctx, rt)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range all {
		names = append(names, s.Name)
		if s.Name != name {
			continue
		}
		b := &Bottle{Name: s.Name, Agent: s.Agent, rt: rt, container: orDefault(s.container, containerName(s.Name)), launch: s.Launch, report: newReporter(observe)}
		if s.State != StateBroken {
			if err := b.inspect(ctx); err != nil {
				return nil, err
			}
		}
		return b, nil
	}
	if len(names) == 0 {
		return nil, Errorf(KindNotFound, "there is no bottle %q: none is running", name)
	}
	return nil, noBottle(name, names)
}

// maxNamed is how many bottles are named to who asks for another.
const maxNamed = 12

// noBottle is the error for a bottle that is not there, where there are others.
func noBottle(name string, names []string) error {
	there := strings.Join(names[:min(len(names), maxNamed)], ", ")
	if more := len(names) - maxNamed; more > 0 {
		there += fmt.Sprintf(" and %d more", more)
	}
	if near := manifest.Nearest(name, names); near != "" {
		return Errorf(KindNotFound, "there is no bottle %q: did you mean %q? There is %s", name, near, there)
	}
	return Errorf(KindNotFound, "there is no bottle %q: there is %s", name, there)
}

func (b *Bottle) inspect(ctx context.Context) error {
	c, err := b.rt.InspectContainer(ctx, b.container)
	if errdefs.IsNotFound(err) {
		return nil // it ended just now: what is left can be removed
	}
	if err != nil {
		return err
	}
	b.container, b.user = c.ID, c.Labels[LabelUser]
	b.copied = copiedFrom(c.Labels)
	if text := c.Labels[LabelCommand]; text != "" {
		if err := json.Unmarshal([]byte(text), &b.Command); err != nil {
			return fmt.Errorf("bottle %s: its label %s is not readable: %w", b.Name, LabelCommand, err)
		}
	}
	return nil
}

// join joins the error of clearing up with that of the record after it.
func join(err, record error) error {
	switch {
	case record == nil:
		return err
	case err == nil:
		return withKind(KindLeftover, record)
	}
	return withKind(KindLeftover, multierror.Append(err, record))
}

// leftovers joins the errors of the undos and of the sweep after them. The sweep
// sees all that the launch made: if it found everything gone or removed it, then
// what an undo failed at is done.
func leftovers(undone, swept error) error {
	if swept == nil {
		return nil
	}
	return withKind(KindLeftover, multierror.Append(undone, swept))
}

// RemoveLaunch removes every container and network of a launch, by its label: of one
// whose process is gone. It returns what it removed, in words, and the errors of what it
// could not, together.
func RemoveLaunch(ctx context.Context, rt runtime.Runtime, launch string, observe Observer) (removed []string, err error) {
	err = sweep(ctx, rt, launch, newReporter(func(e Event) {
		if what, ok := strings.CutPrefix(e.Step, "remove "); ok && e.State == StateEnd {
			removed = append(removed, what+" "+e.Object)
		}
		if observe != nil {
			observe(e)
		}
	}).forTeardown())
	return removed, withKind(KindLeftover, err)
}

// sweep removes every container and network of a launch, by its label, and what the
// engine's implementation made for processes that are gone.
func sweep(ctx context.Context, rt runtime.Runtime, launch string, r reporter) error {
	mine := runtime.Filter{Labels: map[string]string{LabelLaunch: launch}}
	var errs *multierror.Error
	var undo graph.Undo
	err := graph.Persist(ctx, func(ctx context.Context) error {
		networks, err := rt.ListNetworks(ctx, mine)
		if err != nil {
			return err
		}
		containers, err := rt.ListContainers(ctx, mine)
		if err != nil {
			return err
		}
		for _, n := range networks {
			undo.PushLast("remove network", n.Name, func(ctx context.Context) error { return rt.RemoveNetwork(ctx, n.ID) })
		}
		for _, c := range containers {
			undo.Push("remove container", c.Name, func(ctx context.Context) error { return rt.RemoveContainer(ctx, c.ID) })
		}
		return nil
	})
	if err != nil {
		errs = multierror.Append(errs, fmt.Errorf("look for what is left: %w", err))
	}
	if err := undo.Run(ctx, r); err != nil {
		errs = multierror.Append(errs, err)
	}
	if err := graph.Persist(ctx, rt.Sweep); err != nil {
		errs = multierror.Append(errs, err)
	}
	return errs.ErrorOrNil()
}
