package docker_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// builders runs a test with each of the daemon's builders.
func builders(t *testing.T, test func(t *testing.T, rt runtime.Runtime)) {
	for _, classic := range []bool{false, true} {
		name := "BuildKit"
		if classic {
			name = "classic"
		}
		t.Run(name, func(t *testing.T) {
			if classic {
				t.Setenv("DOCKER_BUILDKIT", "0")
			}
			rt := openEngine(t)
			t.Cleanup(func() { _ = rt.Close() })
			unchanged(t, rt)
			busybox(t, rt)
			test(t, rt)
		})
	}
}

func TestBuildWithADockerfileOutsideOfTheContext(t *testing.T) {
	builders(t, func(t *testing.T, rt runtime.Runtime) {
		dir := contextDir(t, map[string]string{"kept/a": "1", "dropped": "2", ".dockerignore": "ignored\n", "ignored": "3"})
		other := contextDir(t, map[string]string{
			"Agentfile": "FROM " + testImage + " AS base\nARG WHAT=nothing\nRUN busybox echo \"$WHAT\" > /what\n" +
				"FROM base\nCOPY . /all/\n",
			"Agentfile.dockerignore": "dropped\n",
		})
		var progress bytes.Buffer
		image, err := rt.BuildImage(t.Context(), runtime.BuildSpec{
			ContextDir: dir, Dockerfile: filepath.Join(other, "Agentfile"), Tags: []string{"localhost/dk-outside:1", "localhost/dk-outside:2"},
			Args: map[string]string{"WHAT": "some thing"}, Labels: map[string]string{"dk": "x=y"}, Progress: &progress,
		})
		must(t, err)
		cleanup(t, func(ctx context.Context) error {
			return errors.Join(rt.RemoveImage(ctx, "localhost/dk-outside:1"), rt.RemoveImage(ctx, "localhost/dk-outside:2"))
		})
		if len(image.Tags) != 2 || image.Labels["dk"] != "x=y" || image.Labels[runtime.LabelManaged] != "true" {
			t.Errorf("image is %+v", image)
		}
		if !strings.Contains(progress.String(), "echo") {
			t.Errorf("progress does not show the step: %q", progress.String())
		}
		c, err := rt.Run(t.Context(), runtime.ContainerSpec{Name: "dk-outside", Image: "localhost/dk-outside:1"})
		must(t, err)
		cleanup(t, func(ctx context.Context) error { return rt.RemoveContainer(ctx, c.ID) })
		got, _ := sh(t, rt, c.ID, "busybox cat /what; cd /all; busybox find . -type f -name '[a-z]*' | busybox sort")
		if want := "some thing\n./ignored\n./kept/a"; got != want {
			t.Errorf("the image holds %q, want %q", got, want)
		}
	})
}

func TestFailingStepIsNamedWithItsOutput(t *testing.T) {
	builders(t, func(t *testing.T, rt runtime.Runtime) {
		dir := contextDir(t, map[string]string{
			"Dockerfile": "FROM " + testImage + "\nRUN busybox echo early\nRUN busybox echo the last words; busybox echo aside >&2; exit 3\nRUN busybox echo never\n",
		})
		_, err := rt.BuildImage(t.Context(), runtime.BuildSpec{ContextDir: dir, Tags: []string{"localhost/dk-failing:1"}, NoCache: true})
		if err == nil {
			t.Fatal("the build succeeded")
		}
		text := err.Error()
		for _, want := range []string{"RUN busybox echo the last words", "\nthe last words", "\naside", "3"} {
			if !strings.Contains(text, want) {
				t.Errorf("the error does not have %q:\n%s", want, text)
			}
		}
		if strings.Contains(text, "early\n") {
			t.Errorf("the error has another step's output:\n%s", text)
		}
		if _, err := rt.InspectImage(t.Context(), "localhost/dk-failing:1"); !errdefs.IsNotFound(err) {
			t.Errorf("the failed build left an image: %v", err)
		}
	})
}

func TestBuildErrorsHaveKinds(t *testing.T) {
	builders(t, func(t *testing.T, rt runtime.Runtime) {
		for _, tc := range []struct {
			name, dockerfile, target string
			is                       func(error) bool
		}{
			{"an unknown instruction", "FROM " + testImage + "\nFETCH x\n", "", errdefs.IsInvalidArgument},
			{"an unknown stage", "FROM " + testImage + "\n", "none", errdefs.IsInvalidArgument},
			{"a missing file", "FROM " + testImage + "\nCOPY none /\n", "", errdefs.IsNotFound},
			{"a failing command", "FROM " + testImage + "\nRUN false\n", "", errdefs.IsFailedPrecondition},
		} {
			dir := contextDir(t, map[string]string{"Dockerfile": tc.dockerfile})
			_, err := rt.BuildImage(t.Context(), runtime.BuildSpec{ContextDir: dir, Target: tc.target, Tags: []string{"localhost/dk-kinds:1"}})
			if !tc.is(err) {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
	})
}

// signal closes a channel when a text has been written.
type signal struct {
	text string
	seen chan struct{}
	buf  bytes.Buffer
	done bool
}

func (s *signal) Write(p []byte) (int, error) {
	s.buf.Write(p)
	if !s.done && strings.Contains(s.buf.String(), s.text) {
		s.done = true
		close(s.seen)
	}
	return len(p), nil
}

func TestCancelledBuildLeavesNothing(t *testing.T) {
	builders(t, func(t *testing.T, rt runtime.Runtime) {
		dir := contextDir(t, map[string]string{
			"Dockerfile": "FROM " + testImage + "\nRUN busybox echo one > /one\nRUN busybox echo begun; busybox sleep 1000\n",
		})
		begun := &signal{text: "\nbegun", seen: make(chan struct{})}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		go func() {
			select {
			case <-begun.seen:
			case <-ctx.Done():
			}
			cancel()
		}()
		_, err := rt.BuildImage(ctx, runtime.BuildSpec{ContextDir: dir, Tags: []string{"localhost/dk-cancelled:1"}, NoCache: true, Progress: begun})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want the context's error", err)
		}
	})
}

func TestReplacedImageGoes(t *testing.T) {
	builders(t, func(t *testing.T, rt runtime.Runtime) {
		build := func(text string) runtime.Image {
			dir := contextDir(t, map[string]string{"Dockerfile": "FROM " + testImage + "\nCOPY file /\n", "file": text})
			image, err := rt.BuildImage(t.Context(), runtime.BuildSpec{ContextDir: dir, Tags: []string{"localhost/dk-replaced:1"}})
			must(t, err)
			return image
		}
		cleanup(t, func(ctx context.Context) error { return rt.RemoveImage(ctx, "localhost/dk-replaced:1") })
		first, second := build("one"), build("two")
		if first.ID == second.ID {
			t.Fatal("the second build made the same image")
		}
		if _, err := rt.InspectImage(t.Context(), first.ID); !errdefs.IsNotFound(err) {
			t.Errorf("the replaced image is still there: %v", err)
		}
	})
}
