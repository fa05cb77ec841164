package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/urfave/cli/v2"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/doctor"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/fake"
)

// parse reads a command line and returns the options that the command was given.
func parse[T any](t *testing.T, command func(*factory, func(T) error) *cli.Command, args ...string) (T, *factory, error) {
	t.Helper()
	var got T
	var out bytes.Buffer
	f := &factory{io: &streams{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out}, registry: engines}
	app := f.app()
	c := command(f, func(o T) error { got = o; return nil })
	c.OnUsageError = usageFailed
	for i := range app.Commands {
		if app.Commands[i].Name == c.Name {
			app.Commands[i] = c
		}
	}
	err := app.Run(f.arrange(append([]string{"bottle"}, args...)))
	return got, f, err
}

func TestFlagsMayStandAnywhere(t *testing.T) {
	dir, none, yes, no := "ws", "", true, false
	for line, want := range map[string]runOptions{
		"run":                                   {},
		"run a":                                 {Agent: "a"},
		"run a --name n -d":                     {Agent: "a", Name: "n", Detach: true},
		"run --name=n a":                        {Agent: "a", Name: "n"},
		"run -- x -y --name z":                  {Command: []string{"x", "-y", "--name", "z"}},
		"run a -e A=1 -e B -- x":                {Agent: "a", Env: []string{"A=1", "B"}, Command: []string{"x"}},
		"run --workspace ws a --dry-run":        {Agent: "a", Workspace: &dir, DryRun: true},
		"run --no-workspace --no-cache -t":      {Workspace: &none, NoCache: true, TTY: &yes},
		"run a -T":                              {Agent: "a", TTY: &no},
		"--runtime docker run a --host unix:/x": {Agent: "a"},
	} {
		got, f, err := parse(t, newRunCommand, strings.Fields(line)...)
		if len(got.Env) == 0 {
			got.Env = nil
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", line, got, err, want)
		}
		if strings.Contains(line, "docker") && (f.globals.Runtime != "docker" || f.globals.Host != "unix:/x") {
			t.Errorf("%s: globals %+v", line, f.globals)
		}
	}
}

func TestWhatFollowsTheNameBelongsToTheCommandOfExec(t *testing.T) {
	for line, want := range map[string]execOptions{
		"exec b":                        {Name: "b"},
		"exec b ls -l --user":           {Name: "b", Command: []string{"ls", "-l", "--user"}},
		"exec b -- ls -l":               {Name: "b", Command: []string{"ls", "-l"}},
		"exec -u root -w / b ls":        {Name: "b", User: "root", WorkDir: "/", Command: []string{"ls"}},
		"exec b sh -c x -- y":           {Name: "b", Command: []string{"sh", "-c", "x", "--", "y"}},
		"exec --json -e A=1 b printenv": {Name: "b", Env: []string{"A=1"}, Command: []string{"printenv"}},
	} {
		got, _, err := parse(t, newExecCommand, strings.Fields(line)...)
		if len(got.Env) == 0 {
			got.Env = nil
		}
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", line, got, err, want)
		}
	}
}

func TestSidesOfACopy(t *testing.T) {
	for line, want := range map[string]cpOptions{
		"cp a b:/c":            {From: copySide{Path: "a"}, To: copySide{"b", "/c"}, Limit: 64 << 30},
		"cp b:/c - --limit 1G": {From: copySide{"b", "/c"}, To: copySide{Path: "-"}, Limit: 1 << 30},
		"cp ./x:y b:/c":        {From: copySide{Path: "./x:y"}, To: copySide{"b", "/c"}, Limit: 64 << 30},
	} {
		got, _, err := parse(t, newCpCommand, strings.Fields(line)...)
		if err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", line, got, err, want)
		}
	}
}

