package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

// run is a RUN instruction of the probe.
func run(args ...string) string {
	quoted := make([]string, len(args)+1)
	for i, a := range append([]string{probe.Path}, args...) {
		quoted[i] = fmt.Sprintf("%q", a)
	}
	return "RUN [" + strings.Join(quoted, ", ") + "]"
}

var buildTests = []Test{
	{
		Name: "build/from-a-local-image",
		Doc:  "An image is built from one that is on the engine alone, with COPY; it is tagged, labelled and run.",
		Run:  buildLocal,
	},
	{
		Name: "build/run-steps", Kernel: true,
		Doc: "RUN executes, and what it wrote is in the image.",
		Run: buildRun,
	},
	{
		Name: "build/multi-stage-and-copy-from",
		Doc:  "Stages build on each other, COPY --from takes files of a stage and of an image, and Target ends early.",
		Run:  buildStages,
	},
	{
		Name: "build/arg-and-env",
		Doc:  "ARG has its default or the value given, and ENV what is made of it.",
		Run:  buildArgs,
	},
	{
		Name: "build/user-entrypoint-workdir-label", Kernel: true,
		Doc: "USER, WORKDIR, ENTRYPOINT, CMD, STOPSIGNAL and LABEL are in the image and hold in its containers.",
		Run: buildConfig,
	},
	{
		Name: "build/dockerignore",
		Doc:  ".dockerignore leaves out what it names and keeps its exceptions; NAME.dockerignore goes before it.",
		Run:  buildIgnore,
	},
	{
		Name: "build/dockerfile-elsewhere",
		Doc:  "The Dockerfile may have another name, lie in a subdirectory, or outside of the context.",
		Run:  buildElsewhere,
	},
	{
		Name: "build/heredoc", Kernel: true, Features: []runtime.Feature{runtime.FeatureHeredoc},
		Doc: "A heredoc makes a file.",
		Run: buildHeredoc,
	},
	{
		Name: "build/symlinks-and-modes", Kernel: true,
		Doc: "COPY keeps modes and symbolic links of the context, and the context's links out of it are not followed.",
		Run: buildContextFiles,
	},
	{
		Name: "build/failing-step", Kernel: true,
		Doc: "A step that fails gives an error that names the step and ends with its output; nothing is left.",
		Run: buildFails,
	},
	{
		Name: "build/mistakes",
		Doc:  "An unknown instruction, a missing file, a missing base image, a missing Dockerfile and a missing stage are errors that name what is missing.",
		Run:  buildMistakes,
	},
	{
		Name: "build/progress", Kernel: true,
		Doc: "Progress comes as lines while the build goes on, with the output of its steps.",
		Run: buildProgress,
	},
	{
		Name: "build/cancelled", Kernel: true,
		Doc: "A build whose context ends returns soon with the context's error, and leaves no image, no container and no process.",
		Run: buildCancelled,
	},
	{
		Name: "build/cached", Kernel: true,
		Doc: "A second build of the same runs no step again, a changed file does, and NoCache runs them all.",
		Run: buildCached,
	},
	{
		Name: "build/no-network", Kernel: true,
		Doc: "With NoNetwork a step has loopback alone.",
		Run: buildNoNetwork,
	},
	{
		Name: "build/several-tags",
		Doc:  "An image gets every tag asked for.",
		Run:  buildTags,
	},
	{
		Name: "build/four-at-once", Timeout: 2 * DefaultTimeout,
		Doc: "Four builds at once do not disturb each other.",
		Run: buildParallel,
	},
}

// output runs an image and returns what it writes.
func (e *Env) output(ctx context.Context, image string, command ...string) (string, error) {
	out, err := e.Exited(ctx, runtime.ContainerSpec{Image: image, Command: command})
	if err == nil && out.Code != 0 {
		err = failed("image %s, %q: expected exit status 0, got %d %s", image, command, out.Code, out.Stderr)
	}
	return out.Stdout, err
}

// holds checks files of an image, by copying them from a container of it.
func (e *Env) holds(ctx context.Context, image string, want map[string]string) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Image: image, Entrypoint: []string{probe.Path, "sleep"}})
	if err != nil {
		return err
	}
	for name, content := range want {
		got, err := b.copied(ctx, name)
		if err != nil {
			return err
		}
		if g := string(got[filepath.Base(name)].content); g != content {
			return failed("%s in image %s: expected %q, got %q", name, image, content, g)
		}
	}
	return e.Runtime.RemoveContainer(ctx, b.ID)
}

