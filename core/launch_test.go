package core_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/runtime"
)

const wholeText = `
bottles:
  dev:
    dockerfile: image/Dockerfile
    build_args: {FLAVOUR: plain}
    user: robot:staff
    env: {OPEN: visible}
    env_file: secrets.env
    forward: [TOKEN]
    limits: {memory: 1GiB, pids: 100}
    workspace: {path: src, ignore: ["*.o"]}
    tmpfs: [/scratch]
agents:
  Coder_One:
    bottle: dev
    command: [getenv, TOKEN]
    prompt: "do it\n"
    skills: [skills/review]
    files:
      - {source: conf, target: ~/.config/tool/conf, mode: "0600"}
      - {content: "x", target: /opt/new/x}
    gitconfig: {user.name: 'Robot "R"'}
`

func wholeBench(t *testing.T) *bench {
	b := newBench(t, map[string]string{
		"image/Dockerfile": "FROM img\nLABEL x=y\nCMD [\"/bin/agent\"]\n",
		"secrets.env":      "FROM_FILE=hidden-1\n",
		"src/main.go":      "package main", "src/x.o": "", "src/sub/.gitignore": "skip\n", "src/sub/skip": "", "src/sub/keep": "",
		"skills/review/SKILL.md": "review", "conf": "conf content",
	})
	b.env["TOKEN"] = "hidden-2"
	return b
}

