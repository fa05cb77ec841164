package podman

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/buildcontext"
)

// BuildImage implements [runtime.Images].
func (e *engine) BuildImage(ctx context.Context, spec runtime.BuildSpec) (runtime.Image, error) {
	const op = "build image"
	object := strings.Join(spec.Tags, " ")
	id, err := e.build(ctx, spec)
	var i apiImage
	if err == nil {
		i, err = e.findImage(ctx, id)
	}
	if err != nil {
		return runtime.Image{}, wrap(ctx, op, object, err)
	}
	return image(i), nil
}

// labelBuild names, on each image of a build, the first tag that it was to have:
// by it the images of its steps are found again.
const labelBuild = "dev.bottle.podman.build"

// buildTries is how often a build is begun whose step the engine itself has killed.
const buildTries = 3

// stepLost is how such a build fails. Before buildah 1.31 the OCI runtime of a step is sent
// SIGKILL when the thread that started it ends, which may be at any time
// (github.com/containers/podman/issues/17918). A step that is killed itself has status 137.
const stepLost = "while running runtime: signal: killed"

// build builds an image and returns its ID.
func (e *engine) build(ctx context.Context, spec runtime.BuildSpec) (string, error) {
	for try := 1; ; try++ {
		id, err := e.buildOnce(ctx, spec)
		if err == nil || try == buildTries || ctx.Err() != nil || !strings.Contains(err.Error(), stepLost) {
			return id, err
		}
		if _, err := fmt.Fprintln(spec.Progress, "the engine has killed the step: the build is begun again"); err != nil {
			return "", err
		}
	}
}

func (e *engine) buildOnce(ctx context.Context, spec runtime.BuildSpec) (string, error) {
	source, err := buildcontext.Open(spec.ContextDir, spec.Dockerfile)
	if err != nil {
		return "", err
	}
	if err := e.checkHeredoc(ctx, source.DockerfilePath); err != nil {
		return "", err
	}
	before, err := e.beforeBuild(ctx)
	if err != nil {
		return "", err
	}
	archive := source.Tar()
	defer archive.Close()
	query, err := buildQuery(spec, source.Dockerfile)
	if err != nil {
		return "", err
	}
	mark := newBuildMark()
	query.Set("shmsize", strconv.FormatInt(mark, 10))
	if e.local {
		done, err := noteBuild(deadBuild{Mark: mark, Tag: spec.Tags[0], Images: before.images, Containers: before.containers})
		if err != nil {
			return "", err
		}
		defer done()
	}
	e.builds.Add(1)
	defer e.builds.Add(-1)
	body := &errReader{r: archive}
	resp, err := e.do(ctx, call{
		method: http.MethodPost, path: "/build", query: query,
		header: http.Header{"Content-Type": {"application/x-tar"}}, body: body,
	})
	var id string
	if err == nil {
		out := &buildOutput{progress: spec.Progress}
		id, err = out.read(resp.Body)
		_ = resp.Body.Close()
	}
	if body.err != nil && !errors.Is(body.err, io.ErrClosedPipe) {
		err = fmt.Errorf("build context: %w", body.err)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		undo, cancel := detached(ctx)
		defer cancel()
		quiet := buildQuiet
		if ctx.Err() == nil {
			quiet = 0 // it has ended by itself
		}
		e.endBuild(undo, mark, before, quiet)
		e.removeSteps(undo, query.Get("t"), before.images)
	}
	return id, err
}

// heredoc is the beginning of one in a Dockerfile.
var heredoc = regexp.MustCompile(`(?im)^[ \t]*(?:ONBUILD[ \t]+)?(?:RUN|COPY|ADD)\b[^\n]*<<-?["']?[A-Za-z_]`)

// checkHeredoc refuses what an old buildah would misunderstand.
func (e *engine) checkHeredoc(ctx context.Context, dockerfile string) error {
	b, err := os.ReadFile(dockerfile)
	if err != nil || !heredoc.Match(b) {
		return nil // the build will say what is amiss
	}
	h, err := e.describe(ctx)
	if err != nil {
		return err
	}
	if why := missingFeatures(h)[runtime.FeatureHeredoc]; why != "" {
		return runtime.NotImplemented(runtime.FeatureHeredoc, why)
	}
	return nil
}

