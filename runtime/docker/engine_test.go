package docker_test

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/docker"
)

// testEngine opens the engine and leaves it as it was.
func testEngine(t *testing.T) runtime.Runtime {
	t.Helper()
	rt := openEngine(t)
	t.Cleanup(func() { _ = rt.Close() })
	unchanged(t, rt)
	busybox(t, rt)
	return rt
}

func testHost() string { return os.Getenv("BOTTLE_TEST_DOCKER_HOST") }

// TestNameRaceAmongConnections stands for processes: nothing is shared but the
// daemon, which in these versions accepts two networks of a name.
func TestNameRaceAmongConnections(t *testing.T) {
	rt := testEngine(t)
	for round := range 3 {
		const racers = 8
		var wg sync.WaitGroup
		results := make([]error, racers)
		networks := make([]runtime.Network, racers)
		for i := range racers {
			wg.Go(func() {
				one, err := docker.Driver{}.Open(t.Context(), runtime.Options{Host: testHost()})
				if err != nil {
					results[i] = err
					return
				}
				defer one.Close() //nolint:errcheck // a test's
				networks[i], results[i] = one.CreateNetwork(t.Context(), runtime.NetworkSpec{Name: "dk-race", Internal: i%2 == 0})
			})
		}
		wg.Wait()
		winners := 0
		for i, err := range results {
			switch {
			case err == nil:
				winners++
				must(t, rt.RemoveNetwork(t.Context(), networks[i].ID))
			case !errdefs.IsAlreadyExists(err):
				t.Errorf("round %d: %v", round, err)
			}
		}
		if winners != 1 {
			t.Errorf("round %d: %d of %d won", round, winners, racers)
		}
	}
}

// TestASealWithoutItsNetworkIsSwept is after a kill -9 between the removals of the two.
func TestASealWithoutItsNetworkIsSwept(t *testing.T) {
	rt := testEngine(t)
	e, err := docker.OpenForTest(t.Context(), testHost())
	must(t, err)
	defer e.Close() //nolint:errcheck // a test's
	seals := func() []string {
		t.Helper()
		inv, err := rt.Inventory(t.Context())
		must(t, err)
		return inv["firewall"]
	}
	kept, err := rt.CreateNetwork(t.Context(), runtime.NetworkSpec{Name: "dk-kept", Internal: true})
	must(t, err)
	defer func() { must(t, rt.RemoveNetwork(t.Context(), kept.ID)) }()
	before := seals()
	gone, err := rt.CreateNetwork(t.Context(), runtime.NetworkSpec{Name: "dk-gone", Internal: true})
	must(t, err)
	_, err = e.API().NetworkRemove(t.Context(), gone.ID, client.NetworkRemoveOptions{})
	must(t, err)
	if left := seals(); len(left) != len(before)+1 {
		t.Fatalf("without its network the seal should still be there: %q, and before it %q", left, before)
	}
	must(t, rt.Sweep(t.Context()))
	if left := seals(); !slices.Equal(left, before) {
		t.Errorf("seals are %q, want %q", left, before)
	}
}

// TestTheCommandMayBeAFileOfAReadOnlyContainer runs what is in no image.
func TestTheCommandMayBeAFileOfAReadOnlyContainer(t *testing.T) {
	rt := testEngine(t)
	spec := runtime.ContainerSpec{
		Name: "dk-readonly-command", Image: testImage, ReadOnly: true, Entrypoint: []string{"/.bottle/program"},
		Files: []runtime.File{{Path: "/.bottle/program", Content: []byte("#!/bin/busybox sh\nexec busybox sleep 60\n"), Mode: 0o755}},
	}
	c := run(t, rt, spec)
	if c.State != runtime.StateRunning {
		t.Errorf("it is %s", c.State)
	}
	must(t, rt.RemoveContainer(t.Context(), c.ID))
	spec.Files[0].Mode = 0o644
	if _, err := rt.Run(t.Context(), spec); !errdefs.IsPermissionDenied(err) {
		t.Errorf("a file that may not be executed: %v", err)
	}
}

