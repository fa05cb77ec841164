package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/core/sidecarimage"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/sidecar/delivery"
)

// floor makes and starts what a bottle consists of, all that can be at once at once.
type floor struct {
	rt         runtime.Runtime
	networks   []runtime.NetworkSpec
	containers []runtime.ContainerSpec
}

func (f *floor) name() string { return "floor" }

func (f *floor) close() {}

// recorded notes what a launch asks its engine for.
type recorded struct {
	runtime.Runtime
	mu    sync.Mutex
	ids   map[string]string // networks' names
	floor *floor
}

func (r *recorded) CreateNetwork(ctx context.Context, spec runtime.NetworkSpec) (runtime.Network, error) {
	n, err := r.Runtime.CreateNetwork(ctx, spec)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ids[n.ID] = n.Name
		r.floor.networks = append(r.floor.networks, spec)
	}
	return n, err
}

func (r *recorded) Run(ctx context.Context, spec runtime.ContainerSpec) (runtime.Container, error) {
	c, err := r.Runtime.Run(ctx, spec)
	if err == nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		kept := spec
		// Nothing is delivered: a sidecar waits then, and does not end.
		kept.Handshake = nil
		kept.Command = slices.DeleteFunc(slices.Clone(spec.Command), func(arg string) bool { return arg == delivery.StdinFlag })
		kept.Networks = nil
		for _, n := range spec.Networks {
			n.Network = r.ids[n.Network]
			kept.Networks = append(kept.Networks, n)
		}
		r.floor.containers = append(r.floor.containers, kept)
	}
	return c, err
}

// newFloor launches a bottle once to see of what it consists.
func newFloor(ctx context.Context, rt runtime.Runtime, w *world) (*floor, error) {
	f := &floor{rt: rt}
	m, err := manifest.Load(w.manifest)
	if err != nil {
		return nil, err
	}
	lookup := func(name string) (string, bool) {
		for _, kv := range w.secrets() {
			if k, v, _ := strings.Cut(kv, "="); k == name {
				return v, true
			}
		}
		return os.LookupEnv(name)
	}
	plan, secrets, err := core.NewPlan(m, core.Host{WorkDir: w.dir, HomeDir: w.dir, LookupEnv: lookup}, core.Wishes{Agent: "bench", Name: w.prefix})
	if err != nil {
		return nil, err
	}
	b, err := core.Launch(ctx, &recorded{Runtime: rt, ids: map[string]string{}, floor: f}, plan, core.LaunchOptions{
		Secrets:      secrets,
		SidecarImage: func(string) (*sidecarimage.Image, string, error) { return w.image, "", nil },
	})
	if err != nil {
		return nil, err
	}
	return f, b.Close(ctx)
}

// all does something for each at once.
func all[T any](list []T, do func(T) error) error {
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, one := range list {
		wg.Go(func() { errs[i] = do(one) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (f *floor) up(ctx context.Context, _ int) error {
	if err := all(f.networks, func(n runtime.NetworkSpec) error {
		_, err := f.rt.CreateNetwork(ctx, n)
		return err
	}); err != nil {
		return err
	}
	return all(f.containers, func(c runtime.ContainerSpec) error {
		_, err := f.rt.Run(ctx, c)
		return err
	})
}

func (f *floor) down(ctx context.Context, _ int) error {
	if err := all(f.containers, func(c runtime.ContainerSpec) error { return f.rt.RemoveContainer(ctx, c.Name) }); err != nil {
		return fmt.Errorf("containers: %w", err)
	}
	return all(f.networks, func(n runtime.NetworkSpec) error { return f.rt.RemoveNetwork(ctx, n.Name) })
}

func (f *floor) clear(context.Context, int) {}