// lacks checks that an image has no such files.
func (e *Env) lacks(ctx context.Context, image string, names ...string) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Image: image, Entrypoint: []string{probe.Path, "sleep"}})
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := b.copied(ctx, name); !errdefs.IsNotFound(err) {
			return failed("%s in image %s: expected it not to be there, got %w", name, image, err)
		}
	}
	return e.Runtime.RemoveContainer(ctx, b.ID)
}

func buildLocal(ctx context.Context, e *Env) error {
	ref := e.Ref("local")
	labels := map[string]string{LabelRun: e.suite.name, "colour": "red=ø"}
	img, err := e.build(ctx, map[string]string{"Dockerfile": "FROM " + e.Image + "\nCOPY greeting /data/\nCOPY dir /data/dir\n", "greeting": "hello", "dir/sub/file": "deep"},
		runtime.BuildSpec{Tags: []string{ref}, Labels: labels})
	if err != nil {
		return err
	}
	if !hasTag(img, ref) || img.Labels["colour"] != "red=ø" || img.Labels[runtime.LabelManaged] != "true" {
		return failed("expected tag %s, the labels given and %s, got %+v", ref, runtime.LabelManaged, img)
	}
	seen, err := e.Runtime.InspectImage(ctx, ref)
	if err != nil {
		return err
	}
	listed, err := e.Runtime.ListImages(ctx, runtime.Filter{Labels: labels})
	if err != nil {
		return err
	}
	if seen.ID != img.ID || len(listed) != 1 || listed[0].ID != img.ID {
		return failed("expected image %s by inspection and in the list, got %s and %+v", img.ID, seen.ID, listed)
	}
	return e.holds(ctx, ref, map[string]string{"/data/greeting": "hello", "/data/dir/sub/file": "deep"})
}

func buildRun(ctx context.Context, e *Env) error {
	img, err := e.build(ctx, map[string]string{
		"Dockerfile": "FROM " + e.Image + "\n" + run("write", "/data/one", "1") + "\n" + run("mkdir", "/data/dir") + "\n" + run("write", "/data/dir/two", "2") + "\n",
	}, runtime.BuildSpec{})
	if err != nil {
		return err
	}
	return e.holds(ctx, img.ID, map[string]string{"/data/one": "1", "/data/dir/two": "2"})
}

func buildStages(ctx context.Context, e *Env) error {
	files := map[string]string{
		"Dockerfile": "FROM " + e.Image + " AS first\nCOPY a /a\n" +
			"FROM first AS second\nCOPY b /b\n" +
			"FROM scratch\nCOPY --from=second /a /b /out/\nCOPY --from=0 /a /zero\nCOPY --from=" + e.Image + " " + probe.Path + " " + probe.Path + "\n" +
			"ENTRYPOINT [\"" + probe.Path + "\"]\n",
		"a": "A", "b": "B",
	}
	img, err := e.build(ctx, files, runtime.BuildSpec{})
	if err != nil {
		return err
	}
	if err := first(
		e.holds(ctx, img.ID, map[string]string{"/out/a": "A", "/out/b": "B", "/zero": "A"}), e.lacks(ctx, img.ID, "/a", "/b"),
	); err != nil {
		return err
	}
	img, err = e.build(ctx, files, runtime.BuildSpec{Target: "first"})
	if err != nil {
		return err
	}
	return first(e.holds(ctx, img.ID, map[string]string{"/a": "A"}), e.lacks(ctx, img.ID, "/b", "/out"))
}

func buildArgs(ctx context.Context, e *Env) error {
	files := map[string]string{
		"Dockerfile": "ARG BASE=none\nFROM ${BASE}\nARG GIVEN=default\nARG LEFT=default\nENV SEEN=$GIVEN-${LEFT} PLAIN=x\n",
	}
	img, err := e.build(ctx, files, runtime.BuildSpec{Args: map[string]string{"BASE": e.Image, "GIVEN": "value = with spaces"}})
	if err != nil {
		return err
	}
	out, err := e.output(ctx, img.ID, "env")
	if err != nil {
		return err
	}
	return sameEnv(out, map[string]string{"SEEN": "value = with spaces-default", "PLAIN": "x", "FROM_IMAGE": "yes"},
		map[string]bool{"PATH": true, "HOME": true, "HOSTNAME": true, "TERM": true, "container": true})
}

