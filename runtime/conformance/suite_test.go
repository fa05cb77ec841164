package conformance

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
	"github.com/bottle-run/bottle/runtime/fake"
)

var update = flag.Bool("update", false, "write the golden files anew")

func engine() *fake.Engine {
	e := fake.New()
	e.Handle(probe.Path, func(ctx context.Context, p *fake.Process) int {
		if len(p.Args) < 2 || !probe.Pure(p.Args[1]) {
			return 125
		}
		return probe.Main(ctx, &probe.Call{Args: p.Args[1:], Env: p.Env, Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr})
	})
	return e
}

func TestEveryTestIsWellFormed(t *testing.T) {
	all, core := All(), 0
	names := map[string]bool{}
	name := regexp.MustCompile(`^[a-z]+/[a-z0-9'-]+$`)
	for _, test := range all {
		switch {
		case names[test.Name]:
			t.Errorf("%s: the name is there twice", test.Name)
		case !name.MatchString(test.Name):
			t.Errorf("%s: not a name such as group/what-is-promised", test.Name)
		case !strings.HasSuffix(test.Doc, ".") || test.Run == nil:
			t.Errorf("%s: a sentence or a function is missing", test.Name)
		case test.World && !test.Kernel:
			t.Errorf("%s: the world needs a kernel", test.Name)
		}
		names[test.Name] = true
		if test.Core() {
			core++
		}
		for _, f := range test.Features {
			if askFor[f] == nil {
				t.Errorf("%s: nobody knows how to ask for %s", test.Name, f)
			}
		}
	}
	const promised = 80
	if core < promised {
		t.Errorf("%d core tests, fewer than %d", core, promised)
	}
	for _, f := range runtime.Features() {
		if !slices.ContainsFunc(all, func(test Test) bool { return slices.Contains(test.Features, f) }) {
			t.Errorf("no test needs feature %s", f)
		}
	}
}

