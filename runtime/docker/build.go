package docker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/buildcontext"
)

// BuildImage builds with the daemon's BuildKit, or with its classic builder where
// there is no BuildKit or DOCKER_BUILDKIT=0 asks for it, as the docker CLI does.
func (e *engine) BuildImage(ctx context.Context, spec runtime.BuildSpec) (runtime.Image, error) {
	image, err := e.build(ctx, spec)
	return image, fail(ctx, "build image", strings.Join(spec.Tags, " "), err)
}

func (e *engine) build(ctx context.Context, spec runtime.BuildSpec) (runtime.Image, error) {
	var none runtime.Image
	source, err := buildcontext.Open(spec.ContextDir, spec.Dockerfile)
	if err != nil {
		return none, err
	}
	builder, err := e.chooseBuilder(ctx)
	if err != nil {
		return none, err
	}
	replaced, err := e.tagged(ctx, spec.Tags)
	if err != nil {
		return none, err
	}
	var id string
	if builder == builderKit {
		id, err = e.buildKit(ctx, spec, source)
	} else {
		id, err = e.buildClassic(ctx, spec, source)
	}
	if errdefs.IsInvalidArgument(err) {
		if why := e.lacksHeredoc(builder); why != "" && usesHeredoc(source.RealDockerfile) {
			err = fmt.Errorf("%w\n%w", runtime.NotImplemented(runtime.FeatureHeredoc, why), plain{err})
		}
	}
	if err != nil {
		return none, err
	}
	image, err := e.image(ctx, id)
	if err != nil {
		return none, err
	}
	e.dropReplaced(ctx, replaced, image.ID)
	return image, nil
}

// heredocSince is the first version whose built-in Dockerfile frontend has it.
const heredocSince = 23

// lacksHeredoc says why a builder does not know heredocs, or is empty.
func (e *engine) lacksHeredoc(builder builderChoice) string {
	switch {
	case builder == builderClassic:
		return "the classic builder does not know it"
	case majorVersion(e.version.Version) < heredocSince:
		return fmt.Sprintf("the BuildKit in Docker %s is older than it", e.version.Version)
	}
	return ""
}

var heredoc = regexp.MustCompile(`(?mi)^\s*(RUN|COPY|ADD)\b.*<<-?["']?[A-Za-z_]`)

// usesHeredoc reports whether a Dockerfile that a builder could not read looks as
// if that were the reason.
func usesHeredoc(dockerfile string) bool {
	content, err := os.ReadFile(dockerfile) //nolint:gosec // the user named it
	return err == nil && heredoc.Match(content)
}

// plain is an error's text without its kind.
type plain struct{ err error }

func (p plain) Error() string { return p.err.Error() }

// tagged lists the images that tags refer to now.
func (e *engine) tagged(ctx context.Context, tags []string) ([]runtime.Image, error) {
	var list []runtime.Image
	for _, t := range tags {
		image, err := e.image(ctx, t)
		if errdefs.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, image)
	}
	return list, nil
}

// dropReplaced removes images of bottle's that lost their last tag to the one just
// built; otherwise each build would leave one behind. One that is in use stays.
func (e *engine) dropReplaced(ctx context.Context, replaced []runtime.Image, built string) {
	for _, old := range replaced {
		if old.ID == built || !managed(old.Labels) {
			continue
		}
		now, err := e.image(ctx, old.ID)
		if err != nil || len(now.Tags) > 0 {
			continue
		}
		if err := e.removeImage(ctx, old.ID); err != nil {
			e.log.Debug("docker: replaced image stays", "image", old.ID, "error", err)
		}
	}
}

// builderChoice is which of a daemon's builders to use.
type builderChoice int

const (
	builderUnknown builderChoice = iota
	builderKit
	builderClassic
)

// builderFromEnv honours the docker CLI's variable.
func builderFromEnv() builderChoice {
	switch os.Getenv("DOCKER_BUILDKIT") {
	case "0", "false":
		return builderClassic
	}
	return builderUnknown
}

// chooseBuilder asks once whether the daemon has BuildKit. Its header is no answer:
// that says which one the administrator prefers.
func (e *engine) chooseBuilder(ctx context.Context) (builderChoice, error) {
	e.builderLock.Lock()
	defer e.builderLock.Unlock()
	if e.builder != builderUnknown {
		return e.builder, nil
	}
	conn, err := e.cli.DialHijack(ctx, "/grpc", "h2c", nil)
	switch {
	case err == nil:
		_ = conn.Close()
		e.builder = builderKit
	case ctx.Err() != nil:
		return builderUnknown, context.Cause(ctx)
	default:
		e.log.Debug("docker: no BuildKit", "error", err)
		e.builder = builderClassic
	}
	return e.builder, nil
}

// output keeps the last lines that a build step wrote.
type output struct{ tail }

func newOutput() *output { return &output{tail{max: 8 << 10}} }

// lastLines returns up to n lines.
func (o *output) lastLines(n int) string {
	lines := strings.Split(strings.TrimRight(o.String(), "\n"), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}

// errorLines is how many lines of output a failed step's error has.
const errorLines = 20

// stepError names the step that failed and ends with what it wrote last.
func stepError(step, reason string, out *output) error {
	text := reason
	if step != "" {
		text = fmt.Sprintf("step %q failed: %s", step, reason)
	}
	if out != nil {
		if said := strings.TrimSpace(out.lastLines(errorLines)); said != "" {
			text += "\n" + said
		}
	}
	return buildError(errors.New(text), reason)
}

// buildError gives a builder's error a kind by what it says is the reason.
func buildError(err error, reason string) error {
	low := strings.ToLower(reason)
	for _, k := range []struct {
		kind  error
		texts []string
	}{
		{errdefs.ErrInvalidArgument, []string{"parse error", "unknown instruction", "dockerfile parse", "requires at least one argument", "target stage", "failed to reach build target", "no build stage", "file with no instructions", "cannot be empty", "unexpected", "invalid"}},
		{errdefs.ErrFailedPrecondition, []string{"did not complete successfully", "returned a non-zero code"}},
		{errdefs.ErrUnauthenticated, []string{"unauthorized", "authentication required"}},
		{errdefs.ErrPermissionDenied, []string{"access denied", "forbidden"}},
		{errdefs.ErrNotFound, []string{"not found", "no such file or directory", "file does not exist", "manifest unknown"}},
		{errdefs.ErrUnavailable, []string{"connection refused", "no such host", "i/o timeout", "network is unreachable", "failed to do request", "server misbehaving", "deadline exceeded"}},
		{errdefs.ErrResourceExhausted, []string{"no space left"}},
	} {
		for _, t := range k.texts {
			if strings.Contains(low, t) {
				return runtime.WithKind(k.kind, err)
			}
		}
	}
	return runtime.WithKind(errdefs.ErrFailedPrecondition, err)
}
