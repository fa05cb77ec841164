package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/build"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/buildcontext"
)

// buildClassic builds with the daemon's old builder and returns the image's ID.
// That builder commits an image for each step and keeps those of a build that
// fails; they are removed, because the contract leaves nothing.
func (e *engine) buildClassic(ctx context.Context, spec runtime.BuildSpec, source *buildcontext.Context) (string, error) {
	before, err := e.cli.ImageList(ctx, client.ImageListOptions{All: true})
	if err != nil {
		return "", err
	}
	options := client.ImageBuildOptions{
		Tags: spec.Tags, Dockerfile: source.Dockerfile, Target: spec.Target, NoCache: spec.NoCache,
		Labels: withManaged(spec.Labels), BuildArgs: map[string]*string{},
		Remove: true, ForceRemove: true, Version: build.BuilderV1,
	}
	for name, value := range spec.Args {
		options.BuildArgs[name] = &value
	}
	if spec.NoNetwork {
		options.NetworkMode = "none"
	}
	stream := source.Tar()
	defer stream.Close() //nolint:errcheck // its errors arrive through the request
	b := &classicBuild{e: e, progress: orDiscard(spec.Progress), out: newOutput()}
	for _, image := range before.Items {
		b.before = append(b.before, image.ID)
	}
	err = b.run(ctx, stream, options)
	if err == nil && b.image == "" {
		err = errors.New("the builder did not tell the image that it built")
	}
	if err != nil {
		return "", errors.Join(err, b.discard(ctx))
	}
	return b.image, nil
}

// classicBuild follows the stream of a build.
type classicBuild struct {
	e        *engine
	progress io.Writer
	out      *output
	before   []string // images that were there

	step       string
	image      string
	containers []string
	images     []string
}

func (b *classicBuild) run(ctx context.Context, source io.Reader, options client.ImageBuildOptions) error {
	res, err := b.e.cli.ImageBuild(ctx, source, options)
	if err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return buildError(errors.New(message(err)), err.Error())
	}
	defer res.Body.Close() //nolint:errcheck // only read
	stop := context.AfterFunc(ctx, func() { _ = res.Body.Close() })
	defer stop()
	for dec := json.NewDecoder(res.Body); ; {
		var m jsonstream.Message
		err := dec.Decode(&m)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the builder's output: %w", err)
		case m.Error != nil:
			return stepError(b.step, m.Error.Message, b.out)
		}
		if m.Aux != nil {
			var result struct{ ID string }
			if json.Unmarshal(*m.Aux, &result) == nil && result.ID != "" {
				b.image = result.ID
			}
		}
		b.follow(m.Stream)
		if m.Status != "" && m.Progress == nil {
			_, _ = fmt.Fprintln(b.progress, m.Status)
		}
	}
}

var (
	stepLine    = regexp.MustCompile(`^Step \d+/\d+ : (.*)$`)
	runningLine = regexp.MustCompile(`^ ---> Running in ([0-9a-f]{12,64})$`)
	imageLine   = regexp.MustCompile(`^ ---> ([0-9a-f]{12,64})$`)
)

// follow notes what a piece of output tells. The builder's own lines come whole.
func (b *classicBuild) follow(text string) {
	if text == "" {
		return
	}
	// What a step writes to stderr comes in red.
	text = strings.NewReplacer("\x1b[91m", "", "\x1b[0m", "").Replace(text)
	_, _ = io.WriteString(b.progress, text) // a writer that fails does not fail the build
	line := strings.TrimRight(text, "\n")
	if m := stepLine.FindStringSubmatch(line); m != nil {
		b.step, b.out = m[1], newOutput()
	} else if m := runningLine.FindStringSubmatch(line); m != nil {
		b.containers = append(b.containers, m[1])
	} else if m := imageLine.FindStringSubmatch(line); m != nil {
		b.images = append(b.images, m[1])
	} else if !strings.HasPrefix(line, "Removing intermediate container ") {
		_, _ = io.WriteString(b.out, text)
	}
}

// discard removes what an unsuccessful build made. A step's process can print
// lines like the builder's, so nothing goes for which they are the only evidence:
// the steps' containers are the daemon's to remove, and no image goes that was
// there before, has a name or is in use.
func (b *classicBuild) discard(ctx context.Context) error {
	ctx, cancel := cleanup(ctx)
	defer cancel()
	b.awaitContainers(ctx)
	var errs []error
	for _, id := range slices.Backward(b.images) {
		image, err := b.e.image(ctx, id)
		if err != nil || slices.Contains(b.before, image.ID) || len(image.Tags) > 0 {
			continue
		}
		// Another build may stand on it by now.
		if _, err := b.e.cli.ImageRemove(ctx, image.ID, client.ImageRemoveOptions{}); err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// awaitContainers waits for the daemon to remove the containers of the steps,
// which it does on its own a moment after a build was cancelled.
func (b *classicBuild) awaitContainers(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, undoTime/3)
	defer cancel()
	for _, id := range b.containers {
		for delay := 5 * time.Millisecond; ; delay = min(2*delay, 200*time.Millisecond) {
			if _, err := b.e.cli.ContainerInspect(ctx, id, client.ContainerInspectOptions{}); err != nil {
				break
			}
			if pause(ctx, delay) != nil {
				return
			}
		}
	}
}
