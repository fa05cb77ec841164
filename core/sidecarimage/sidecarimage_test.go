package sidecarimage

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/internal/needs"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/fake"
)

func assemble(t *testing.T, program, roots, arch string) *Image {
	t.Helper()
	image, err := New([]byte(program), []byte(roots), arch)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func digest(t *testing.T, i *Image) string {
	t.Helper()
	image, err := i.assemble()
	if err != nil {
		t.Fatal(err)
	}
	d, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return d.String()
}

func TestTheSameContentMakesTheSameImage(t *testing.T) {
	one, two := assemble(t, "program", "roots", "amd64"), assemble(t, "program", "roots", "amd64")
	if one.Tag() != two.Tag() || digest(t, one) != digest(t, two) {
		t.Errorf("%s %s, %s %s", one.Tag(), digest(t, one), two.Tag(), digest(t, two))
	}
	tags := map[string]bool{one.Tag(): true}
	for _, other := range []*Image{assemble(t, "programr", "oots", "amd64"), assemble(t, "program", "", "amd64"), assemble(t, "program", "roots", "arm64")} {
		if tags[other.Tag()] {
			t.Errorf("the tag %s is of several images", other.Tag())
		}
		tags[other.Tag()] = true
	}
	if !strings.HasPrefix(one.Tag(), Repository+":") || len(one.Tag()) != len(Repository)+1+16 {
		t.Errorf("tag %s", one.Tag())
	}
}

func TestAnEngineGetsItOnce(t *testing.T) {
	e := fake.New()
	rt := runtime.Checked(e)
	image := assemble(t, "program", "roots", "amd64")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, _, note, err := Ensure(t.Context(), rt, image); err != nil || note != "" {
				t.Errorf("%v, %q", err, note)
			}
		})
	}
	wg.Wait()
	got, loaded, _, err := Ensure(t.Context(), rt, image)
	if err != nil || loaded {
		t.Errorf("the second time: loaded %v, %v", loaded, err)
	}
	if got.Config.User != "65532:65532" || got.Labels[runtime.LabelManaged] != "true" || got.Config.Entrypoint[0] != Program || got.Config.Architecture != "amd64" {
		t.Errorf("%+v", got)
	}
	e.Handle(Program, func(_ context.Context, p *fake.Process) int {
		if n, err := p.Files.Stat("/run/bottle"); err != nil || !n.Mode.IsDir() || n.UID != UID || n.Mode.Perm() != 0o777 {
			t.Errorf("the directory: %+v, %v", n, err)
		}
		if data, err := p.Files.ReadFile("/" + rootsPath); err != nil || string(data) != "roots" {
			t.Errorf("the roots: %q, %v", data, err)
		}
		return 0
	})
	c, err := rt.Run(t.Context(), runtime.ContainerSpec{Name: "user", Image: image.Tag()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := rt.Wait(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}

	// One that a container uses stays, until another comes when none does.
	second := assemble(t, "newer", "roots", "amd64")
	if _, loaded, note, err := Ensure(t.Context(), rt, second); !loaded || note != "" || err != nil {
		t.Errorf("another one: %v, %q, %v", loaded, note, err)
	}
	if _, err := rt.InspectImage(t.Context(), image.Tag()); err != nil {
		t.Errorf("the one in use: %v", err)
	}
	if err := rt.RemoveContainer(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := Ensure(t.Context(), rt, assemble(t, "newest", "roots", "amd64")); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{image.Tag(), second.Tag()} {
		if _, err := rt.InspectImage(t.Context(), tag); !errdefs.IsNotFound(err) {
			t.Errorf("%s is still there: %v", tag, err)
		}
	}
}

func TestAnEngineThatFails(t *testing.T) {
	for _, op := range []string{"InspectImage", "LoadImage"} {
		e := fake.New()
		boom := errors.New("boom")
		e.SetFault(func(got, _ string) error {
			if got == op {
				return boom
			}
			return nil
		})
		if _, _, _, err := Ensure(t.Context(), runtime.Checked(e), assemble(t, "p", "", "amd64")); !errors.Is(err, boom) {
			t.Errorf("%s: %v", op, err)
		}
	}
	for _, op := range []string{"ListImages", "RemoveImage"} {
		e := fake.New()
		rt := runtime.Checked(e)
		if _, _, _, err := Ensure(t.Context(), rt, assemble(t, "old", "", "amd64")); err != nil {
			t.Fatal(err)
		}
		e.SetFault(func(got, _ string) error {
			if got == op {
				return errors.New("boom")
			}
			return nil
		})
		_, loaded, note, err := Ensure(t.Context(), rt, assemble(t, "new", "", "amd64"))
		if err != nil || !loaded || !strings.Contains(note, "boom") {
			t.Errorf("%s: %v, %q, %v", op, loaded, note, err)
		}
	}
}

func TestProgramsThatCannotBeUsed(t *testing.T) {
	dir := t.TempDir()
	build := func(name, pkg string, env ...string) string {
		t.Helper()
		out := filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-buildvcs=false", "-o", out, pkg)
		cmd.Dir, cmd.Env = filepath.Join(dir, "source"), append(os.Environ(), env...)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		return out
	}
	needs.Program(t, "go", "golang-go")
	source := filepath.Join(dir, "source", "cmd", "bottle-sidecar")
	if err := os.MkdirAll(source, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		filepath.Join(dir, "source", "go.mod"): "module example.test/x\n", filepath.Join(source, "main.go"): "package main\n\nfunc main() {}\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	older := build("older", "./cmd/bottle-sidecar", "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	foreign := build("foreign", "./cmd/bottle-sidecar", "GOOS=darwin", "GOARCH=arm64", "CGO_ENABLED=0")
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, arch, says string }{
		"nothing":      {filepath.Join(dir, "nowhere"), "amd64", "which does not exist"},
		"a script":     {text, "amd64", "no Linux program"},
		"of a Mac":     {foreign, "amd64", "no Linux program"},
		"architecture": {older, "arm64", "it is for amd64, and the engine runs on arm64"},
		"another one":  {lookSelf(t), "amd64", "it is not bottle-sidecar"},
		"too old":      {older, "amd64", "not of this version"},
		"a directory":  {dir, "amd64", "is a directory"},
	} {
		if name == "another one" && !onAMD64(c.path) {
			continue // this test's own program is for another machine
		}
		t.Setenv(Variable, c.path)
		if _, _, err := FromHost(c.arch); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v; want %q", name, err, c.says)
		}
	}
	t.Setenv(Variable, "")
	if _, _, err := FromHost("amd64"); err == nil || !strings.Contains(err.Error(), "there is no bottle-sidecar beside") || !strings.Contains(err.Error(), Variable) {
		t.Errorf("none beside the program: %v", err)
	}
}

// lookSelf is this test's program, which is not bottle-sidecar. It may be dynamic.
func lookSelf(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := check(program, "amd64"); err != nil && strings.Contains(err.Error(), "not static") {
		// The race detector needs C. Another Go program that is static is the go command.
		if self, err = exec.LookPath("go"); err != nil {
			t.Fatal(err)
		}
	}
	return self
}

func onAMD64(path string) bool {
	program, err := os.ReadFile(path)
	return err == nil && (check(program, "amd64") == nil || !strings.Contains(check(program, "amd64").Error(), "it is for"))
}

func TestRootsOfTheHost(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", "text\n-----BEGIN CERTIFICATE-----\n")
	if roots, note := readRoots([]string{filepath.Join(dir, "nowhere"), file("empty", ""), good}); len(roots) == 0 || note != "" {
		t.Errorf("%q, %q", roots, note)
	}
	if roots, note := readRoots([]string{filepath.Join(dir, "nowhere"), dir}); roots != nil || !strings.Contains(note, "no CA roots") {
		t.Errorf("%q, %q", roots, note)
	}
	huge := file("huge", "")
	if err := os.Truncate(huge, maxRoots+1); err != nil {
		t.Fatal(err)
	}
	if roots, note := readRoots([]string{huge}); roots != nil || !strings.Contains(note, "larger") {
		t.Errorf("%q, %q", roots, note)
	}
}
