package conformance

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
	"github.com/bottle-run/bottle/runtime/conformance/world"
)

// LabelRun marks the objects of one run of the suite with the run's name.
const LabelRun = "dev.bottle.conformance"

// Env is what a test works with. What it makes through Env is removed when it
// has returned.
type Env struct {
	// Runtime is the engine under test, checked.
	Runtime runtime.Runtime
	// Info is what the engine said about itself when the run began.
	Info runtime.Info
	// World is there for tests that ask for it.
	World world.World
	// Image is the reference of the probe image.
	Image string

	suite *suite
	logf  func(format string, args ...any)

	mu       sync.Mutex
	cleanups []func(context.Context) error
	names    int
}

// Logf notes something for whoever reads why a test failed.
func (e *Env) Logf(format string, args ...any) { e.logf(format, args...) }

// Name makes a name that is free on the engine.
func (e *Env) Name(what string) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.names++
	return fmt.Sprintf("%s-%d-%s-%d", e.suite.name, e.suite.current, what, e.names)
}

// Token makes a word that occurs nowhere else.
func (e *Env) Token() string { return "tok" + random(8) }

// Labels are those by which a test finds its own objects.
func (e *Env) Labels() map[string]string { return map[string]string{LabelRun: e.suite.name} }

// Cleanup registers what to do when the test has returned; last first.
func (e *Env) Cleanup(f func(context.Context) error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.cleanups = append(e.cleanups, f)
}

// clean runs what was registered, all of it.
func (e *Env) clean(ctx context.Context) error {
	var errs []error
	for {
		e.mu.Lock()
		n := len(e.cleanups)
		if n == 0 {
			e.mu.Unlock()
			return errors.Join(errs...)
		}
		f := e.cleanups[n-1]
		e.cleanups = e.cleanups[:n-1]
		e.mu.Unlock()
		if err := f(ctx); err != nil {
			errs = append(errs, fmt.Errorf("clean up: %w", err))
		}
	}
}

// Dir makes a temporary directory.
func (e *Env) Dir() (string, error) {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return "", err
	}
	e.Cleanup(func(context.Context) error { return os.RemoveAll(dir) })
	// An engine that runs as another user reads it.
	return dir, os.Chmod(dir, 0o755)
}

