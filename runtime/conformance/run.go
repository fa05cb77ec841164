package conformance

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	goruntime "runtime"
	"runtime/debug"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/world"
)

// Options say what to run and how. The zero value runs everything.
type Options struct {
	// Filter selects tests by name; nil selects all.
	Filter *regexp.Regexp
	// SharedHost says that others make networks, mounts and processes on this host
	// during the run. What is left on the host is then a warning of the report, and
	// not a failure, since nobody can tell whose it is. What is left on the engine
	// fails in any case. BOTTLE_CONFORMANCE_SHARED_HOST=1 says the same.
	SharedHost bool
	// World is the socket of a world that is served by another process. If it is
	// empty, BOTTLE_CONFORMANCE_WORLD names it; and if that is empty too, the run
	// makes a world of its own, for which it must be root.
	World string
	// Foreign makes objects on the engine past the interface, without bottle's
	// label: a network, a running container and an image of the names given, from
	// the image in the archive, as `docker save` writes one. What it returns
	// removes them. An engine's own tests can do that; where it is nil, less is
	// proved, and the report says so.
	Foreign func(ctx context.Context, names Names, archive []byte) (remove func(context.Context) error, err error)
	// Started and Ended are called around each test, from one goroutine.
	Started func(Test)
	Ended   func(Result)
	// Logf gets what tests note; nil discards it.
	Logf func(format string, args ...any)
}

// Names are those of foreign objects.
type Names struct{ Network, Container, Image string }

// EnvSharedHost is the variable that stands for [Options.SharedHost].
const EnvSharedHost = "BOTTLE_CONFORMANCE_SHARED_HOST"

// Run runs the suite on an engine. The error says why it could not be run; that
// tests failed is in the report alone.
func Run(ctx context.Context, rt runtime.Runtime, opts Options) (Report, error) {
	s, err := begin(ctx, rt, opts)
	if err != nil {
		return Report{}, err
	}
	for _, t := range s.tests {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
			break
		}
		if opts.Started != nil {
			opts.Started(t)
		}
		r := s.run(ctx, t)
		if opts.Ended != nil {
			opts.Ended(r)
		}
	}
	err = errors.Join(err, s.end(context.WithoutCancel(ctx)))
	return s.report, err
}

// suite is a run of the suite.
type suite struct {
	rt    runtime.Runtime
	opts  Options
	name  string // begins the name of every object
	tests []Test
	info  runtime.Info
	image string
	probe string // the path of its executable
	world world.World
	// recordingResolver: this host's name server is the world's.
	recordingResolver bool
	temp              string // the process's temporary directory during the run
	oldTemp           string
	current           int
	// patience is how long leftovers may take to go.
	patience time.Duration
	before   snapshot
	begun    snapshot // of the host
	report   Report
}

// begin prepares a run: what it makes, end removes.
func begin(ctx context.Context, rt runtime.Runtime, opts Options) (_ *suite, err error) {
	if os.Getenv(EnvSharedHost) != "" {
		opts.SharedHost = true
	}
	if opts.Logf == nil {
		opts.Logf = func(string, ...any) {}
	}
	s := &suite{rt: rt, opts: opts, name: "conf" + random(3), patience: patience}
	if s.info, err = rt.Info(ctx); err != nil {
		return nil, err
	}
	s.report = newReport(s.info)
	wantWorld := false
	for _, t := range All() {
		if opts.Filter == nil || opts.Filter.MatchString(t.Name) {
			s.tests = append(s.tests, t)
			wantWorld = wantWorld || t.World && !s.exempt(t)
		}
	}
	if len(s.tests) == 0 {
		return nil, fmt.Errorf("no test matches %s", opts.Filter)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.end(context.WithoutCancel(ctx)))
		}
	}()
	if err = s.ownTemp(); err != nil {
		return nil, err
	}
	// Before the first snapshot, since they are on the host and on the engine
	// during the whole run.
	if wantWorld {
		if s.world, err = world.Open(ctx, opts.World); err != nil {
			return nil, err
		}
		s.recordingResolver = s.report.warnAboutResolver(s.world.Layout())
	}
	if err = s.loadProbe(ctx); err != nil {
		return nil, err
	}
	if err = s.warmUp(ctx); err != nil {
		return nil, fmt.Errorf("before the first test: %w", err)
	}
	s.before, err = s.snapshot(ctx)
	s.begun = s.before.host()
	return s, err
}

// warmUp makes and removes one of each thing: what an engine sets up at the
// first network or container, and keeps, is no test's leftover.
func (s *suite) warmUp(ctx context.Context) error {
	e := &Env{Runtime: s.rt, Info: s.info, Image: s.image, suite: s, logf: s.opts.Logf}
	inner, err := e.Network(ctx, true)
	if err == nil {
		var outer runtime.Network
		if outer, err = e.Network(ctx, false); err == nil {
			_, err = e.Box(ctx, inner, outer)
		}
	}
	return errors.Join(err, e.clean(context.WithoutCancel(ctx)))
}