// buildScene is what there was before a build.
type buildScene struct{ containers, images map[string]bool }

func (e *engine) beforeBuild(ctx context.Context) (buildScene, error) {
	s := buildScene{images: map[string]bool{}}
	images, err := e.listImages(ctx, true)
	if err != nil {
		return s, err
	}
	for _, i := range images {
		s.images[i.ID] = true
	}
	s.containers, err = e.workingContainers(ctx)
	return s, err
}

// newBuildMark is a size for /dev/shm that no other build has: by it the processes
// of a build's steps are told from those of others, there being no label or
// variable that the API would give them and not the image.
func newBuildMark() int64 {
	var b [2]byte
	_, _ = rand.Read(b[:]) // never fails
	return 64<<20 + 4096*(1+int64(binary.NativeEndian.Uint16(b[:])))
}

// buildQuiet is how long nothing of a build that was given up has to be seen before it is
// over: between two of its steps the service has neither a process nor a container of it.
const buildQuiet = time.Second

// endBuild waits until the service has cleaned up after a build that was given up, and nothing
// of it has been seen for as long as quiet. The service waits itself for the step that runs, so
// that is ended first.
func (e *engine) endBuild(ctx context.Context, mark int64, before buildScene, quiet time.Duration) {
	seen := time.Now()
	for wait := 10 * time.Millisecond; ctx.Err() == nil; wait = min(wait*2, 200*time.Millisecond) {
		running := e.local && killBuild(mark)
		now, err := e.workingContainers(ctx)
		if err != nil {
			return
		}
		fresh := 0
		for id := range now {
			if !before.containers[id] {
				fresh++
			}
		}
		// Another build's containers cannot be told from this one's.
		if running || fresh > 0 && e.builds.Load() <= 1 {
			seen = time.Now()
		} else if time.Since(seen) >= quiet {
			return
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// buildQuery renders a build. RUN steps get a network of their own, not the
// host's, which is the service's default for its API.
func buildQuery(spec runtime.BuildSpec, dockerfile string) (url.Values, error) {
	labels := map[string]string{}
	for k, v := range spec.Labels {
		labels[k] = v
	}
	labels[runtime.LabelManaged] = "true"
	labels[labelBuild] = spec.Tags[0]
	q := url.Values{
		"dockerfile":   {dockerfile},
		"t":            spec.Tags,
		"layers":       {"true"},
		"rm":           {"true"},
		"forcerm":      {"true"},
		"httpproxy":    {"false"},
		"pullpolicy":   {"missing"},
		"outputformat": {"application/vnd.docker.distribution.manifest.v2+json"},
		"networkmode":  {"NetworkEnabled"},
		"nsoptions":    {`[{"Name":"network","Host":false,"Path":""}]`},
	}
	if spec.NoNetwork {
		q.Set("networkmode", "NetworkDisabled")
	}
	for name, value := range map[string]map[string]string{"labels": labels, "buildargs": spec.Args} {
		if len(value) == 0 {
			continue
		}
		b, err := json.Marshal(value)
		if err != nil {
			return nil, err
		}
		q.Set(name, string(b))
	}
	if spec.Target != "" {
		q.Set("target", spec.Target)
	}
	if spec.NoCache {
		q.Set("nocache", "true")
	}
	return q, nil
}

const (
	// keptOutput is how much of a build's output goes into an error.
	keptOutput = 4 << 10
	keptLines  = 20
)

// buildOutput reads what a build says.
type buildOutput struct {
	progress io.Writer
	step     string // the instruction that ran last
	tail     []byte // the end of its output
	last     string // the last line that is an image's id
	line     []byte // an unfinished one
}

var (
	stepLine = regexp.MustCompile(`^(?:\[\d+/\d+\] )?STEP \d+(?:/\d+)?: (.*)$`)
	idLine   = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

func (b *buildOutput) read(r io.Reader) (string, error) {
	for dec := json.NewDecoder(r); ; {
		var m struct {
			Stream string          `json:"stream"`
			Error  json.RawMessage `json:"error"`
		}
		if err := dec.Decode(&m); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return "", transportError(err)
		}
		if len(m.Error) > 0 && string(m.Error) != "null" && string(m.Error) != `""` {
			return "", b.failure(buildErrorText(m.Error))
		}
		if m.Stream != "" {
			b.note(m.Stream)
			if b.progress != nil {
				if _, err := io.WriteString(b.progress, m.Stream); err != nil {
					return "", fmt.Errorf("write the progress: %w", err)
				}
			}
		}
	}
	b.note("\n")
	if b.last == "" {
		return "", b.failure("the service ended without an image")
	}
	return b.last, nil
}

// buildErrorText is the error's text, a string or the message of an object.
func buildErrorText(raw json.RawMessage) string {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return strings.TrimSpace(text)
	}
	var object struct {
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &object) == nil && object.Message != "" {
		return strings.TrimSpace(object.Message)
	}
	return string(raw)
}

func (b *buildOutput) note(text string) {
	b.line = append(b.line, text...)
	for {
		i := bytes.IndexByte(b.line, '\n')
		if i < 0 {
			break
		}
		line := strings.TrimRight(string(b.line[:i]), "\r")
		b.line = b.line[i+1:]
		if m := stepLine.FindStringSubmatch(line); m != nil {
			b.step, b.tail = m[1], nil
			continue
		}
		if idLine.MatchString(line) {
			b.last = line
		}
		b.tail = append(append(b.tail, line...), '\n')
		if len(b.tail) > 2*keptOutput {
			b.tail = append([]byte(nil), b.tail[len(b.tail)-keptOutput:]...)
		}
	}
	if len(b.line) > 2*keptOutput {
		b.line = append([]byte(nil), b.line[len(b.line)-keptOutput:]...)
	}
}

// failure is the error of a build: the step, and the end of its output.
func (b *buildOutput) failure(text string) error {
	var kind error = errdefs.ErrFailedPrecondition
	switch {
	case strings.Contains(text, "unauthorized"), strings.Contains(text, "authentication required"):
		kind = errdefs.ErrUnauthenticated
	case strings.Contains(text, "image not known"), strings.Contains(text, "manifest unknown"),
		strings.Contains(text, "did not resolve to an alias"), strings.Contains(text, "no such image"):
		kind = errdefs.ErrNotFound
	case strings.Contains(text, "syntax error"), strings.Contains(text, "parse error"), strings.Contains(text, "nknown instruction"),
		strings.Contains(text, "heredoc"), strings.Contains(text, "ile with no instructions"):
		kind = errdefs.ErrInvalidArgument
	}
	tail := bytes.TrimSpace(append(b.tail, b.line...))
	if len(tail) > keptOutput {
		tail = tail[len(tail)-keptOutput:]
	}
	lines := strings.Split(string(tail), "\n")
	if len(lines) > keptLines {
		lines = lines[len(lines)-keptLines:]
	}
	var msg strings.Builder
	if b.step != "" {
		fmt.Fprintf(&msg, "step %q: ", b.step)
	}
	msg.WriteString(text)
	if out := strings.TrimSpace(strings.Join(lines, "\n")); out != "" {
		msg.WriteString("\n" + out)
	}
	return runtime.Errorf(kind, "%s", msg.String())
}

// workingContainers are the containers that buildah works in.
func (e *engine) workingContainers(ctx context.Context) (map[string]bool, error) {
	var listed []listedContainer
	err := e.list(ctx, call{method: http.MethodGet, path: "/containers/json", query: url.Values{
		"all": {"true"}, "external": {"true"}}}, &listed)
	m := map[string]bool{}
	for _, c := range listed {
		if slices.ContainsFunc(c.Names, func(n string) bool { return strings.Contains(n, "-working-container") }) {
			m[c.ID] = true
		}
	}
	return m, err
}