func TestALaunchPutsEverythingInItsPlace(t *testing.T) {
	b := wholeBench(t)
	bottle, err := b.launch(t.Context(), wholeText, core.Wishes{})
	if err != nil {
		t.Fatal(err)
	}
	if bottle.Name != "coder-one" {
		t.Errorf("the bottle is called %q", bottle.Name)
	}
	state, err := b.Snapshot("bottle-coder-one")
	if err != nil {
		t.Fatal(err)
	}
	spec := state.Spec
	if spec.User != "robot:staff" || spec.Limits.Memory != 1<<30 || spec.Limits.PIDs != 100 || !spec.AutoRemove || spec.WorkDir != "/workspace" || spec.Hostname != "coder-one" {
		t.Errorf("the container's spec: %+v", spec)
	}
	if !slices.Equal(spec.Entrypoint, inside.Idle()) || spec.Env["OPEN"] != "visible" || len(spec.Env) != 1 {
		t.Errorf("entrypoint %q, env %q", spec.Entrypoint, spec.Env)
	}
	if len(spec.Networks) != 1 || len(state.Networks) != 1 {
		t.Fatalf("the agent is on %+v", state.Networks)
	}
	network, err := b.InspectNetwork(t.Context(), state.Networks[0].Network)
	if err != nil || !network.Internal || network.Name != "bottle-coder-one.internal" || network.Subnet != bottle.Network.Subnet || !network.Subnet.IsValid() {
		t.Errorf("its network: %+v, %v", network, err)
	}
	if egress, err := b.InspectNetwork(t.Context(), "bottle-coder-one.egress"); err != nil || egress.Internal {
		t.Errorf("the egress network: %+v, %v", egress, err)
	}

	files, err := b.Files("bottle-coder-one")
	if err != nil {
		t.Fatal(err)
	}
	const uid, gid = 1000, 50
	for name, want := range map[string]struct {
		content string
		mode    fs.FileMode
	}{
		"/workspace/main.go":                         {"package main", 0o644},
		"/workspace/sub/keep":                        {"", 0o644},
		"/home/robot/.bottle/prompt.md":              {"do it\n", 0o644},
		"/home/robot/.bottle/skills/review/SKILL.md": {"review", 0o644},
		"/home/robot/.config/tool/conf":              {"conf content", 0o600},
		"/home/robot/.gitconfig":                     {"[user]\n\tname = \"Robot \\\"R\\\"\"\n", 0o644},
		"/opt/new/x":                                 {"x", 0o644},
	} {
		n, err := files.Stat(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if string(n.Content) != want.content || n.Mode.Perm() != want.mode || n.UID != uid || n.GID != gid {
			t.Errorf("%s: %q, %v, %d:%d", name, n.Content, n.Mode, n.UID, n.GID)
		}
	}
	for _, dir := range []string{"/workspace", "/home/robot/.bottle", "/home/robot/.config", "/opt/new"} {
		if n, err := files.Stat(dir); err != nil || n.UID != uid || n.GID != gid || !n.Mode.IsDir() {
			t.Errorf("%s: %+v, %v", dir, n, err)
		}
	}
	for _, name := range []string{"/workspace/x.o", "/workspace/sub/skip"} {
		if _, err := files.Stat(name); err == nil {
			t.Errorf("%s was copied", name)
		}
	}
	if n, err := files.Stat("/home/robot"); err != nil || n.UID == uid {
		t.Errorf("the home directory, which was there before, was changed: %+v, %v", n, err)
	}

	for name, want := range map[string]string{"TOKEN": "hidden-2", "FROM_FILE": "hidden-1", "HOME": "/home/robot", "BOTTLE_PROMPT": "/home/robot/.bottle/prompt.md", "OPEN": "visible", "USER": "robot"} {
		var out bytes.Buffer
		status, err := bottle.Exec(t.Context(), core.ExecOptions{Command: []string{"getenv", name}, Stdout: &out})
		if err != nil || status.Code != 0 || out.String() != want {
			t.Errorf("%s is %q, %v, %v; want %q", name, out.String(), status, err, want)
		}
	}
	var out bytes.Buffer
	if status, err := bottle.Exec(t.Context(), core.ExecOptions{Stdout: &out, Env: map[string]string{"TOKEN": "other"}}); err != nil || status.Code != 0 || out.String() != "other" {
		t.Errorf("the agent's command: %q, %v, %v", out.String(), status, err)
	}
	if status, err := bottle.Exec(t.Context(), core.ExecOptions{Command: []string{"nosuch"}}); err != nil || status.Code != 127 {
		t.Errorf("a missing command: %v, %v", status, err)
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Error(err)
	}
	b.empty()
	if err := bottle.Close(t.Context()); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func TestSecretsAreNowhereButInTheBottle(t *testing.T) {
	b := wholeBench(t)
	plan, secrets := b.plan(wholeText, core.Wishes{Env: []string{"EXTRA=hidden-3"}})
	text := fmt.Sprintf("%v %+v %#v %s %v %#v", plan, plan, plan, secrets, secrets, secrets)
	var human bytes.Buffer
	if err := plan.WriteText(&human); err != nil {
		t.Fatal(err)
	}
	text += human.String()
	bottle, err := core.Launch(t.Context(), b.rt, plan, core.LaunchOptions{Secrets: secrets, Observer: b.observe})
	if err != nil {
		t.Fatal(err)
	}
	state, err := b.Snapshot("bottle-coder-one")
	if err != nil {
		t.Fatal(err)
	}
	text += fmt.Sprintf("%+v %+v %+v", state, b.Calls(), b.events)
	images, err := b.ListImages(t.Context(), runtime.Filter{})
	if err != nil || len(images) != 1 {
		t.Fatalf("images: %v, %v", images, err)
	}
	text += fmt.Sprintf("%+v", images)
	if i := strings.Index(text, "hidden-"); i >= 0 {
		t.Errorf("a value is in %q", text[max(0, i-200):i+20])
	}
	for _, name := range []string{"TOKEN", "FROM_FILE", "EXTRA"} {
		if !strings.Contains(human.String(), name) {
			t.Errorf("the plan does not name %s:\n%s", name, human.String())
		}
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestWhateverCallFailsNothingIsLeft lets the k-th call of a launch fail, for
// every k, both before and after it had its effect.
func TestWhateverCallFailsNothingIsLeft(t *testing.T) {
	for _, when := range []string{"before its effect", "after its effect"} {
		for k := 1; ; k++ {
			b := wholeBench(t)
			rt := &failing{Runtime: b.rt, k: k, after: when == "after its effect"}
			plan, secrets := b.plan(wholeText, core.Wishes{})
			bottle, err := core.Launch(t.Context(), rt, plan, core.LaunchOptions{Secrets: secrets, Observer: b.observe})
			if rt.n < k {
				if err != nil {
					t.Fatalf("nothing failed, and yet: %v", err)
				}
				if k < 12 {
					t.Errorf("a launch is only %d calls", k-1)
				}
				must(t, bottle.Close(t.Context()))
				b.empty()
				break
			}
			if rt.failed == "" {
				// The call failed by itself, which the launch expects.
				must(t, err)
				must(t, bottle.Close(t.Context()))
				continue
			}
			name := fmt.Sprintf("call %d, %s, fails %s", k, rt.failed, when)
			if err == nil {
				// Older images may fail to be listed: that is noted.
				if rt.failed != "ListImages" {
					t.Errorf("%s: no error", name)
				}
				must(t, bottle.Close(t.Context()))
				b.empty()
				continue
			}
			var launch *core.LaunchError
			if !errors.As(err, &launch) || !errors.Is(err, errBoom) || launch.Teardown != nil {
				t.Errorf("%s: %v", name, err)
			}
			if !slices.ContainsFunc(b.events, func(e core.Event) bool {
				return e.State == core.StateFailed && strings.HasPrefix(err.Error(), e.Step)
			}) {
				t.Errorf("%s: the error names no step that failed: %v", name, err)
			}
			b.empty()
		}
	}
}

var errBoom = errors.New("boom")

// failing makes one call of a runtime fail.
type failing struct {
	runtime.Runtime
	mu     sync.Mutex
	k, n   int
	after  bool
	failed string
}

// call does the call, or lets it fail.
func (f *failing) call(op string, do func() error) error {
	f.mu.Lock()
	f.n++
	mine := f.n == f.k
	f.mu.Unlock()
	if !mine || f.after {
		if err := do(); !mine || err != nil {
			return err
		}
	}
	f.failed = op
	return &runtime.Error{Op: op, Err: errBoom}
}

func (f *failing) Info(ctx context.Context) (i runtime.Info, err error) {
	err = f.call("Info", func() error { i, err = f.Runtime.Info(ctx); return err })
	return i, err
}

func (f *failing) Brief(ctx context.Context) (i runtime.Info, err error) {
	err = f.call("Info", func() error { i, err = f.Runtime.Brief(ctx); return err })
	return i, err
}

func (f *failing) InspectImage(ctx context.Context, ref string) (i runtime.Image, err error) {
	err = f.call("InspectImage", func() error { i, err = f.Runtime.InspectImage(ctx, ref); return err })
	return i, err
}

func (f *failing) ListImages(ctx context.Context, filter runtime.Filter) (i []runtime.Image, err error) {
	err = f.call("ListImages", func() error { i, err = f.Runtime.ListImages(ctx, filter); return err })
	return i, err
}

func (f *failing) BuildImage(ctx context.Context, spec runtime.BuildSpec) (i runtime.Image, err error) {
	err = f.call("BuildImage", func() error { i, err = f.Runtime.BuildImage(ctx, spec); return err })
	return i, err
}

func (f *failing) CreateNetwork(ctx context.Context, spec runtime.NetworkSpec) (n runtime.Network, err error) {
	err = f.call("CreateNetwork", func() error { n, err = f.Runtime.CreateNetwork(ctx, spec); return err })
	return n, err
}

func (f *failing) RemoveNetwork(ctx context.Context, name string) error {
	return f.call("RemoveNetwork", func() error { return f.Runtime.RemoveNetwork(ctx, name) })
}

func (f *failing) Run(ctx context.Context, spec runtime.ContainerSpec) (c runtime.Container, err error) {
	err = f.call("Run", func() error { c, err = f.Runtime.Run(ctx, spec); return err })
	return c, err
}

func (f *failing) RemoveContainer(ctx context.Context, name string) error {
	return f.call("RemoveContainer", func() error { return f.Runtime.RemoveContainer(ctx, name) })
}

func (f *failing) Exec(ctx context.Context, name string, spec runtime.ExecSpec) (s runtime.ExitStatus, err error) {
	err = f.call("Exec", func() error { s, err = f.Runtime.Exec(ctx, name, spec); return err })
	return s, err
}

func (f *failing) CopyTo(ctx context.Context, name, dir string, archive io.Reader) error {
	return f.call("CopyTo", func() error { return f.Runtime.CopyTo(ctx, name, dir, archive) })
}

func (f *failing) CopyFrom(ctx context.Context, name, path string) (r io.ReadCloser, err error) {
	err = f.call("CopyFrom", func() error { r, err = f.Runtime.CopyFrom(ctx, name, path); return err })
	return r, err
}

// TestALaunchEndedAtAnyMomentLeavesNothing ends the context at the k-th call.
func TestALaunchEndedAtAnyMomentLeavesNothing(t *testing.T) {
	interrupt := errors.New("interrupted")
	for k := 1; ; k++ {
		b := wholeBench(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		var mu sync.Mutex
		n := 0
		b.SetFault(func(string, string) error {
			mu.Lock()
			defer mu.Unlock()
			if n++; n == k {
				cancel(interrupt)
			}
			return nil
		})
		bottle, err := b.launch(ctx, wholeText, core.Wishes{})
		mu.Lock()
		reached := n >= k
		mu.Unlock()
		if !reached {
			if err != nil {
				t.Fatal(err)
			}
			must(t, bottle.Close(t.Context()))
			break
		}
		if err == nil {
			// It was the last call.
			must(t, bottle.Close(t.Context()))
		} else if !errors.Is(err, interrupt) && !errors.Is(err, context.Canceled) || core.KindOf(err) != core.KindInterrupted {
			t.Errorf("call %d: %v (%s)", k, err, core.KindOf(err))
		}
		b.empty()
	}
}

func TestWhatCannotBeRemovedIsReportedBesideTheLaunchsOwnError(t *testing.T) {
	b := wholeBench(t)
	stuck := errors.New("device or resource busy")
	b.SetFault(func(op, _ string) error {
		switch op {
		case "CopyTo":
			return errBoom
		case "RemoveContainer", "RemoveNetwork":
			return stuck
		}
		return nil
	})
	plan, secrets := b.plan(wholeText, core.Wishes{})
	// Further attempts would fail as well.
	hurry := make(chan struct{})
	close(hurry)
	_, err := core.Launch(t.Context(), b.rt, plan, core.LaunchOptions{Secrets: secrets, Teardown: core.Hurry(context.Background(), hurry)})
	var launch *core.LaunchError
	if !errors.As(err, &launch) || !errors.Is(launch.Err, errBoom) || !errors.Is(launch.Teardown, stuck) {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{"remove agent container", "remove internal network", "remove egress network", "bottle-coder-one"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("the error does not name %q:\n%v", part, err)
		}
	}
	if first, _, _ := strings.Cut(err.Error(), "\n"); !strings.Contains(first, "boom") {
		t.Errorf("the launch's own error does not come first:\n%v", err)
	}
}

const small = "bottles:\n  b: {image: img, workspace: false}\nagents:\n  robot: {bottle: b}\n"

func TestNamesThatAreTaken(t *testing.T) {
	b := newBench(t, nil)
	var names []string
	for range 3 {
		bottle, err := b.launch(t.Context(), small, core.Wishes{})
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, bottle.Name)
	}
	if want := []string{"robot", "robot-2", "robot-3"}; !slices.Equal(names, want) {
		t.Errorf("names %q, want %q", names, want)
	}
	before := b.holds()
	_, err := b.launch(t.Context(), small, core.Wishes{Name: "robot-2"})
	if core.KindOf(err) != core.KindName || !strings.Contains(err.Error(), "bottle rm robot-2") {
		t.Errorf("a pinned name that is taken: %v", err)
	}
	if after := b.holds(); !slices.Equal(before, after) {
		t.Errorf("from %q to %q", before, after)
	}
	if bottle, err := b.launch(t.Context(), small, core.Wishes{Name: "mine"}); err != nil || bottle.Name != "mine" {
		t.Errorf("a pinned name that is free: %v", err)
	}
}

func TestOfTwoLaunchesAtTheSameInstantEachHasItsOwnNameTwentyTimes(t *testing.T) {
	b := newBench(t, nil)
	for round := range 20 {
		two := func(wishes core.Wishes) (bottles []*core.Bottle, errs []error) {
			bottles, errs = make([]*core.Bottle, 2), make([]error, 2)
			var racing sync.WaitGroup
			for i := range 2 {
				racing.Go(func() { bottles[i], errs[i] = b.launch(t.Context(), small, wishes) })
			}
			racing.Wait()
			return bottles, errs
		}
		bottles, errs := two(core.Wishes{})
		must(t, errors.Join(errs...))
		names := []string{bottles[0].Name, bottles[1].Name}
		if slices.Sort(names); !slices.Equal(names, []string{"robot", "robot-2"}) {
			t.Errorf("round %d: names %q", round, names)
		}
		pinned, errs := two(core.Wishes{Name: "mine"})
		lost := slices.IndexFunc(errs, func(err error) bool { return err != nil })
		if lost < 0 || errs[1-lost] != nil || pinned[1-lost].Name != "mine" || core.KindOf(errs[lost]) != core.KindName || !strings.Contains(errs[lost].Error(), "bottle rm mine") {
			t.Fatalf("round %d: of a pinned name: %v", round, errs)
		}
		must(t, errors.Join(bottles[0].Close(t.Context()), bottles[1].Close(t.Context()), pinned[1-lost].Close(t.Context())))
		b.empty()
	}
}

func TestANameThatSomethingElseHasIsSteppedOver(t *testing.T) {
	b := newBench(t, nil)
	b.AddForeign("containers", "bottle-robot")
	b.AddForeign("networks", "bottle-robot-2.internal")
	bottle, err := b.launch(t.Context(), small, core.Wishes{})
	if err != nil || bottle.Name != "robot-3" {
		t.Fatalf("got %+v, %v", bottle, err)
	}
	if _, err := b.launch(t.Context(), small, core.Wishes{Name: "robot"}); core.KindOf(err) != core.KindName {
		t.Errorf("pinned: %v", err)
	}
	must(t, bottle.Close(t.Context()))
	if left := b.holds(); len(left) != 2 {
		t.Errorf("left: %q", left)
	}
}

func TestLaunchesThatRaceForANameAllSucceed(t *testing.T) {
	b := newBench(t, nil)
	plan, secrets := b.plan(small, core.Wishes{})
	const n = 8
	var wg sync.WaitGroup
	var mu sync.Mutex
	names := map[string]bool{}
	for range n {
		wg.Go(func() {
			bottle, err := core.Launch(t.Context(), b.rt, plan, core.LaunchOptions{Secrets: secrets})
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			names[bottle.Name] = true
			mu.Unlock()
		})
	}
	wg.Wait()
	if len(names) != n {
		t.Errorf("%d names: %v", len(names), names)
	}
}

func TestImagesAreBuiltOnceForOneContent(t *testing.T) {
	b := wholeBench(t)
	builds := func() int {
		n := 0
		for _, c := range b.Calls() {
			if c.Op == "BuildImage" {
				n++
			}
		}
		return n
	}
	run := func(text string, wishes core.Wishes) {
		t.Helper()
		bottle, err := b.launch(t.Context(), text, wishes)
		if err != nil {
			t.Fatal(err)
		}
		must(t, bottle.Close(t.Context()))
	}
	for _, step := range []struct {
		name   string
		change func()
		text   string
		wishes core.Wishes
		builds int
	}{
		{"the first launch", func() {}, wholeText, core.Wishes{}, 1},
		{"nothing changed", func() {}, wholeText, core.Wishes{}, 1},
		{"only a time changed", func() { b.write("image/Dockerfile", "FROM img\nLABEL x=y\nCMD [\"/bin/agent\"]\n") }, wholeText, core.Wishes{}, 1},
		{"a file of the context changed", func() { b.write("image/data", "1") }, wholeText, core.Wishes{}, 2},
		{"its mode changed", func() { must(t, os.Chmod(filepath.Join(b.dir, "image/data"), 0o755)) }, wholeText, core.Wishes{}, 3},
		{"an ignored file changed", func() { b.write("image/.dockerignore", "junk\n.dockerignore\n"); b.write("image/junk", "1") }, wholeText, core.Wishes{}, 3},
		{"an argument changed", func() {}, strings.Replace(wholeText, "plain", "spicy", 1), core.Wishes{}, 4},
		{"a build was asked for", func() {}, wholeText, core.Wishes{NoCache: true}, 5},
	} {
		step.change()
		run(step.text, step.wishes)
		if got := builds(); got != step.builds {
			t.Errorf("%s: %d builds, want %d", step.name, got, step.builds)
		}
	}
}

func TestWhatTheEngineCannotDoIsRefusedBeforeAnythingIsMade(t *testing.T) {
	for name, text := range map[string]string{
		"a limit":        strings.Replace(small, "img,", "img, limits: {memory: 1GiB},", 1),
		"an OCI runtime": strings.Replace(small, "img,", "img, oci_runtime: runsc,", 1),
	} {
		b := newBench(t, nil)
		b.SetInfo(func(i *runtime.Info) {
			i.Missing = map[runtime.Feature]string{runtime.FeatureMemoryLimit: "cgroups are read-only"}
		})
		_, err := b.launch(t.Context(), text, core.Wishes{})
		if core.KindOf(err) != core.KindUnsupported {
			t.Errorf("%s: %v", name, err)
		}
		for _, c := range b.Calls() {
			if c.Op == "CreateNetwork" || c.Op == "Run" {
				t.Errorf("%s: %s was called", name, c.Op)
			}
		}
	}
}

func TestErrorsHaveTheKindOfWhatFailed(t *testing.T) {
	unavailable := fmt.Errorf("no answer: %w", errdefs.ErrUnavailable)
	for name, test := range map[string]struct {
		text  string
		fault func(op, object string) error
		kind  core.Kind
	}{
		"an image that is nowhere": {strings.Replace(small, "img", "nowhere", 1), nil, core.KindImage},
		"an engine that goes away": {small, func(op, _ string) error {
			if op == "Run" {
				return unavailable
			}
			return nil
		}, core.KindEngine},
		"a container that fails": {small, func(op, _ string) error {
			if op == "Run" {
				return errBoom
			}
			return nil
		}, core.KindLaunch},
		"a user that the image lacks": {strings.Replace(small, "img,", "img, user: nobody-here,", 1), nil, core.KindLaunch},
	} {
		b := newBench(t, nil)
		b.SetFault(test.fault)
		_, err := b.launch(t.Context(), test.text, core.Wishes{})
		if err == nil || core.KindOf(err) != test.kind {
			t.Errorf("%s: %v (%s)", name, err, core.KindOf(err))
		}
		b.SetFault(nil)
		b.empty()
	}
}

func TestABottleIsFoundAgainByItsName(t *testing.T) {
	b := wholeBench(t)
	launched, err := b.launch(t.Context(), wholeText, core.Wishes{})
	if err != nil {
		t.Fatal(err)
	}
	must(t, launched.Detach())
	must(t, launched.Close(t.Context()))
	if len(b.holds()) != 3 {
		t.Fatalf("a detached bottle was closed: %q", b.holds())
	}
	list, err := core.List(t.Context(), b.rt)
	if err != nil || len(list) != 1 || list[0].Name != "coder-one" || list[0].Agent != "Coder_One" || list[0].State != "running" {
		t.Fatalf("the list: %+v, %v", list, err)
	}
	if _, err := core.Open(t.Context(), b.rt, "other", nil); core.KindOf(err) != core.KindNotFound || !strings.Contains(err.Error(), "coder-one") {
		t.Errorf("another name: %v", err)
	}
	found, err := core.Open(t.Context(), b.rt, "coder-one", nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if status, err := found.Exec(t.Context(), core.ExecOptions{Stdout: &out}); err != nil || status.Code != 0 || out.String() != "hidden-2" {
		t.Errorf("the agent's command: %q, %v, %v", out.String(), status, err)
	}
	must(t, found.Close(t.Context()))
	b.empty()
}

func TestABrokenBottleIsListedAndCanBeClosed(t *testing.T) {
	b := newBench(t, nil)
	bottle, err := b.launch(t.Context(), small, core.Wishes{})
	if err != nil {
		t.Fatal(err)
	}
	must(t, bottle.Detach())
	must(t, b.RemoveContainer(t.Context(), "bottle-robot"))
	list, err := core.List(t.Context(), b.rt)
	if err != nil || len(list) != 1 || list[0].State != core.StateBroken {
		t.Fatalf("the list: %+v, %v", list, err)
	}
	found, err := core.Open(t.Context(), b.rt, "robot", nil)
	if err != nil {
		t.Fatal(err)
	}
	must(t, found.Close(t.Context()))
	b.empty()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}