func buildConfig(ctx context.Context, e *Env) error {
	img, err := e.build(ctx, map[string]string{
		"Dockerfile": "FROM " + e.Image + "\nUSER " + probeUser + "\nWORKDIR /work\nENTRYPOINT [\"" + probe.Path + "\", \"id\"]\nCMD [\"ignored\"]\n" +
			"STOPSIGNAL SIGUSR2\nLABEL shape=\"round one\"\n",
	}, runtime.BuildSpec{})
	if err != nil {
		return err
	}
	c := img.Config
	if c.User != probeUser || c.WorkDir != "/work" || c.StopSignal != "SIGUSR2" || !slices.Equal(c.Cmd, []string{"ignored"}) || img.Labels["shape"] != "round one" {
		return failed("expected the Dockerfile's configuration, got %+v, labels %q", c, img.Labels)
	}
	b, err := e.Runtime.Run(ctx, runtime.ContainerSpec{Name: e.Name("box"), Image: img.ID, Labels: e.Labels()})
	if err != nil {
		return err
	}
	e.Cleanup(func(ctx context.Context) error { return e.Runtime.RemoveContainer(ctx, b.ID) })
	if _, err := e.Runtime.Wait(ctx, b.ID); err != nil {
		return err
	}
	out, err := (&Box{b, e}).Logs(ctx)
	if err != nil {
		return err
	}
	return check(strings.Contains(out.Stdout, fmt.Sprintf(`"UID":%d`, probeUID)) && strings.Contains(out.Stdout, `"Dir":"/work"`),
		"expected user %d in /work, got %q %q", probeUID, out.Stdout, out.Stderr)
}

func buildIgnore(ctx context.Context, e *Env) error {
	files := map[string]string{
		"Dockerfile": "FROM " + e.Image + "\nCOPY . /ctx/\n", "Other": "FROM " + e.Image + "\nCOPY . /ctx/\n",
		".dockerignore": "# comment\nsecret\n*.log\n!kept.log\ndir/*\n!dir/kept\n**/deep.tmp\n", "Other.dockerignore": "kept.log\n",
		"secret": "s", "a.log": "l", "kept.log": "k", "dir/gone": "g", "dir/kept": "k", "x/y/deep.tmp": "t", "x/y/stays": "y",
	}
	img, err := e.build(ctx, files, runtime.BuildSpec{})
	if err != nil {
		return err
	}
	if err := first(
		e.holds(ctx, img.ID, map[string]string{"/ctx/kept.log": "k", "/ctx/dir/kept": "k", "/ctx/x/y/stays": "y"}),
		e.lacks(ctx, img.ID, "/ctx/secret", "/ctx/a.log", "/ctx/dir/gone", "/ctx/x/y/deep.tmp"),
	); err != nil {
		return err
	}
	if img, err = e.build(ctx, files, runtime.BuildSpec{Dockerfile: "Other"}); err != nil {
		return err
	}
	return first(e.holds(ctx, img.ID, map[string]string{"/ctx/secret": "s"}), e.lacks(ctx, img.ID, "/ctx/kept.log"))
}

func buildElsewhere(ctx context.Context, e *Env) error {
	outside, err := e.Context(map[string]string{"My.Dockerfile": "FROM " + e.Image + "\nCOPY file /from-outside\n"})
	if err != nil {
		return err
	}
	files := map[string]string{"file": "content", "sub/Name": "FROM " + e.Image + "\nCOPY file /from-sub\n"}
	for dockerfile, made := range map[string]string{"sub/Name": "/from-sub", filepath.Join(outside, "My.Dockerfile"): "/from-outside"} {
		img, err := e.build(ctx, files, runtime.BuildSpec{Dockerfile: dockerfile})
		if err != nil {
			return failed("Dockerfile %s: %w", dockerfile, err)
		}
		if err := e.holds(ctx, img.ID, map[string]string{made: "content"}); err != nil {
			return err
		}
	}
	return nil
}

func buildHeredoc(ctx context.Context, e *Env) error {
	img, err := e.build(ctx, map[string]string{"Dockerfile": "FROM " + e.Image + "\nCOPY <<END /greeting\nhello\n  there\nEND\n"}, runtime.BuildSpec{})
	if err != nil {
		return err
	}
	return e.holds(ctx, img.ID, map[string]string{"/greeting": "hello\n  there\n"})
}