func TestReadOnlyContainerTakesItsVolumeAlong(t *testing.T) {
	rt := testEngine(t)
	for _, autoRemove := range []bool{false, true} {
		c := run(t, rt, runtime.ContainerSpec{
			Name: "dk-readonly", ReadOnly: true, AutoRemove: autoRemove,
			Files: []runtime.File{
				{Path: "/top", Content: []byte("one"), Mode: 0o640, UID: 12, GID: 34},
				{Path: "/etc/deep/er/file", Content: []byte("two"), Mode: 0o755},
			},
		})
		got, _ := sh(t, rt, c.ID, "busybox stat -c '%a %u %g' /top /etc/deep/er/file /etc/deep; busybox cat /etc/deep/er/file")
		if want := "640 12 34\n755 0 0\n755 0 0\ntwo"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		for _, file := range []string{"/new", "/etc/deep/er/file", "/etc/deep/er/new", "/.bottle-files/new"} {
			if out, status := sh(t, rt, c.ID, "echo x > "+file); status == 0 {
				t.Errorf("%s can be written to: %s", file, out)
			}
		}
		must(t, rt.Stop(t.Context(), c.ID, 5*time.Second))
		if autoRemove {
			must(t, rt.RemoveContainer(t.Context(), c.ID)) // returns when it has gone
		}
		must(t, rt.RemoveContainer(t.Context(), c.ID))
	}
}

func TestCancelledExecInAReadOnlyContainer(t *testing.T) {
	rt := testEngine(t)
	for _, readOnly := range []bool{false, true} {
		c := run(t, rt, runtime.ContainerSpec{Name: "dk-cancel", ReadOnly: readOnly, User: "1234:1234"})
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		_, err := rt.Exec(ctx, c.ID, runtime.ExecSpec{Command: []string{"sh", "-c", "(busybox sleep 1001 &); busybox setsid busybox sleep 1002 & busybox sleep 1003"}})
		cancel()
		if err == nil || ctx.Err() == nil || !strings.Contains(err.Error(), context.DeadlineExceeded.Error()) || strings.Contains(err.Error(), "killed") {
			t.Errorf("read-only %v: %v", readOnly, err)
		}
		if out, _ := sh(t, rt, c.ID, "busybox ps"); strings.Contains(out, "sleep 100") && strings.Count(out, "sleep 100") > strings.Count(out, "sleep 1000") {
			t.Errorf("read-only %v: processes are left:\n%s", readOnly, out)
		}
		must(t, rt.RemoveContainer(t.Context(), c.ID))
	}
}

// TestExecCancelledAtOnce cancels at many moments of the start.
func TestExecCancelledAtOnce(t *testing.T) {
	rt := testEngine(t)
	c := run(t, rt, runtime.ContainerSpec{Name: "dk-atonce"})
	for after := time.Millisecond; after < 120*time.Millisecond; after = after*3/2 + time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		_, err := rt.Exec(ctx, c.ID, runtime.ExecSpec{Command: []string{"busybox", "sleep", "2001"}})
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "killed") {
			t.Errorf("after %v: %v", after, err)
		}
	}
	if out, _ := sh(t, rt, c.ID, "busybox ps"); strings.Contains(out, "sleep 2001") {
		t.Errorf("processes are left:\n%s", out)
	}
}

