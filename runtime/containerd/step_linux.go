package containerd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/containerd/internal/builder"
	"github.com/bottle-run/bottle/runtime/internal/subnet"
)

// stepNetworks gives each step of a build an egress network of its own: a
// Dockerfile is untrusted, and steps that run at once are not each other's
// neighbours.
type stepNetworks struct{ e *Engine }

// Connect implements [builder.Network].
func (s stepNetworks) Connect(ctx context.Context, path string) (_ builder.Connection, err error) {
	e := s.e
	id := newID()
	name := "step-" + id
	// Held as long as the step runs, so that its network is not taken for what a
	// killed process left.
	alive, err := lock(ctx, e.nameLock(name))
	if err != nil {
		return builder.Connection{}, err
	}
	undo := func() error {
		ctx, cancel := undoing(ctx)
		defer cancel()
		err := errors.Join(e.detach(ctx, id), e.removeNetwork(ctx, name))
		alive.remove()
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, undo())
		}
	}()
	if err := e.makeStepNetwork(ctx, name); err != nil {
		return builder.Connection{}, err
	}
	endpoints, err := e.allocate(ctx, id, runtime.ContainerSpec{
		Name: name, Networks: []runtime.NetworkAttachment{{Network: name}},
	})
	if err != nil {
		return builder.Connection{}, err
	}
	if err := e.attach(ctx, path, endpoints); err != nil {
		return builder.Connection{}, err
	}
	return builder.Connection{ResolvConf: resolvConf(endpoints), Close: undo}, nil
}

// makeStepNetwork makes a network that no list shows.
func (e *Engine) makeStepNetwork(ctx context.Context, name string) (err error) {
	l, err := e.lockNetworks(ctx)
	if err != nil {
		return err
	}
	defer l.unlock()
	prefix, err := e.freeSubnet(runtime.NetworkSpec{Name: name})
	if err != nil {
		return err
	}
	n := &network{Step: true, Network: runtime.Network{
		ID: newID(), Name: name, Subnet: prefix, Gateway: subnet.Nth(prefix, 1), Created: time.Now().UTC(),
	}}
	n.Bridge = egressBridge + shortHash(n.ID)
	if err := writeJSON(e.networkFile(n.Name), n); err != nil {
		return err
	}
	if _, err := e.ensureNetwork(n); err != nil {
		return fmt.Errorf("make the step's network: %w", errors.Join(err, e.dropNetwork(n)))
	}
	return nil
}

// sweepSteps removes the networks of steps whose process was killed.
func (e *Engine) sweepSteps(ctx context.Context) error {
	networks, err := e.networks()
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range networks {
		if !n.Step {
			continue
		}
		l, err := tryLock(e.nameLock(n.Name))
		if err != nil || l == nil {
			continue
		}
		endpoints, err := e.endpoints(n.ID)
		errs = append(errs, err)
		for _, ep := range endpoints {
			errs = append(errs, e.detach(ctx, ep.Container))
		}
		errs = append(errs, e.removeNetwork(ctx, n.Name))
		l.remove()
	}
	return errors.Join(errs...)
}