// ownTemp gives the process a temporary directory of its own, so that a file
// that is left there is known to be its own.
func (s *suite) ownTemp() error {
	dir, err := os.MkdirTemp("", "conformance-")
	if err != nil {
		return err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	s.temp, s.oldTemp = dir, os.Getenv("TMPDIR")
	return os.Setenv("TMPDIR", dir)
}

func (s *suite) loadProbe(ctx context.Context) error {
	path, err := findProbe(ctx, s.arch())
	if err != nil {
		return err
	}
	s.probe = path
	labels := map[string]string{runtime.LabelManaged: "true", LabelRun: s.name}
	img, err := probeImage(path, s.arch(), labels)
	if err != nil {
		return err
	}
	ref := "localhost/" + s.name + "/probe:1"
	if _, err := load(ctx, s.rt, ref, img); err != nil {
		return fmt.Errorf("load the probe image: %w", err)
	}
	s.image = ref
	return nil
}

// arch is the engine's architecture.
func (s *suite) arch() string {
	if s.info.Arch == "" {
		return goruntime.GOARCH
	}
	return s.info.Arch
}

// program is the probe's executable.
func (s *suite) program() ([]byte, error) { return os.ReadFile(s.probe) }

// end removes what begin made and notes what the run left on the host.
func (s *suite) end(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var errs []error
	if s.image != "" {
		errs = append(errs, s.rt.RemoveImage(ctx, s.image))
	}
	if s.opts.SharedHost && s.begun != nil {
		s.warnAboutHost(ctx)
	}
	if s.world != nil {
		errs = append(errs, s.world.Close())
	}
	if s.temp != "" {
		restore := os.Setenv
		if s.oldTemp == "" {
			restore = func(name, _ string) error { return os.Unsetenv(name) }
		}
		errs = append(errs, restore("TMPDIR", s.oldTemp), os.RemoveAll(s.temp))
	}
	s.report.Duration = time.Since(s.report.Started).Round(time.Millisecond)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end the run: %w", err)
	}
	return nil
}

// exempt reports whether the engine is exempt from a test.
func (s *suite) exempt(t Test) bool { return s.info.Simulated && t.Kernel }

// missing are the test's features that the engine declares missing.
func (s *suite) missing(t Test) []runtime.Feature {
	var list []runtime.Feature
	for _, f := range t.Features {
		if !s.info.Has(f) {
			list = append(list, f)
		}
	}
	return list
}

// run runs one test, removes what it made and compares.
func (s *suite) run(ctx context.Context, t Test) Result {
	s.current++
	r := Result{Name: t.Name, Doc: t.Doc, Core: t.Core(), Status: Passed}
	began := time.Now()
	missing := s.missing(t)
	test := t.Run
	switch {
	case s.exempt(t):
		r.Status = Exempt
	case len(missing) > 0:
		r.Status = Absent
		for _, f := range missing {
			r.Reason += fmt.Sprintf("%s: %s", f, s.info.Missing[f])
		}
		test = func(ctx context.Context, e *Env) error { return refusedFeatures(ctx, e, missing) }
	}
	if r.Status != Exempt {
		if err := s.try(ctx, t, test); err != nil {
			r.Status, r.Message = Failed, err.Error()
		}
	}
	r.Duration = time.Since(began).Round(time.Millisecond)
	s.report.add(r)
	return r
}

// try runs a test's function with an Env, cleans up, and looks for what is left.
func (s *suite) try(ctx context.Context, t Test, test func(context.Context, *Env) error) error {
	e := &Env{Runtime: s.rt, Info: s.info, World: s.world, Image: s.image, suite: s, logf: s.opts.Logf}
	timeout := t.Timeout
	if timeout == 0 {
		timeout = DefaultTimeout
	}
	testCtx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("the test did not end within %s", timeout))
	defer cancel()
	done := make(chan error, 1)
	go func() {
		defer func() {
			if p := recover(); p != nil {
				done <- fmt.Errorf("panic: %v\n%s", p, debug.Stack())
			}
		}()
		done <- test(testCtx, e)
	}()
	var err error
	select {
	case err = <-done:
	case <-testCtx.Done():
		// A call that ignores its context does not stop the run.
		select {
		case err = <-done:
		case <-time.After(20 * time.Second):
			err = fmt.Errorf("%w, and a call went on 20 s after its context had ended", context.Cause(testCtx))
		}
	}
	cancel()
	cleanCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	return errors.Join(err, e.clean(cleanCtx), s.leftovers(cleanCtx))
}

// refusedFeatures is the inverse of an extended test.
func refusedFeatures(ctx context.Context, e *Env, features []runtime.Feature) error {
	var errs []error
	for _, f := range features {
		ask := askFor[f]
		if ask == nil {
			errs = append(errs, failed("feature %s is missing, and the suite does not know how to ask for it", f))
			continue
		}
		err := ask(ctx, e)
		errs = append(errs, kind(err, errdefs.IsNotImplemented, "NotImplemented", fmt.Sprintf("ask for %s, which is declared missing", f.Doc())))
	}
	return errors.Join(errs...)
}

// stateDirs are where the suite looks for temporary files that do not lie in the
// process's own temporary directory, since they were made before or by another.
func (s *suite) stateDirs() []string {
	dirs := []string{s.oldTemp, "/tmp"}
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		dirs = append(dirs, dir)
	}
	for i, d := range dirs {
		dirs[i] = filepath.Clean(d)
	}
	return dirs
}