// TestControlPReachesTheTerminalAtOnce: the daemon would hold it back, as the
// beginning of its detach sequence.
func TestControlPReachesTheTerminalAtOnce(t *testing.T) {
	rt := testEngine(t)
	c := run(t, rt, runtime.ContainerSpec{Name: "dk-ctrlp"})
	in, out := io.Pipe()
	defer out.Close() //nolint:errcheck // a test's
	ready := &signal{text: "ready", seen: make(chan struct{})}
	go func() {
		<-ready.seen
		_, _ = out.Write([]byte{0x10})
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	status, err := rt.Exec(ctx, c.ID, runtime.ExecSpec{
		Command: []string{"sh", "-c", "busybox stty raw; echo ready; test \"$(busybox dd bs=1 count=1 2>/dev/null | busybox od -An -tx1)\" = ' 10'"},
		TTY:     true, Stdin: in, Stdout: ready,
	})
	if err != nil || status.Code != 0 {
		t.Errorf("status %v, %v; output %q", status, err, ready.buf.String())
	}
}

func TestForeignObjectsAreLeftAlone(t *testing.T) {
	rt := testEngine(t)
	e, err := docker.OpenForTest(t.Context(), testHost())
	must(t, err)
	cleanup(t, func(context.Context) error { return e.Close() })
	ctx := t.Context()
	n, err := e.API().NetworkCreate(ctx, "dk-foreign", client.NetworkCreateOptions{Driver: "bridge"})
	must(t, err)
	cleanup(t, func(ctx context.Context) error {
		_, err := e.API().NetworkRemove(ctx, n.ID, client.NetworkRemoveOptions{})
		return err
	})
	c, err := e.API().ContainerCreate(ctx, client.ContainerCreateOptions{Name: "dk-foreign", Config: &container.Config{Image: testImage}, HostConfig: &container.HostConfig{NetworkMode: "none"}})
	must(t, err)
	cleanup(t, func(ctx context.Context) error {
		_, err := e.API().ContainerRemove(ctx, c.ID, client.ContainerRemoveOptions{Force: true})
		return err
	})
	_, err = e.API().ContainerStart(ctx, c.ID, client.ContainerStartOptions{})
	must(t, err)

	for what, err := range map[string]error{
		"remove network":   rt.RemoveNetwork(ctx, "dk-foreign"),
		"remove container": rt.RemoveContainer(ctx, "dk-foreign"),
		"stop":             rt.Stop(ctx, "dk-foreign", time.Second),
		"kill":             rt.Kill(ctx, "dk-foreign", "SIGKILL"),
		"exec":             second(rt.Exec(ctx, "dk-foreign", runtime.ExecSpec{Command: []string{"busybox", "true"}})),
		"copy to":          rt.CopyTo(ctx, "dk-foreign", "/", strings.NewReader(strings.Repeat("\x00", 1024))),
		"attach":           second(rt.Run(ctx, runtime.ContainerSpec{Name: "dk-own", Image: testImage, Networks: []runtime.NetworkAttachment{{Network: "dk-foreign"}}})),
	} {
		if !errdefs.IsPermissionDenied(err) {
			t.Errorf("%s: %v, want PermissionDenied", what, err)
		}
	}
	for what, err := range map[string]error{
		"inspect network":   second(rt.InspectNetwork(ctx, "dk-foreign")),
		"inspect container": second(rt.InspectContainer(ctx, "dk-foreign")),
		"beginning of ID":   second(rt.InspectContainer(ctx, c.ID[:12])),
	} {
		if !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v, want NotFound", what, err)
		}
	}
	if got, err := e.API().ContainerInspect(ctx, c.ID, client.ContainerInspectOptions{}); err != nil || !got.Container.State.Running {
		t.Errorf("the foreign container was harmed: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestCancelledRunLeavesNothing cancels at many moments, each a little later.
func TestCancelledRunLeavesNothing(t *testing.T) {
	rt := testEngine(t)
	n := network(t, rt, runtime.NetworkSpec{Name: "dk-cancelrun", Internal: true})
	finished := false
	for after := time.Millisecond; !finished; after = after*3/2 + time.Millisecond {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		c, err := rt.Run(ctx, runtime.ContainerSpec{
			Name: "dk-cancelrun", Image: testImage, ReadOnly: after.Milliseconds()%2 == 0,
			Networks: []runtime.NetworkAttachment{{Network: n.Name}},
			Files:    []runtime.File{{Path: "/x", Content: []byte("x")}},
		})
		cancel()
		if err == nil {
			finished = true
			must(t, rt.RemoveContainer(t.Context(), c.ID))
		}
		list, err := rt.ListContainers(t.Context(), runtime.Filter{})
		must(t, err)
		for _, c := range list {
			if strings.HasPrefix(c.Name, "dk-cancelrun") {
				t.Errorf("cancelled after %v: container %s was left behind", after, c.Name)
				must(t, rt.RemoveContainer(t.Context(), c.ID))
			}
		}
	}
}
