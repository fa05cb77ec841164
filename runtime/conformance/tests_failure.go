package conformance

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// failureTests prove that Run is all or nothing. What a failed run leaves, the
// comparison after the test finds; each test looks for itself too.
var failureTests = []Test{
	failing("run/nothing-left-after-a-missing-image", "a missing image (NotFound)", errdefs.IsNotFound, "NotFound",
		func(e *Env, s *runtime.ContainerSpec) { s.Image = e.Ref("missing") }),
	failing("run/nothing-left-after-a-missing-network", "a missing network (NotFound), the second of two", errdefs.IsNotFound, "NotFound",
		func(e *Env, s *runtime.ContainerSpec) {
			s.Networks = append(s.Networks, runtime.NetworkAttachment{Network: e.Name("missing")})
		}),
	failing("run/nothing-left-after-a-missing-command", "a command that the image does not hold (NotFound)", errdefs.IsNotFound, "NotFound",
		func(_ *Env, s *runtime.ContainerSpec) { s.Entrypoint = []string{"/no/such/program"} }),
	failing("run/nothing-left-after-a-command-without-permission", "a command that may not be executed (PermissionDenied)", errdefs.IsPermissionDenied, "PermissionDenied",
		func(_ *Env, s *runtime.ContainerSpec) { s.Entrypoint = []string{"/etc/passwd"} }),
	failing("run/nothing-left-after-a-bad-file", "a file where the image has a directory", func(error) bool { return true }, "an error",
		func(_ *Env, s *runtime.ContainerSpec) {
			s.Files = []runtime.File{{Path: "/data/good", Content: []byte("x")}, {Path: "/home", Content: []byte("x")}}
		}),
	failing("run/nothing-left-after-a-file-below-a-file", "a file below a file of the image", func(error) bool { return true }, "an error",
		func(_ *Env, s *runtime.ContainerSpec) {
			s.Files = []runtime.File{{Path: "/etc/passwd/below", Content: []byte("x")}}
		}),
	failing("run/nothing-left-after-an-unknown-oci-runtime", "an unknown OCI runtime (InvalidArgument)", errdefs.IsInvalidArgument, "InvalidArgument",
		func(_ *Env, s *runtime.ContainerSpec) { s.OCIRuntime = "no-such-runtime" }),
	failing("run/nothing-left-after-an-unknown-capability", "an unknown capability (InvalidArgument)", errdefs.IsInvalidArgument, "InvalidArgument",
		func(_ *Env, s *runtime.ContainerSpec) { s.Capabilities = []string{"NO_SUCH_THING"} }),
	failing("run/nothing-left-after-a-file-in-a-tmpfs", "a file below a tmpfs (InvalidArgument)", errdefs.IsInvalidArgument, "InvalidArgument",
		func(_ *Env, s *runtime.ContainerSpec) {
			s.Tmpfs = []runtime.Tmpfs{{Target: "/scratch"}}
			s.Files = []runtime.File{{Path: "/scratch/file", Content: []byte("x")}}
		}),
	{
		Name: "run/nothing-left-after-a-taken-name",
		Doc:  "A run that fails for a taken name leaves nothing but the container that has it.",
		Run:  nothingLeftTaken,
	},
	{
		Name: "run/nothing-left-when-cancelled", Timeout: 2 * DefaultTimeout,
		Doc: "A run whose context ends at any moment leaves nothing, and says that its context ended.",
		Run: nothingLeftCancelled,
	},
	{
		Name: "run/nothing-left-of-a-network-when-cancelled",
		Doc:  "A network whose creation is cancelled at any moment is either there and reported, or not there.",
		Run:  networkCancelled,
	},
}

func failing(name, doc string, want func(error) bool, wanted string, spoil func(*Env, *runtime.ContainerSpec)) Test {
	return Test{
		Name: name, Doc: "A run that fails for " + doc + " leaves nothing, and the same name runs at once when it is mended.",
		Run: func(ctx context.Context, e *Env) error {
			n, err := e.Network(ctx, true)
			if err != nil {
				return err
			}
			good := runtime.ContainerSpec{
				Name: e.Name("failing"), Networks: Attach(n),
				Files: []runtime.File{{Path: "/data/file", Content: []byte("x")}},
			}
			bad := good
			spoil(e, &bad)
			_, err = e.BoxOf(ctx, bad)
			if err := kind(err, want, wanted, "run"); err != nil {
				return err
			}
			if err := e.noContainer(ctx, good.Name); err != nil {
				return err
			}
			_, err = e.BoxOf(ctx, good)
			if err != nil {
				return failed("the same name after a failed run: %w", err)
			}
			return nil
		},
	}
}

