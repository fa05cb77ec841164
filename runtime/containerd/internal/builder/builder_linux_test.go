package builder

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"github.com/bottle-run/bottle/runtime"
)

func TestAnImageIsBuiltAndTheSecondTimeFromTheCache(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	files := from(
		"RUN echo one > /one && echo said",
		"COPY hello /hello",
		"RUN cat /one /hello > /both && cat /both",
	)
	files["hello"] = "two\n"
	dir := write(t, files)
	spec := runtime.BuildSpec{ContextDir: dir, Tags: []string{"made:1", "example.com/made:2"}, Labels: map[string]string{"a.b": "c"}}
	r, out, err := w.build(b, spec)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, out, "said\n", "[2/4] RUN echo one", "one\ntwo\n")
	if got := fmt.Sprint(r.Names); got != "[docker.io/library/made:1 example.com/made:2]" {
		t.Errorf("names %s", got)
	}
	if config := w.config("docker.io/library/made:1"); config.Config.Labels["a.b"] != "c" || config.Config.Labels[runtime.LabelManaged] != "true" {
		t.Errorf("labels %v", config.Config.Labels)
	}
	img, err := w.client.ImageService().Get(w.ctx(), "example.com/made:2")
	if err != nil || img.Target.Digest != r.Target.Digest || img.Labels[runtime.LabelManaged] != "true" {
		t.Errorf("record %+v %v", img, err)
	}
	unpacked, err := client.NewImage(w.client, img).IsUnpacked(w.ctx(), "overlayfs")
	if err != nil || !unpacked {
		t.Errorf("unpacked: %v %v", unpacked, err)
	}
	start := time.Now()
	again, out, err := w.build(b, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("cached build: %v", time.Since(start))
	contains(t, out, "[2/4] RUN echo one > /one && echo said (cached)")
	if again.Target.Digest != r.Target.Digest {
		t.Errorf("the cached build made another image: %s, %s", r.Target.Digest, again.Target.Digest)
	}
	// And by another process, as it were.
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	second := w.builder()
	start = time.Now()
	if _, out, err = w.build(second, spec); err != nil {
		t.Fatal(err)
	}
	t.Logf("cached build of a new builder: %v", time.Since(start))
	contains(t, out, "(cached)")
	spec.NoCache = true
	if _, out, err = w.build(second, spec); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out, "RUN echo one > /one && echo said (cached)") {
		t.Error("NoCache used the cache")
	}
}

func TestADockerfileMayUseWhatBuildKitOffers(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	files := map[string]string{
		"Dockerfile": `# syntax=docker/dockerfile:1
ARG BASE=builder-base:test
FROM ${BASE} AS first
ARG WHO=nobody
RUN echo "hello $WHO" > /out
RUN <<END
echo several
echo lines >> /out
END
COPY <<END /from-heredoc
$WHO
END

FROM first AS second
ENV A=b C="d e"
COPY --from=first --chown=1000:1000 /out /from-heredoc /data/
COPY . /context/
WORKDIR /work
USER app
RUN id -un && ls -ln /data && find /context -type f | sort
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["echo hi"]
EXPOSE 80
STOPSIGNAL SIGINT

FROM builder-base:test
RUN echo not built
`,
		".dockerignore": "*.log\nsecret\n!keep.log\n",
		"a.log":         "", "keep.log": "", "secret/key": "", "dir/file": "",
	}
	_, out := w.must(b, files, runtime.BuildSpec{Target: "second", Args: map[string]string{"WHO": "me"}})
	contains(t, out, "several\n", "app\n", "1000", "/context/dir/file\n", "/context/keep.log\n")
	for _, not := range []string{"/context/a.log", "/context/secret", "not built"} {
		if strings.Contains(out, not) {
			t.Errorf("%q is in the output", not)
		}
	}
	config := w.config("docker.io/library/made:1").Config
	got := fmt.Sprintln(config.Env, config.Entrypoint, config.Cmd, config.User, config.WorkingDir, config.StopSignal)
	if want := "[PATH=/bin A=b C=d e] [/bin/sh -c] [echo hi] app /work SIGINT\n"; got != want {
		t.Errorf("configuration %s, want %s", got, want)
	}
	// What was built is a base for the next.
	_, out = w.must(b, map[string]string{"Dockerfile": "FROM made:1\nUSER 0\nRUN [\"cat\", \"/data/out\", \"/data/from-heredoc\"]\n"},
		runtime.BuildSpec{Tags: []string{"made:2"}})
	contains(t, out, "hello me\nlines\nme\n")
}