func buildContextFiles(ctx context.Context, e *Env) error {
	host, err := e.Context(map[string]string{"secret": "HOST"})
	if err != nil {
		return err
	}
	dir, err := e.Context(map[string]string{"Dockerfile": "FROM " + e.Image + "\nCOPY dir /dir\n", "dir/script": "#!", "dir/private": "p"})
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.Chmod(filepath.Join(dir, "dir/script"), 0o755), os.Chmod(filepath.Join(dir, "dir/private"), 0o640), //nolint:gosec // the modes are what is tested
		os.Symlink("script", filepath.Join(dir, "dir/link")), os.Symlink(host, filepath.Join(dir, "dir/out")),
	); err != nil {
		return err
	}
	ref := e.Ref("files")
	e.removeImage(ref)
	if _, err := e.Runtime.BuildImage(ctx, runtime.BuildSpec{ContextDir: dir, Tags: []string{ref}, Labels: e.Labels()}); err != nil {
		return err
	}
	out, err := e.output(ctx, ref, "stat", "/dir/script", "/dir/private", "/dir/link", "/dir/out")
	if err != nil {
		return err
	}
	files, err := filesIn(out)
	if err != nil {
		return err
	}
	return check(files["/dir/script"].Mode == 0o755 && files["/dir/private"].Mode == 0o640 && files["/dir/script"].UID == 0 &&
		files["/dir/link"].Link == "script" && files["/dir/out"].Type == "link", "expected modes and links of the context, got %+v", files)
}

func buildFails(ctx context.Context, e *Env) error {
	mark := e.Token()
	var progress bytes.Buffer
	tag := e.Ref("failing")
	_, err := e.build(ctx, map[string]string{
		"Dockerfile": "FROM " + e.Image + "\n" + run("write", "/data/x", "x") + "\n" + run("complain", mark, "42") + "\n",
	}, runtime.BuildSpec{Tags: []string{tag}, Progress: &progress})
	if err == nil {
		return failed("build with a step that fails: expected an error, but it succeeded")
	}
	text := err.Error()
	for _, part := range []string{"complain", mark + " to stdout", mark + " to stderr", "42"} {
		if !strings.Contains(text, part) {
			return failed("build with a step that fails: expected %q in the error, got %q", part, text)
		}
	}
	_, err = e.Runtime.InspectImage(ctx, tag)
	return kind(err, errdefs.IsNotFound, "NotFound", "inspect an image whose build failed")
}

func buildMistakes(ctx context.Context, e *Env) error {
	for _, c := range []struct {
		what, dockerfile, named string
		spec                    runtime.BuildSpec
		want                    func(error) bool
	}{
		{"an unknown instruction", "FROM " + e.Image + "\nFETCH x\n", "FETCH", runtime.BuildSpec{}, nil},
		{"a missing file", "FROM " + e.Image + "\nCOPY no-such-file /x\n", "no-such-file", runtime.BuildSpec{}, nil},
		{"a missing base image", "FROM localhost/no-such-image:1\n", "no-such-image", runtime.BuildSpec{}, nil},
		{"a missing Dockerfile", "FROM " + e.Image + "\n", "Elsewhere", runtime.BuildSpec{Dockerfile: "Elsewhere"}, errdefs.IsNotFound},
		{"a missing stage", "FROM " + e.Image + " AS one\n", "two", runtime.BuildSpec{Target: "two"}, nil},
	} {
		_, err := e.build(ctx, map[string]string{"Dockerfile": c.dockerfile}, c.spec)
		switch {
		case err == nil:
			return failed("build with %s: expected an error, but it succeeded", c.what)
		case !strings.Contains(err.Error(), c.named):
			return failed("build with %s: expected %q in the error, got %q", c.what, c.named, err)
		case c.want != nil && !c.want(err):
			return failed("build with %s: expected NotFound, got %w", c.what, err)
		}
	}
	return nil
}

func buildProgress(ctx context.Context, e *Env) error {
	mark := e.Token()
	progress := &lineWriter{seen: make(chan struct{}), want: mark}
	done := make(chan error, 1)
	go func() {
		_, err := e.build(ctx, map[string]string{
			"Dockerfile": "FROM " + e.Image + "\n" + run("echo", "first of all\n"+mark) + "\n" + run("sleep", "4s") + "\n",
		}, runtime.BuildSpec{Progress: progress, NoCache: true})
		done <- err
	}()
	// A builder may put something before the line.
	if err := poll(ctx, patience, func(context.Context) error {
		for line := range strings.Lines(progress.text()) {
			if strings.HasSuffix(strings.TrimSpace(line), mark) && !strings.Contains(line, "RUN") {
				return nil
			}
		}
		return failed("expected a line of a step's output in the progress, got %q", progress.text())
	}); err != nil {
		return errors.Join(err, <-done)
	}
	select {
	case err := <-done:
		return failed("the output came after the build's end only: %v", err)
	default:
	}
	return <-done
}

