package docker

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"

	buildkit "github.com/moby/buildkit/client"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	"github.com/tonistiigi/fsutil"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/buildcontext"
)

// buildKit builds with the BuildKit inside the daemon, through a session of its
// own, and returns the image's ID. Context files are sent as far as the build asks
// for them. Cancelling it ends the build and leaves no image.
func (e *engine) buildKit(ctx context.Context, spec runtime.BuildSpec, source *buildcontext.Context) (string, error) {
	c, err := buildkit.New(ctx, "",
		buildkit.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return e.cli.DialHijack(ctx, "/grpc", "h2c", nil)
		}),
		buildkit.WithSessionDialer(func(ctx context.Context, proto string, meta map[string][]string) (net.Conn, error) {
			return e.cli.DialHijack(ctx, "/session", proto, meta)
		}))
	if err != nil {
		return "", fmt.Errorf("connect to BuildKit: %w", err)
	}
	defer c.Close() //nolint:errcheck // the result is in

	if !spec.NoNetwork {
		// Without it each RUN fails; the classic builder gives them none then.
		if spec.NoNetwork, err = e.lacksDefaultNetwork(ctx); err != nil {
			return "", err
		}
		if spec.NoNetwork {
			_, _ = fmt.Fprintln(orDiscard(spec.Progress), "The daemon has no default network (--bridge none): RUN steps get none.")
		}
	}
	options, err := solveOptions(spec, source)
	if err != nil {
		return "", err
	}
	printer := &printer{w: orDiscard(spec.Progress), steps: map[digest.Digest]*step{}}
	status := make(chan *buildkit.SolveStatus)
	printed := make(chan struct{})
	go func() {
		defer close(printed)
		for s := range status {
			printer.print(s)
		}
	}()
	res, err := c.Solve(ctx, nil, options, status)
	<-printed
	switch {
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	case err != nil:
		return "", printer.explain(err)
	}
	for _, key := range []string{"containerimage.digest", "containerimage.config.digest"} {
		if id := res.ExporterResponse[key]; id != "" {
			if _, err := e.image(ctx, id); err == nil {
				return id, nil
			}
		}
	}
	return spec.Tags[0], nil
}

// lacksDefaultNetwork reports whether the daemon runs without the network that
// build steps are put on.
func (e *engine) lacksDefaultNetwork(ctx context.Context) (bool, error) {
	all, err := e.networks(ctx)
	return !slices.ContainsFunc(all, func(n network.Summary) bool { return n.Name == "bridge" }), err
}

func solveOptions(spec runtime.BuildSpec, source *buildcontext.Context) (buildkit.SolveOpt, error) {
	var opt buildkit.SolveOpt
	attrs := map[string]string{
		"filename":           filepath.Base(source.RealDockerfile),
		"image-resolve-mode": "local",
	}
	for name, value := range spec.Args {
		attrs["build-arg:"+name] = value
	}
	for name, value := range withManaged(spec.Labels) {
		attrs["label:"+name] = value
	}
	if spec.Target != "" {
		attrs["target"] = spec.Target
	}
	if spec.NoCache {
		attrs["no-cache"] = ""
	}
	if spec.NoNetwork {
		attrs["force-network-mode"] = "none"
	}
	contextFS, err := fsutil.NewFS(source.Dir)
	if err != nil {
		return opt, err
	}
	dockerfileFS, err := fsutil.NewFS(filepath.Dir(source.RealDockerfile))
	if err != nil {
		return opt, err
	}
	names, err := csvLine(spec.Tags)
	if err != nil {
		return opt, err
	}
	return buildkit.SolveOpt{
		Frontend:      "dockerfile.v0",
		FrontendAttrs: attrs,
		LocalMounts:   map[string]fsutil.FS{"context": contextFS, "dockerfile": dockerfileFS},
		Exports:       []buildkit.ExportEntry{{Type: "moby", Attrs: map[string]string{"name": names}}},
	}, nil
}

// csvLine joins values as the exporter splits them.
func csvLine(values []string) (string, error) {
	var b strings.Builder
	w := csv.NewWriter(&b)
	if err := w.Write(values); err != nil {
		return "", err
	}
	w.Flush()
	return strings.TrimSuffix(b.String(), "\n"), w.Error()
}

// printer turns BuildKit's status updates into lines, and remembers what an error
// has to tell.
type printer struct {
	w      io.Writer
	steps  map[digest.Digest]*step
	failed *step
	last   *step // whose output was printed last
}

// step is a vertex of the build's graph.
type step struct {
	name           string
	started, ended bool
	err            string
	out            *output
	unfinishedLine bool // what was printed last does not end with a newline
}

func (p *printer) print(s *buildkit.SolveStatus) {
	for _, v := range s.Vertexes {
		p.vertex(v)
	}
	for _, l := range s.Logs {
		p.log(l)
	}
}

func (p *printer) step(d digest.Digest) *step {
	s := p.steps[d]
	if s == nil {
		s = &step{out: newOutput()}
		p.steps[d] = s
	}
	return s
}

func (p *printer) vertex(v *buildkit.Vertex) {
	s := p.step(v.Digest)
	s.name = v.Name
	if strings.HasPrefix(v.Name, "[internal]") && v.Error == "" {
		return
	}
	if v.Started != nil && !s.started {
		s.started = true
		p.line(s, s.name)
	}
	if v.Error != "" {
		s.err = v.Error
		// Others are cancelled because of the one that failed.
		if !strings.Contains(v.Error, context.Canceled.Error()) {
			p.failed = s
		}
	}
	if v.Completed != nil && !s.ended {
		s.ended = true
		if v.Cached {
			p.line(s, s.name+" (cached)")
		}
	}
}

// line writes a line of the printer's own.
func (p *printer) line(s *step, text string) {
	if p.last != nil && p.last.unfinishedLine {
		p.last.unfinishedLine = false
		_, _ = io.WriteString(p.w, "\n")
	}
	p.last = s
	_, _ = fmt.Fprintln(p.w, text) // a writer that fails does not fail the build
}

func (p *printer) log(l *buildkit.VertexLog) {
	s := p.step(l.Vertex)
	_, _ = s.out.Write(l.Data)
	if p.last != s && s.name != "" {
		p.line(s, s.name+":")
	}
	_, _ = p.w.Write(l.Data)
	s.unfinishedLine = len(l.Data) > 0 && l.Data[len(l.Data)-1] != '\n'
}

// explain makes the build's error from that of the step which failed.
func (p *printer) explain(err error) error {
	text := err.Error()
	// gRPC's prefix says nothing.
	if i := strings.Index(text, " desc = "); i >= 0 {
		text = text[i+len(" desc = "):]
	}
	if p.failed == nil || strings.HasPrefix(p.failed.name, "[internal]") {
		return buildError(errors.New(text), text)
	}
	return stepError(p.failed.name, p.failed.err, p.failed.out)
}