func TestExitStatusesFollowFromTheKindOfError(t *testing.T) {
	interrupt := signalError{syscall.SIGTERM}
	for want, errs := range map[int][]error{
		exitUsage:       {usageErrorf("x"), fmt.Errorf("x: %w", errdefs.ErrInvalidArgument)},
		exitInput:       {core.Errorf(core.KindInput, "x")},
		exitEngine:      {fmt.Errorf("x: %w", errdefs.ErrUnavailable)},
		exitImage:       {&core.LaunchError{Err: core.Errorf(core.KindImage, "x"), Teardown: core.Errorf(core.KindLeftover, "y")}},
		exitName:        {&core.LaunchError{Err: core.Errorf(core.KindName, "x")}},
		exitUnsupported: {fmt.Errorf("x: %w", errdefs.ErrNotImplemented)},
		exitNotFound:    {fmt.Errorf("x: %w", errdefs.ErrNotFound)},
		exitLaunch:      {core.Errorf(core.KindLaunch, "x: %w", errdefs.ErrNotFound)},
		exitLeftover:    {core.Errorf(core.KindLeftover, "x")},
		exitConformance: {conformanceError{2}},
		exitWarning:     {diagnosis{doctor.Warning}},
		exitProblem:     {diagnosis{doctor.Problem}},
		exitOther:       {errors.New("x")},
		143:             {interrupt, &core.LaunchError{Err: &core.Error{Kind: core.KindInterrupted, Err: interrupt}}},
		130:             {context.Canceled},
		141:             {fmt.Errorf("write: %w", syscall.EPIPE)},
	} {
		for _, err := range errs {
			if got, _ := exitCode(err); got != want {
				t.Errorf("%v (%T): %d, want %d", err, err, got, want)
			}
		}
	}
}

func TestTheExitStatusesAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/exit-codes.md")
	check(t, err)
	rows := regexp.MustCompile(`(?m)^\| (\d+) \| ([a-z-]*) ?\| (.*) \|$`).FindAllStringSubmatch(string(text), -1)
	if len(rows) != len(exitMeanings) {
		t.Errorf("%d statuses are documented, and there are %d", len(rows), len(exitMeanings))
	}
	for i, m := range exitMeanings {
		if want := []string{fmt.Sprint(m.code), m.kind, m.meaning}; i < len(rows) && !slices.Equal(rows[i][1:], want) {
			t.Errorf("documented is %q, want %q", rows[i][1:], want)
		}
	}
	for kind, code := range kindCodes {
		if !slices.ContainsFunc(exitMeanings, func(m struct {
			code          int
			kind, meaning string
		}) bool {
			return m.code == code && m.kind == string(kind)
		}) {
			t.Errorf("kind %s has status %d, which the list does not have", kind, code)
		}
	}
}

func TestASecondSignalHurriesTheTeardown(t *testing.T) {
	incoming := make(chan os.Signal)
	stopped := false
	s := signalsFrom(incoming, func() { stopped = true })
	if s.work.Err() != nil || s.teardown.Err() != nil {
		t.Fatal("it ends before a signal comes")
	}
	incoming <- syscall.SIGINT
	<-s.work.Done()
	var cause signalError
	if !errors.As(context.Cause(s.work), &cause) || cause.sig != syscall.SIGINT {
		t.Errorf("the cause is %v", context.Cause(s.work))
	}
	if s.teardown.Err() != nil {
		t.Error("the first signal ends the teardown")
	}
	incoming <- syscall.SIGINT
	<-s.hurry
	if s.teardown.Err() != nil {
		t.Error("the second signal ends the teardown at once")
	}
	incoming <- syscall.SIGTERM
	<-s.teardown.Done()
	s.stop()
	if !stopped {
		t.Error("signals are still listened to")
	}
}

// driver opens a fake engine.
type driver struct{ engine *fake.Engine }

func (d driver) Name() string { return fake.Name }
func (d driver) Probe(context.Context, runtime.Options) runtime.Status {
	return runtime.Status{Engine: fake.Name, Healthy: true}
}
func (d driver) Open(context.Context, runtime.Options) (runtime.Runtime, error) {
	return d.engine, nil
}

