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
	Sidecars []string `json:"sidecars,omitempty"`
	// Dead are the roles of its sidecars that do not run: the agent cannot reach
	// anything through them.
	Dead []string `json:"dead,omitempty"`
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
	for _, n := range networks {
		if id := n.Labels[LabelLaunch]; id != "" && n.Labels[LabelRole] == RoleInternal {
			byLaunch[id] = Status{Name: n.Labels[LabelBottle], Agent: n.Labels[LabelAgent], State: StateBroken, Created: n.Created, Launch: id}
		}
	}
	alive := map[string]bool{} // launch and role
	for _, c := range containers {
		if c.State == runtime.StateRunning {
			alive[c.Labels[LabelLaunch]+"/"+c.Labels[LabelRole]] = true
		}
	}
	for _, c := range containers {
		id := c.Labels[LabelLaunch]
		if id == "" || c.Labels[LabelRole] != RoleAgent {
			continue
		}
		s := Status{Name: c.Labels[LabelBottle], Agent: c.Labels[LabelAgent], State: string(c.State), Created: c.Created, Launch: id}
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
		b := &Bottle{Name: s.Name, Agent: s.Agent, rt: rt, container: containerName(s.Name), launch: s.Launch, report: newReporter(observe)}
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

// leftovers joins the errors of the undos and of the sweep after them. The sweep
// sees all that the launch made: if it found everything gone or removed it, then
// what an undo failed at is done.
func leftovers(undone, swept error) error {
	if swept == nil {
		return nil
	}
	return withKind(KindLeftover, multierror.Append(undone, swept))
}

// sweep removes every container and network of a launch, by its label.
func sweep(ctx context.Context, rt runtime.Runtime, launch string, r reporter) error {
	mine := runtime.Filter{Labels: map[string]string{LabelLaunch: launch}}
	var errs *multierror.Error
	var steps []graph.Step
	err := graph.Persist(ctx, func(ctx context.Context) error {
		steps = nil
		networks, err := rt.ListNetworks(ctx, mine)
		if err != nil {
			return err
		}
		containers, err := rt.ListContainers(ctx, mine)
		if err != nil {
			return err
		}
		// Undone from the end: first the containers, newest first.
		for _, n := range networks {
			steps = append(steps, graph.Step{Name: "remove network", Object: n.Name, Run: func(ctx context.Context) error { return rt.RemoveNetwork(ctx, n.ID) }})
		}
		for _, c := range containers {
			steps = append(steps, graph.Step{Name: "remove container", Object: c.Name, Run: func(ctx context.Context) error { return rt.RemoveContainer(ctx, c.ID) }})
		}
		return nil
	})
	if err != nil {
		errs = multierror.Append(errs, fmt.Errorf("look for what is left: %w", err))
	}
	var undo graph.Undo
	for _, s := range steps {
		undo.Push(s.Name, s.Object, s.Run)
	}
	if err := undo.Run(ctx, r); err != nil {
		errs = multierror.Append(errs, err)
	}
	return errs.ErrorOrNil()
}
