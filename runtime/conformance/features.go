package conformance

import (
	"bytes"
	"context"

	"github.com/bottle-run/bottle/runtime"
)

// askFor asks the engine for a feature: what it returns must be NotImplemented
// where the feature is declared missing.
var askFor = map[runtime.Feature]func(context.Context, *Env) error{
	runtime.FeatureMemoryLimit: func(ctx context.Context, e *Env) error {
		_, err := e.BoxOf(ctx, runtime.ContainerSpec{Limits: runtime.Limits{Memory: 64 << 20}})
		return err
	},
	runtime.FeaturePIDsLimit: func(ctx context.Context, e *Env) error {
		_, err := e.BoxOf(ctx, runtime.ContainerSpec{Limits: runtime.Limits{PIDs: 64}})
		return err
	},
	runtime.FeatureCPULimit: func(ctx context.Context, e *Env) error {
		_, err := e.BoxOf(ctx, runtime.ContainerSpec{Limits: runtime.Limits{CPUs: 0.5}})
		return err
	},
	runtime.FeatureHeredoc: func(ctx context.Context, e *Env) error {
		_, err := e.build(ctx, map[string]string{"Dockerfile": "FROM " + e.Image + "\nCOPY <<END /greeting\nhello\nEND\n"}, runtime.BuildSpec{})
		return err
	},
	runtime.FeatureCopyTmpfs: func(ctx context.Context, e *Env) error {
		b, err := e.BoxOf(ctx, runtime.ContainerSpec{Tmpfs: []runtime.Tmpfs{{Target: "/scratch"}}})
		if err != nil {
			return failed("run a container with a tmpfs: %v", err)
		}
		if _, err := b.Do(ctx, "write", "/scratch/file", "x"); err != nil {
			return failed("write to the tmpfs: %v", err)
		}
		if err := e.Runtime.CopyTo(ctx, b.ID, "/scratch", bytes.NewReader(archive(regular("copied", 0o644, "x")))); err == nil {
			// Not refused: it counts as working only if the file is there.
			if _, err := b.Do(ctx, "read", "/scratch/copied"); err != nil {
				return failed("copy to a tmpfs: expected NotImplemented, but it succeeded and the file is not there: %v", err)
			}
			return nil
		} else if _, from := e.Runtime.CopyFrom(ctx, b.ID, "/scratch/file"); from == nil {
			return nil
		} else if !sameKind(err, from) {
			return failed("copy to a tmpfs is refused with %v, copy from it with %v", err, from)
		} else {
			return err
		}
	},
	runtime.FeatureStats: func(ctx context.Context, e *Env) error {
		b, err := e.BoxOf(ctx, runtime.ContainerSpec{})
		if err != nil {
			return failed("run a container: %v", err)
		}
		_, err = e.Runtime.Stats(ctx, b.ID)
		return err
	},
	runtime.FeatureGVisor: func(ctx context.Context, e *Env) error {
		_, err := e.BoxOf(ctx, runtime.ContainerSpec{OCIRuntime: "runsc"})
		return err
	},
}