// suiteOf prepares a run of one test on an engine.
func suiteOf(t *testing.T, rt runtime.Runtime) *suite {
	t.Helper()
	s, err := begin(t.Context(), runtime.Checked(rt), Options{Filter: regexp.MustCompile("^networks/removal-is-idempotent$")})
	if err != nil {
		t.Fatal(err)
	}
	s.patience = 100 * time.Millisecond
	t.Cleanup(func() {
		if err := s.end(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestLeftoversFailTheTestThatMadeThem(t *testing.T) {
	rt := engine()
	s := suiteOf(t, rt)
	for what, leave := range map[string]func(context.Context, *Env) error{
		"engine: networks": func(ctx context.Context, _ *Env) error {
			_, err := rt.CreateNetwork(ctx, runtime.NetworkSpec{Name: "planted"})
			return err
		},
		"engine: containers": func(ctx context.Context, e *Env) error {
			_, err := rt.Run(ctx, runtime.ContainerSpec{Name: "planted", Image: e.Image})
			t.Cleanup(func() { _ = rt.RemoveContainer(context.Background(), "planted") })
			return err
		},
		"engine: volumes": func(context.Context, *Env) error {
			rt.AddForeign("volumes", "planted")
			return nil
		},
		"process: temporary files": func(context.Context, *Env) error {
			f, err := os.CreateTemp("", "planted")
			if err != nil {
				return err
			}
			return f.Close()
		},
	} {
		r := s.run(t.Context(), Test{Name: "planted/leftover", Run: leave})
		if r.Status != Failed || !strings.Contains(r.Message, what+": left behind: ") || !strings.Contains(r.Message, "planted") {
			t.Errorf("%s: want a failure that names it, got %s %q", what, r.Status, r.Message)
		}
		if r := s.run(t.Context(), Test{Name: "planted/next", Run: func(context.Context, *Env) error { return nil }}); r.Status != Passed {
			t.Errorf("%s: it failed the next test too: %s", what, r.Message)
		}
	}
}

func TestWhatATestTakesAwayFailsItToo(t *testing.T) {
	rt := engine()
	s := suiteOf(t, rt)
	if _, err := rt.CreateNetwork(t.Context(), runtime.NetworkSpec{Name: "planted"}); err != nil {
		t.Fatal(err)
	}
	s.before, _ = s.snapshot(t.Context())
	r := s.run(t.Context(), Test{Name: "planted/thief", Run: func(ctx context.Context, _ *Env) error { return rt.RemoveNetwork(ctx, "planted") }})
	if r.Status != Failed || !strings.Contains(r.Message, "gone, though it was there before") {
		t.Errorf("want a failure, got %s %q", r.Status, r.Message)
	}
}

func TestAMissingFeatureIsTriedAndMustBeRefused(t *testing.T) {
	test := Test{Name: "planted/feature", Features: []runtime.Feature{runtime.FeatureMemoryLimit}, Run: func(context.Context, *Env) error {
		return errors.New("the test itself was run")
	}}
	rt := engine()
	rt.SetInfo(func(i *runtime.Info) { i.Missing[runtime.FeatureMemoryLimit] = "no cgroups" })
	if r := suiteOf(t, rt).run(t.Context(), test); r.Status != Absent || !strings.Contains(r.Reason, "no cgroups") {
		t.Errorf("declared missing and refused: want absent, got %s %q", r.Status, r.Message)
	}
	// Declared missing to the suite, while the engine does it.
	liar := engine()
	s := suiteOf(t, liar)
	s.info.Missing = map[runtime.Feature]string{runtime.FeatureMemoryLimit: "so it says"}
	if r := s.run(t.Context(), test); r.Status != Failed || !strings.Contains(r.Message, "expected NotImplemented, but it succeeded") {
		t.Errorf("declared missing and working: want a failure, got %s %q", r.Status, r.Message)
	}
	if r := suiteOf(t, engine()).run(t.Context(), test); r.Status != Failed || !strings.Contains(r.Message, "the test itself was run") {
		t.Errorf("not declared missing: want the test itself to be run, got %s %q", r.Status, r.Message)
	}
}

func TestATestThatPanicsOrHangsFailsAlone(t *testing.T) {
	s := suiteOf(t, engine())
	if r := s.run(t.Context(), Test{Name: "planted/panic", Run: func(context.Context, *Env) error { panic("boo") }}); r.Status != Failed || !strings.Contains(r.Message, "boo") {
		t.Errorf("panic: got %s %q", r.Status, r.Message)
	}
	hang := Test{Name: "planted/hang", Timeout: 10 * time.Millisecond, Run: func(ctx context.Context, _ *Env) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}}
	if r := s.run(t.Context(), hang); r.Status != Failed || !strings.Contains(r.Message, "did not end within") {
		t.Errorf("hang: got %s %q", r.Status, r.Message)
	}
}

func TestRunReportsAndFilters(t *testing.T) {
	var started, ended []string
	report, err := Run(t.Context(), engine(), Options{
		Filter:  regexp.MustCompile("^(labels/filters|sealing/tcp)$"),
		Started: func(t Test) { started = append(started, t.Name) }, Ended: func(r Result) { ended = append(ended, string(r.Status)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(started, []string{"sealing/tcp", "labels/filters"}) || !slices.Equal(ended, []string{"exempt", "passed"}) {
		t.Errorf("got %q %q", started, ended)
	}
	if !report.OK() || report.Engine != fake.Name || !report.Simulated || report.Count(Passed) != 1 || report.Count(Exempt) != 1 {
		t.Errorf("report: %+v", report)
	}
	if _, err := Run(t.Context(), engine(), Options{Filter: regexp.MustCompile("no such test")}); err == nil {
		t.Error("a filter that matches nothing passed")
	}
}

func TestTheEnginesFaultsFail(t *testing.T) {
	rt := engine()
	broken := errors.New("broken")
	rt.SetFault(func(op, _ string) error {
		if op == "LoadImage" {
			return broken
		}
		return nil
	})
	if _, err := Run(t.Context(), rt, Options{}); !errors.Is(err, broken) {
		t.Errorf("want the fault, got %v", err)
	}
}

func sample() Report {
	return Report{
		Engine: "sample", Version: "1.2.3", APIVersion: "1", Rootless: true, OS: "linux", Arch: "amd64", Kernel: "6.1", CgroupVersion: "2",
		NetworkStack: "stack", StorageDriver: "overlay", Builder: "builder", OCIRuntimes: []string{"runc", "crun"},
		Started: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), Duration: 90 * time.Second,
		Features: map[runtime.Feature]string{runtime.FeatureCopyTmpfs: "it cannot | be done"}, Warnings: []string{"something is odd"},
		Results: []Result{
			{Name: "group/good", Doc: "It works.", Core: true, Status: Passed, Duration: 1500 * time.Millisecond},
			{Name: "group/bad", Doc: "It <works>.", Core: true, Status: Failed, Duration: time.Second, Message: "expected a,\ngot b & c"},
			{Name: "other/absent", Doc: "It works, if at all.", Status: Absent, Reason: "copy-tmpfs: it cannot be done"},
			{Name: "other/exempt", Doc: "It needs a kernel.", Core: true, Status: Exempt},
		},
	}
}

func TestReportsAreAsTheyWere(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"report.json", "report.xml", "report.md"} {
		file := filepath.Join(dir, name)
		if err := sample().WriteFile(file); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		golden := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, want)
		}
	}
	if err := sample().WriteFile(filepath.Join(dir, "report.txt")); err == nil {
		t.Error("an unknown extension was accepted")
	}
	var b bytes.Buffer
	if err := sample().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	back, err := ReadReport(&b)
	if err != nil || back.Summary() != sample().Summary() || len(back.Results) != 4 {
		t.Errorf("read back: %+v, %v", back, err)
	}
}

func TestTheKindOfAnErrorIsChecked(t *testing.T) {
	if err := kind(errdefs.ErrNotFound, errdefs.IsNotFound, "NotFound", "look"); err != nil {
		t.Error(err)
	}
	for _, err := range []error{nil, errdefs.ErrAlreadyExists} {
		if kind(err, errdefs.IsNotFound, "NotFound", "look") == nil {
			t.Errorf("%v passed for NotFound", err)
		}
	}
}