func TestEnginesAreAskedForByName(t *testing.T) {
	var out bytes.Buffer
	f := &factory{
		io: &streams{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out}, signals: func() *signals { return signalsFrom(nil, func() {}) },
		registry: func() *runtime.Registry { return runtime.NewRegistry(driver{fake.New()}) },
	}
	check(t, f.app().Run(f.arrange([]string{"bottle", "--runtime", fake.Name, "ps"})))
	if out.String() != "NAME  AGENT  STATE  AGE\n" {
		t.Errorf("got %q", out.String())
	}
	var usage usageError
	if err := f.app().Run(f.arrange([]string{"bottle", "--runtime", "lxc", "ps"})); !errors.As(err, &usage) {
		t.Errorf("got %v", err)
	}
}

func TestProgressIsSafeToShow(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out}
	for _, e := range []core.Event{
		{State: core.StateBegin, Step: "prepare image"},
		{State: core.StateOutput, Step: "prepare image", Text: "evil \x1b[2J\x07 line" + strings.Repeat("x", 200)},
		{State: core.StateFailed, Step: "prepare image", Object: "a\x1bb", Error: "no"},
		{State: core.StateNote, Text: "a\nnote"},
	} {
		s.observe(e)
	}
	s.clear()
	if text := out.String(); strings.Contains(text, "\x1b[2J") || strings.Contains(text, "\x07") || strings.Contains(text, "a\x1bb") || !strings.Contains(text, "evil") || !strings.Contains(text, "a note") {
		t.Errorf("%q", text)
	}
}

// keptDriver opens one engine again and again.
type keptDriver struct{ driver }

func (d keptDriver) Open(context.Context, runtime.Options) (runtime.Runtime, error) {
	return kept{d.engine}, nil
}

type kept struct{ runtime.Runtime }

func (kept) Close() error { return nil }

func TestBottlesAreCompletedWithWhatTheyAre(t *testing.T) {
	engine := fake.New()
	engine.AddImage("img", runtime.ImageConfig{}, nil, nil)
	engine.Handle("p", func(ctx context.Context, _ *fake.Process) int { <-ctx.Done(); return 0 })
	for _, name := range []string{"one", "two"} {
		_, err := engine.Run(t.Context(), runtime.ContainerSpec{Name: "bottle-" + name, Image: "img", Entrypoint: []string{"p"}, Labels: map[string]string{
			core.LabelBottle: name, core.LabelAgent: "a\x1b\tb", core.LabelLaunch: name, core.LabelRole: core.RoleAgent,
		}})
		check(t, err)
	}
	for line, want := range map[string]string{
		"rm ":                    "one\ta  b, running\ntwo\ta  b, running\n",
		"rm one --runtime fake ": "two\ta  b, running\n",
		"exec ":                  "one\ta  b, running\ntwo\ta  b, running\n",
		"exec one ":              ":files\n",
		"cp ":                    ":files\none:\ta  b, running\ntwo:\ta  b, running\n",
		"cp one:/x":              ":files\n",
		"--runtime nosuch rm ":   "",
		"rm one two ":            "",
		"logs one f":             "agent\negress-proxy\nfirewall\ngit-gate\nsupervise\n",
		"logs one agent ":        "egress-proxy\nfirewall\ngit-gate\nsupervise\n",
		"completion ":            "bash\nfish\nzsh\n",
		"completion bash ":       "",
		"nosuch ":                "",
		"run -- ":                ":files\n",
	} {
		var out bytes.Buffer
		f := &factory{
			io: &streams{Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out}, signals: func() *signals { return signalsFrom(nil, func() {}) },
			registry: func() *runtime.Registry { return runtime.NewRegistry(keptDriver{driver{engine}}) },
		}
		f.complete(strings.Split(line, " "))
		if out.String() != want {
			t.Errorf("%q: %q, want %q", line, out.String(), want)
		}
	}
}