// Context writes a build context and returns its directory. Names that end with
// a slash are directories.
func (e *Env) Context(files map[string]string) (string, error) {
	dir, err := e.Dir()
	if err != nil {
		return "", err
	}
	for name, content := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// Network makes a network.
func (e *Env) Network(ctx context.Context, internal bool) (runtime.Network, error) {
	return e.NetworkOf(ctx, runtime.NetworkSpec{Name: e.Name("net"), Internal: internal})
}

// NetworkOf makes a network as specified. It is named if it has no name.
func (e *Env) NetworkOf(ctx context.Context, spec runtime.NetworkSpec) (runtime.Network, error) {
	if spec.Name == "" {
		spec.Name = e.Name("net")
	}
	if spec.Labels == nil {
		spec.Labels = e.Labels()
	}
	n, err := e.Runtime.CreateNetwork(ctx, spec)
	if err != nil {
		return n, err
	}
	e.Cleanup(func(ctx context.Context) error { return e.Runtime.RemoveNetwork(ctx, n.ID) })
	return n, nil
}

// Box is a running container of the probe image.
type Box struct {
	runtime.Container
	env *Env
}

// Box runs a container that idles, on the networks given.
func (e *Env) Box(ctx context.Context, networks ...runtime.Network) (*Box, error) {
	return e.BoxOf(ctx, runtime.ContainerSpec{Networks: Attach(networks...)})
}

// Attach makes attachments without aliases.
func Attach(networks ...runtime.Network) []runtime.NetworkAttachment {
	var list []runtime.NetworkAttachment
	for _, n := range networks {
		list = append(list, runtime.NetworkAttachment{Network: n.Name})
	}
	return list
}

// BoxOf runs a container as specified: of the probe image, idling, with a name
// of its own where the spec says nothing else.
func (e *Env) BoxOf(ctx context.Context, spec runtime.ContainerSpec) (*Box, error) {
	e.Fill(&spec)
	c, err := e.Runtime.Run(ctx, spec)
	if err != nil {
		return nil, err
	}
	e.Cleanup(func(ctx context.Context) error { return e.Runtime.RemoveContainer(ctx, c.ID) })
	return &Box{c, e}, nil
}

// Fill completes a spec as BoxOf does.
func (e *Env) Fill(spec *runtime.ContainerSpec) {
	if spec.Image == "" {
		spec.Image = e.Image
	}
	if spec.Name == "" {
		spec.Name = e.Name("box")
	}
	if spec.Labels == nil {
		spec.Labels = e.Labels()
	}
}

// Output is what an exec gave.
type Output struct {
	Stdout, Stderr string
	Code           int
}

// Exec runs the probe in the container.
func (b *Box) Exec(ctx context.Context, args ...string) (Output, error) {
	return b.ExecOf(ctx, runtime.ExecSpec{Command: append([]string{probe.Path}, args...)})
}

// ExecOf runs what is specified; Stdout and Stderr are collected if they are nil.
func (b *Box) ExecOf(ctx context.Context, spec runtime.ExecSpec) (Output, error) {
	var stdout, stderr bytes.Buffer
	if spec.Stdout == nil {
		spec.Stdout = &stdout
	}
	if spec.Stderr == nil && !spec.TTY {
		spec.Stderr = &stderr
	}
	status, err := b.env.Runtime.Exec(ctx, b.ID, spec)
	return Output{stdout.String(), stderr.String(), status.Code}, err
}

// Do runs the probe and fails unless it exits with 0.
func (b *Box) Do(ctx context.Context, args ...string) (string, error) {
	out, err := b.Exec(ctx, args...)
	if err == nil && out.Code != 0 {
		err = failed("probe %s: expected exit status 0, got %d: %s", strings.Join(args, " "), out.Code, strings.TrimSpace(out.Stderr))
	}
	return out.Stdout, err
}

// JSON runs the probe and reads its result.
func (b *Box) JSON(ctx context.Context, v any, args ...string) error {
	out, err := b.Do(ctx, args...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		return failed("probe %s: expected a result, got %q: %v", strings.Join(args, " "), out, err)
	}
	return nil
}

// Address is the container's address on a network.
func (b *Box) Address(n runtime.Network) string {
	for _, ep := range b.Networks {
		if ep.Network == n.Name || ep.Network == n.ID {
			return ep.Address.String()
		}
	}
	return ""
}

// Exited runs a container to its end, returns its status and output, and removes
// it.
func (e *Env) Exited(ctx context.Context, spec runtime.ContainerSpec) (Output, error) {
	b, err := e.BoxOf(ctx, spec)
	if err != nil {
		return Output{}, err
	}
	status, err := e.Runtime.Wait(ctx, b.ID)
	if err != nil {
		return Output{}, err
	}
	out, err := b.Logs(ctx)
	if err != nil {
		return Output{}, err
	}
	out.Code = status.Code
	return out, e.Runtime.RemoveContainer(ctx, b.ID)
}

// Logs returns what the main process wrote so far.
func (b *Box) Logs(ctx context.Context) (Output, error) {
	var stdout, stderr bytes.Buffer
	err := b.env.Runtime.Logs(ctx, b.ID, runtime.LogOptions{Stdout: &stdout, Stderr: &stderr})
	return Output{Stdout: stdout.String(), Stderr: stderr.String()}, err
}

// Await waits until the main process has written a line.
func (b *Box) Await(ctx context.Context, line string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	w := &lineWriter{seen: make(chan struct{}), want: line}
	done := make(chan error, 1)
	go func() {
		done <- b.env.Runtime.Logs(ctx, b.ID, runtime.LogOptions{Follow: true, Stdout: w})
	}()
	select {
	case <-w.seen:
		cancel()
		_ = <-done // the end of following, as was asked for
		return nil
	case err := <-done:
		select {
		case <-w.seen:
			return nil
		default:
		}
		return failed("expected line %q in the log of container %s, got %q (%v)", line, b.Name, w.text(), err)
	}
}

// lineWriter notes when a line arrives.
type lineWriter struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	want string
	seen chan struct{}
	done bool
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if !w.done && strings.Contains(strings.ReplaceAll(w.buf.String(), "\r", ""), w.want+"\n") {
		w.done = true
		close(w.seen)
	}
	return len(p), nil
}

func (w *lineWriter) text() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.String()
}

// poll asks again and again, since some things an engine does end after the
// call that began them. It returns the last error when the time is over.
func poll(ctx context.Context, patience time.Duration, ask func(context.Context) error) error {
	deadline := time.Now().Add(patience)
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		err := ask(ctx)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, context.Cause(ctx))
		case <-time.After(pause):
		}
	}
}