func TestStagesMayHaveBaseImagesOfTheirOwn(t *testing.T) {
	if raceEnabled {
		t.Skip("NOT RUN: BuildKit's frontend resolves base images at once and sets the same flag to true from each " +
			"(frontend/dockerfile/builder/resolvecache.go), which the race detector reports")
	}
	w := newWorld(t)
	b := w.builder()
	_, out := w.must(b, map[string]string{"Dockerfile": `FROM builder-base:test AS one
RUN echo 1 > /1
FROM builder-base:test AS two
RUN echo 2 > /2
FROM builder-base:test
COPY --from=one /1 /
COPY --from=two /2 /
COPY --from=builder-base:test /etc/group /3
RUN --mount=from=one,target=/one --mount=type=cache,target=/cache cat /1 /2 /one/1 && grep -c root /3 && touch /cache/x
`}, runtime.BuildSpec{})
	contains(t, out, "1\n2\n1\n1\n")
}

func TestTheDockerfileMayLieElsewhere(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	contextDir := write(t, map[string]string{
		"Dockerfile": "FROM no-such-image:1\n", "a": "", "b": "", ".dockerignore": "a\n",
		"sub/Other": "FROM builder-base:test\nCOPY . /c\nRUN echo $(ls /c)\n", "sub/Other.dockerignore": "b\nsub\n",
	})
	outside := write(t, map[string]string{"My.Dockerfile": "FROM builder-base:test\nCOPY . /c\nRUN echo $(ls /c)\n"})
	for name, c := range map[string]struct{ dockerfile, want string }{
		"below the context, with an ignore file of its own": {"sub/Other", "Dockerfile a"},
		"outside of the context":                            {filepath.Join(outside, "My.Dockerfile"), "Dockerfile b sub"},
	} {
		t.Run(name, func(t *testing.T) {
			_, out, err := w.build(b, runtime.BuildSpec{ContextDir: contextDir, Dockerfile: c.dockerfile})
			if err != nil {
				t.Fatal(err)
			}
			contains(t, out, "\n"+c.want+"\n")
		})
	}
}

func TestWhatCannotBeBuiltIsExplained(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	for name, c := range map[string]struct {
		files map[string]string
		spec  runtime.BuildSpec
		kind  error
		say   []string
		last  string
	}{
		"a step that fails": {
			files: from("RUN for i in $(seq 30); do echo line $i; done; echo the reason; exit 3"),
			kind:  errdefs.ErrFailedPrecondition,
			say:   []string{`step "[2/2] RUN for i in`, "exit code 3", "line 30\n"},
			last:  "the reason",
		},
		"one that fails after more than is shown": {
			files: from("RUN yes | head -c 3000000; echo the reason; exit 1"),
			kind:  errdefs.ErrFailedPrecondition,
			say:   []string{"exit code 1"},
			last:  "the reason",
		},
		"one whose last line has no end and a colour": {
			files: from(`RUN printf '\033[31mred\033]0;title\007'; exit 1`),
			kind:  errdefs.ErrFailedPrecondition,
			last:  "\nred",
		},
		"one that says nothing": {
			files: from("RUN false"), kind: errdefs.ErrFailedPrecondition,
			say: []string{"RUN false"}, last: "exit code 1",
		},
		"a command that is not there": {
			files: from(`RUN ["no-such-program"]`), kind: errdefs.ErrFailedPrecondition,
			say: []string{"no-such-program"},
		},
		"a file to copy that is not there": {
			files: from("COPY nothing /"), kind: errdefs.ErrNotFound, say: []string{"COPY nothing /", "/nothing"},
		},
		"an instruction that there is not": {
			files: from("RIN true"), kind: errdefs.ErrInvalidArgument, say: []string{"line 2", "RIN"},
		},
		"an empty Dockerfile": {
			files: map[string]string{"Dockerfile": "# nothing\n"}, kind: errdefs.ErrInvalidArgument,
		},
		"a stage that there is not": {
			files: from(), spec: runtime.BuildSpec{Target: "nowhere"}, kind: errdefs.ErrInvalidArgument, say: []string{"nowhere"},
		},
		"no Dockerfile": {
			files: map[string]string{"a": ""}, kind: errdefs.ErrNotFound, say: []string{"Dockerfile"},
		},
		"no context": {
			spec: runtime.BuildSpec{ContextDir: "/no/such/directory"}, kind: errdefs.ErrNotFound, say: []string{"context", "/no"},
		},
		"a tag that is none": {
			files: from(), spec: runtime.BuildSpec{Tags: []string{"No Tag"}}, kind: errdefs.ErrInvalidArgument, say: []string{"No Tag"},
		},
		"a base image whose registry is not there": {
			files: map[string]string{"Dockerfile": "FROM localhost:1/nothing:1\n"}, kind: errdefs.ErrUnavailable,
			say: []string{"localhost:1/nothing:1", "refused"},
		},
		"the host's network": {
			files: from("RUN --network=host true"), kind: errdefs.ErrPermissionDenied, say: []string{"network.host"},
		},
		"no sandbox": {
			files: from("RUN --security=insecure true"), kind: errdefs.ErrPermissionDenied, say: []string{"security.insecure"},
		},
		"a git repository": {
			files: from("ADD https://example.com/a/b.git /b"), kind: errdefs.ErrNotImplemented, say: []string{"example.com", "git"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := w.imageNames()
			if c.files != nil {
				c.spec.ContextDir = write(t, c.files)
			}
			_, _, err := w.build(b, c.spec)
			if err == nil {
				t.Fatal("no error")
			}
			if !errors.Is(err, c.kind) {
				t.Errorf("not %v", c.kind)
			}
			contains(t, err.Error(), c.say...)
			if !strings.HasSuffix(err.Error(), c.last) {
				t.Errorf("does not end with %q", c.last)
			}
			if after := w.imageNames(); fmt.Sprint(before) != fmt.Sprint(after) {
				t.Errorf("images %v, before %v", after, before)
			}
		})
	}
}