func buildCancelled(ctx context.Context, e *Env) error {
	mark := e.Token()
	tag := e.Ref("cancelled")
	progress := &lineWriter{seen: make(chan struct{}), want: mark}
	buildCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := e.build(buildCtx, map[string]string{
			"Dockerfile": "FROM " + e.Image + "\n" + run("say-and-sleep", mark, "1h") + "\n",
		}, runtime.BuildSpec{Tags: []string{tag}, Progress: progress, NoCache: true})
		done <- err
	}()
	if err := poll(ctx, patience, func(context.Context) error {
		for line := range strings.Lines(progress.text()) {
			if strings.Contains(line, mark+" ready") {
				return nil
			}
		}
		return failed("expected the step's output, got %q", progress.text())
	}); err != nil {
		cancel()
		return errors.Join(err, <-done)
	}
	cancel()
	began := time.Now()
	err := <-done
	if took := time.Since(began); took > patience {
		return failed("expected the build to end soon after its context, it took %s", took)
	}
	if err := kind(err, func(err error) bool { return errors.Is(err, context.Canceled) }, "the context's error", "cancel a build"); err != nil {
		return err
	}
	_, err = e.Runtime.InspectImage(ctx, tag)
	return kind(err, errdefs.IsNotFound, "NotFound", "inspect an image whose build was cancelled")
}

func buildCached(ctx context.Context, e *Env) error {
	mark := e.Token()
	// A step whose result differs each time that it is run.
	files := map[string]string{"Dockerfile": "FROM " + e.Image + "\nCOPY input /data/input\n" + run("stamp", "/data/stamp", mark) + "\n", "input": "1"}
	stamp := func(spec runtime.BuildSpec) (string, error) {
		img, err := e.build(ctx, files, spec)
		if err != nil {
			return "", err
		}
		return e.output(ctx, img.ID, "read", "/data/stamp")
	}
	one, err := stamp(runtime.BuildSpec{})
	if err != nil {
		return err
	}
	two, err := stamp(runtime.BuildSpec{})
	if err != nil {
		return err
	}
	if one != two {
		return failed("a second build of the same: expected the step not to be run again, got stamps %q and %q", one, two)
	}
	three, err := stamp(runtime.BuildSpec{NoCache: true})
	if err != nil {
		return err
	}
	if three == one {
		return failed("a build with NoCache: expected the step to be run again, got stamp %q twice", three)
	}
	files["input"] = "2"
	four, err := stamp(runtime.BuildSpec{})
	if err != nil {
		return err
	}
	return check(four != one && four != three, "a build of a changed file: expected the step to be run again, got stamp %q", four)
}

func buildNoNetwork(ctx context.Context, e *Env) error {
	img, err := e.build(ctx, map[string]string{
		"Dockerfile": "FROM " + e.Image + "\n" + run("save", "/data/links", "ifaces") + "\n",
	}, runtime.BuildSpec{NoNetwork: true, NoCache: true})
	if err != nil {
		return err
	}
	out, err := e.output(ctx, img.ID, "loopback-alone", "/data/links")
	if err != nil {
		return err
	}
	return check(strings.TrimSpace(out) == "true", "expected a step with loopback alone, got %s", out)
}

func buildTags(ctx context.Context, e *Env) error {
	tags := []string{e.Ref("tag-one"), e.Ref("tag-two"), strings.TrimSuffix(e.Ref("tag-three"), ":1") + ":v2.x"}
	img, err := e.build(ctx, map[string]string{"Dockerfile": "FROM " + e.Image + "\nCOPY Dockerfile /\n"}, runtime.BuildSpec{Tags: tags})
	if err != nil {
		return err
	}
	for _, tag := range tags {
		seen, err := e.Runtime.InspectImage(ctx, tag)
		if err != nil {
			return err
		}
		if seen.ID != img.ID || !hasTag(seen, tag) {
			return failed("expected image %s under tag %s, got %+v", img.ID, tag, seen)
		}
	}
	return nil
}

func buildParallel(ctx context.Context, e *Env) error {
	const many = 4
	errs := make([]error, many)
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			mark := fmt.Sprint("mark ", i)
			img, err := e.build(ctx, map[string]string{"Dockerfile": "FROM " + e.Image + "\nCOPY mark /data/mark\n", "mark": mark}, runtime.BuildSpec{})
			if err == nil {
				err = e.holds(ctx, img.ID, map[string]string{"/data/mark": mark})
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return first(errs...)
}
