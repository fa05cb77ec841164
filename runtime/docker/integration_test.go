package docker_test

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/runtime"
)

const testImage = "localhost/dk-busybox:test"

// busybox builds an image with nothing but a static busybox.
func busybox(t *testing.T, rt runtime.Runtime) {
	t.Helper()
	program, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("hack/engines installs busybox-static: ", err)
	}
	dir := contextDir(t, map[string]string{
		"Dockerfile": "FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nENV PATH=/bin\nCMD [\"busybox\", \"sleep\", \"1000\"]\n",
	})
	content, err := os.ReadFile(program)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "busybox"), content, 0o755)) //nolint:gosec // a program
	_, err = rt.BuildImage(t.Context(), runtime.BuildSpec{ContextDir: dir, Tags: []string{testImage}})
	must(t, err)
	cleanup(t, func(ctx context.Context) error { return rt.RemoveImage(ctx, testImage) })
}

// contextDir writes a build context.
func contextDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755)) //nolint:gosec // a test's
		must(t, os.WriteFile(path, []byte(content), 0o644))
	}
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// cleanup runs f when the test has ended, with a context that has not.
func cleanup(t *testing.T, f func(context.Context) error) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		if err := f(ctx); err != nil {
			t.Errorf("clean up: %v", err)
		}
	})
}

func run(t *testing.T, rt runtime.Runtime, spec runtime.ContainerSpec) runtime.Container {
	t.Helper()
	spec.Image = testImage
	c, err := rt.Run(t.Context(), spec)
	must(t, err)
	cleanup(t, func(ctx context.Context) error { return rt.RemoveContainer(ctx, c.ID) })
	return c
}

func network(t *testing.T, rt runtime.Runtime, spec runtime.NetworkSpec) runtime.Network {
	t.Helper()
	n, err := rt.CreateNetwork(t.Context(), spec)
	must(t, err)
	cleanup(t, func(ctx context.Context) error { return rt.RemoveNetwork(ctx, n.ID) })
	return n
}

// sh runs a script in a container and returns what it printed, and its status.
func sh(t *testing.T, rt runtime.Runtime, container, script string) (string, int) {
	t.Helper()
	var out bytes.Buffer
	status, err := rt.Exec(t.Context(), container, runtime.ExecSpec{Command: []string{"sh", "-c", script}, Stdout: &out, Stderr: &out})
	must(t, err)
	return strings.TrimSpace(out.String()), status.Code
}

// unchanged fails the test if the engine holds more than before when it has ended.
func unchanged(t *testing.T, rt runtime.Runtime) {
	t.Helper()
	before, err := rt.Inventory(t.Context())
	must(t, err)
	cleanup(t, func(ctx context.Context) error {
		after, err := rt.Inventory(ctx)
		if err != nil {
			return err
		}
		for _, kind := range slices.Sorted(maps.Keys(after)) {
			for _, object := range after[kind] {
				if !slices.Contains(before[kind], object) {
					t.Errorf("%s: %s was left behind", kind, object)
				}
			}
		}
		return nil
	})
}
