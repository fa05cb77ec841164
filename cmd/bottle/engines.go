package main

import (
	"context"
	"slices"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/containerd"
	"github.com/bottle-run/bottle/runtime/docker"
	"github.com/bottle-run/bottle/runtime/podman"
)

// enginePatience bounds the wait for an engine's first answer; zero is the drivers' own
// bound. Tests have less time.
var enginePatience time.Duration

// engines are those that this program knows, in the order of preference among
// engines that are alike.
func engines() *runtime.Registry {
	return runtime.NewRegistry(podman.Driver{}, docker.Driver{}, containerd.Driver{})
}

const auto = "auto"

// engine connects to the engine, with signals that end what is done with it, until release
// is called. What killed bottles left there is removed first.
func (f *factory) engine() (sig *signals, rt runtime.Runtime, release func(), err error) {
	if sig, rt, release, err = f.engineAsItIs(); err == nil {
		f.tidy(sig.work, rt)
	}
	return sig, rt, release, err
}

// engineAsItIs connects to the engine and removes nothing.
func (f *factory) engineAsItIs() (sig *signals, rt runtime.Runtime, release func(), err error) {
	sig = f.signals()
	rt, err = f.connect(sig.work)
	if err != nil {
		err = interruptedOr(sig.work, err)
		sig.stop()
		return nil, nil, nil, err
	}
	return sig, rt, func() {
		_ = rt.Close() // nothing is written through it any more
		sig.stop()
	}, nil
}

// withBottle finds a bottle and does something with it.
func (f *factory) withBottle(name string, do func(*signals, *core.Bottle) error) error {
	return f.withObserved(name, nil, do)
}

// withObserved is withBottle for what takes time, of which observe is told.
func (f *factory) withObserved(name string, observe core.Observer, do func(*signals, *core.Bottle) error) error {
	sig, rt, release, err := f.engine()
	if err != nil {
		return err
	}
	defer release()
	b, err := core.OpenMatching(sig.work, rt, name, observe)
	if err == nil {
		err = do(sig, b)
	}
	if err != nil {
		return interruptedOr(sig.work, err)
	}
	return nil
}

// connect opens the engine that was asked for, or the best one that answers.
func (f *factory) connect(ctx context.Context) (runtime.Runtime, error) {
	logger, err := f.logger()
	if err != nil {
		return nil, err
	}
	opts := runtime.Options{Host: f.globals.Host, Logger: logger, Patience: enginePatience}
	registry := f.registry()
	if err := oneOf("runtime", f.globals.Runtime, slices.Concat(registry.Names(), []string{auto})); err != nil {
		return nil, err
	}
	if f.globals.Runtime != auto {
		return registry.Open(ctx, f.globals.Runtime, opts)
	}
	rt, why, err := registry.Detect(ctx, opts)
	if err == nil {
		logger.Info("engine", "taken", why)
	}
	return rt, err
}
