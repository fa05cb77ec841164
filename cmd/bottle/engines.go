package main

import (
	"context"
	"slices"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/containerd"
	"github.com/bottle-run/bottle/runtime/docker"
	"github.com/bottle-run/bottle/runtime/podman"
)

// engines are those that this program knows, in the order of preference among
// engines that are alike.
func engines() *runtime.Registry {
	return runtime.NewRegistry(podman.Driver{}, docker.Driver{}, containerd.Driver{})
}

const auto = "auto"

// connect opens the engine that was asked for, or the best one that answers.
func (f *factory) connect(ctx context.Context) (runtime.Runtime, error) {
	logger, err := f.logger()
	if err != nil {
		return nil, err
	}
	opts := runtime.Options{Host: f.globals.Host, Logger: logger}
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