func TestABaseImageIsPulledFromALoopbackRegistryOverHTTP(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	img, err := random.Image(1000, 1)
	if err == nil {
		p := platforms.DefaultSpec()
		img, err = mutate.ConfigFile(img, &v1.ConfigFile{OS: p.OS, Architecture: p.Architecture, RootFS: v1.RootFS{Type: "layers", DiffIDs: diffIDs(t, img)}})
	}
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(registryOf(t, "some/thing", img))
	defer server.Close()
	host := strings.TrimPrefix(server.URL, "http://")
	w.must(b, map[string]string{"Dockerfile": "FROM " + host + "/some/thing:1\nLABEL x=y\n"}, runtime.BuildSpec{})
	_, _, err = w.build(b, runtime.BuildSpec{ContextDir: write(t, map[string]string{"Dockerfile": "FROM " + host + "/some/other:1\n"})})
	if !errdefs.IsNotFound(err) {
		t.Errorf("a missing image is not NotFound: %v", err)
	}
}

func TestACancelledBuildEndsAtOnceAndLeavesNothing(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	before := w.imageNames()
	ctx, cancel := context.WithCancelCause(context.Background())
	var out lockedBuffer
	ended := make(chan error, 1)
	dir := write(t, from("RUN echo begun; sleep 1000; true"))
	go func() {
		_, err := b.Build(ctx, runtime.BuildSpec{ContextDir: dir, Tags: []string{"made:1"}, Progress: &out})
		ended <- err
	}()
	out.await(t, "\nbegun\n")
	reason := errors.New("enough")
	start := time.Now()
	cancel(reason)
	if err := <-ended; !errors.Is(err, reason) {
		t.Errorf("error %v", err)
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("it took %v", took)
	} else {
		t.Logf("cancelled in %v", took)
	}
	w.nothingIsLeft(before)
	// It goes on working.
	w.must(b, from("RUN echo again"), runtime.BuildSpec{})
}

func TestClosingEndsABuild(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	before := w.imageNames()
	var out lockedBuffer
	ended := make(chan error, 1)
	dir := write(t, from("RUN echo begun; sleep 1000; true"))
	go func() {
		_, err := b.Build(context.Background(), runtime.BuildSpec{ContextDir: dir, Tags: []string{"made:1"}, Progress: &out})
		ended <- err
	}()
	out.await(t, "\nbegun\n")
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errdefs.IsUnavailable(err) {
		t.Errorf("error %v", err)
	}
	w.nothingIsLeft(before)
	if _, _, err := w.build(b, runtime.BuildSpec{ContextDir: dir}); !errdefs.IsUnavailable(err) {
		t.Errorf("a closed builder builds: %v", err)
	}
}

func TestSeveralBuildAtOnce(t *testing.T) {
	w := newWorld(t)
	b := w.builder()
	var wg sync.WaitGroup
	for i := range 4 {
		dir := write(t, from(fmt.Sprintf("RUN echo %d && sleep 1", i), "RUN echo done"))
		wg.Go(func() {
			if _, err := b.Build(context.Background(), runtime.BuildSpec{ContextDir: dir, Tags: []string{fmt.Sprintf("made:%d", i)}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := len(w.imageNames()); n != 5 {
		t.Errorf("images %v", w.imageNames())
	}
}