// noContainer fails if there is a container of a name, or any of this test's.
func (e *Env) noContainer(ctx context.Context, name string) error {
	_, err := e.Runtime.InspectContainer(ctx, name)
	if err := kind(err, errdefs.IsNotFound, "NotFound", "inspect a container whose run failed"); err != nil {
		return err
	}
	listed, err := e.Runtime.ListContainers(ctx, runtime.Filter{Labels: e.Labels()})
	if err != nil {
		return err
	}
	for _, c := range listed {
		if c.Name == name {
			return failed("expected nothing of a failed run, got container %+v", c)
		}
	}
	return nil
}

func nothingLeftTaken(ctx context.Context, e *Env) error {
	n, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	_, err = e.Runtime.Run(ctx, runtime.ContainerSpec{
		Name: b.Name, Image: e.Image, Labels: e.Labels(), Networks: Attach(n), Files: []runtime.File{{Path: "/data/file", Content: []byte("x")}},
	})
	if err := kind(err, errdefs.IsAlreadyExists, "AlreadyExists", "run a container of a taken name"); err != nil {
		return err
	}
	if _, err := b.Do(ctx, "echo", "alive"); err != nil {
		return failed("the container that has the name: %w", err)
	}
	// Nothing is attached to the network: it can be removed.
	return e.Runtime.RemoveNetwork(ctx, n.ID)
}

func nothingLeftCancelled(ctx context.Context, e *Env) error {
	n, err := e.Network(ctx, true)
	if err != nil {
		return err
	}
	spec := runtime.ContainerSpec{Networks: Attach(n), Files: []runtime.File{{Path: "/data/file", Content: make([]byte, 1<<20)}}}
	e.Fill(&spec)
	began := time.Now()
	b, err := e.Runtime.Run(ctx, spec)
	if err != nil {
		return err
	}
	whole := time.Since(began)
	if err := e.Runtime.RemoveContainer(ctx, b.ID); err != nil {
		return err
	}
	const moments = 12
	for i := range moments {
		spec.Name = e.Name("cancelled")
		after := whole * time.Duration(i) / (moments - 1)
		runCtx, cancel := context.WithTimeout(ctx, after)
		c, err := e.Runtime.Run(runCtx, spec)
		cancel()
		if err == nil {
			// It was done before: then it is there.
			if err := e.Runtime.RemoveContainer(ctx, c.ID); err != nil {
				return err
			}
			continue
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			return failed("run cancelled after %s: expected an error that is DeadlineExceeded, got %w", after, err)
		}
		if err := e.noContainer(ctx, spec.Name); err != nil {
			return failed("run cancelled after %s: %w", after, err)
		}
	}
	// Nothing is attached to the network: it can be removed.
	return e.Runtime.RemoveNetwork(ctx, n.ID)
}

func networkCancelled(ctx context.Context, e *Env) error {
	began := time.Now()
	n, err := e.Network(ctx, false)
	if err != nil {
		return err
	}
	whole := time.Since(began)
	if err := e.Runtime.RemoveNetwork(ctx, n.ID); err != nil {
		return err
	}
	const moments = 8
	for i := range moments {
		spec := runtime.NetworkSpec{Name: e.Name("cancelled"), Labels: e.Labels()}
		makeCtx, cancel := context.WithTimeout(ctx, whole*time.Duration(i)/moments)
		n, err := e.Runtime.CreateNetwork(makeCtx, spec)
		cancel()
		if err == nil {
			if err := e.Runtime.RemoveNetwork(ctx, n.ID); err != nil {
				return err
			}
			continue
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			return failed("expected an error that is DeadlineExceeded, got %w", err)
		}
		_, err = e.Runtime.InspectNetwork(ctx, spec.Name)
		if err := kind(err, errdefs.IsNotFound, "NotFound", fmt.Sprintf("inspect a network whose creation was cancelled (%d/%d)", i, moments)); err != nil {
			return err
		}
	}
	return nil
}
