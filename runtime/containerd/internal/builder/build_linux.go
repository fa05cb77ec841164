package builder

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	bkclient "github.com/moby/buildkit/client"
	"github.com/moby/buildkit/exporter"
	"github.com/moby/buildkit/exporter/containerimage/exptypes"
	"github.com/moby/buildkit/frontend"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/session/filesync"
	"github.com/moby/buildkit/solver/llbsolver"
	"github.com/moby/buildkit/solver/llbsolver/compat"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc/test/bufconn"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/buildcontext"
)

// temporaryPrefix begins the name of an image until its build is done.
const temporaryPrefix = "build.bottle.invalid/"

// undoTimeout bounds what has to be done although a build was cancelled.
const undoTimeout = 30 * time.Second

// Result is a built image.
type Result struct {
	// Names are those of BuildSpec.Tags, spelled out as containerd keeps them.
	Names []string
	// Target is the image's manifest.
	Target ocispec.Descriptor
	// Config is the digest of its configuration.
	Config digest.Digest
}

// Build builds an image, unpacks its layers and names it. A Dockerfile or context
// that is not there is NotFound, a Dockerfile that cannot be understood
// InvalidArgument, a step that fails FailedPrecondition and a [*StepError], a
// missing base image NotFound.
func (b *Builder) Build(ctx context.Context, spec runtime.BuildSpec) (Result, error) {
	names, err := fullNames(spec.Tags)
	if err != nil {
		return Result{}, err
	}
	src, err := buildcontext.Open(spec.ContextDir, spec.Dockerfile)
	if err != nil {
		return Result{}, err
	}
	buildCtx, s, done, err := b.use(ctx, spec.Progress)
	if err != nil {
		return Result{}, err
	}
	defer done()
	result, err := s.build(buildCtx, spec, src, names)
	if cause := context.Cause(buildCtx); err != nil && cause != nil {
		// What a cancelled call says is rarely that it was cancelled.
		return Result{}, cause
	}
	return result, err
}

func fullNames(tags []string) ([]string, error) {
	if len(tags) == 0 {
		return nil, runtime.Errorf(errdefs.ErrInvalidArgument, "the image to build has no tag")
	}
	var names []string
	for _, tag := range tags {
		ref, err := reference.ParseDockerRef(tag)
		if err != nil {
			return nil, runtime.Errorf(errdefs.ErrInvalidArgument, "%q is not an image reference: %v", tag, err)
		}
		if _, ok := ref.(reference.Digested); ok {
			return nil, runtime.Errorf(errdefs.ErrInvalidArgument, "%q names a digest, and what is built has one of its own", tag)
		}
		if name := ref.String(); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names, nil
}

// attributes are what the Dockerfile frontend is told.
func attributes(spec runtime.BuildSpec, src *buildcontext.Context) map[string]string {
	attrs := map[string]string{
		"filename":           filepath.Base(src.RealDockerfile),
		"image-resolve-mode": "local",
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
	for k, v := range spec.Args {
		attrs["build-arg:"+k] = v
	}
	for k, v := range spec.Labels {
		attrs["label:"+k] = v
	}
	attrs["label:"+runtime.LabelManaged] = "true"
	return attrs
}

func (s *solver) build(ctx context.Context, spec runtime.BuildSpec, src *buildcontext.Context, names []string) (_ Result, err error) {
	temporary := temporaryPrefix + strings.ToLower(rand.Text()) + ":building"
	defer func() {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
		defer cancel()
		if e := s.client.ImageService().Delete(undo, temporary); e != nil && !errdefs.IsNotFound(e) {
			err = errors.Join(err, fmt.Errorf("remove the image's temporary name: %w", e))
		}
	}()
	log := newProgress(spec.Progress)
	resp, err := s.solve(ctx, attributes(spec, src), src, temporary, log)
	if err != nil {
		return Result{}, explain(err, log)
	}
	result := Result{Names: names, Config: digest.Digest(resp[exptypes.ExporterImageConfigDigestKey])}
	blob, err := base64.StdEncoding.DecodeString(resp[exptypes.ExporterImageDescriptorKey])
	if err == nil {
		err = json.Unmarshal(blob, &result.Target)
	}
	if err != nil {
		return Result{}, fmt.Errorf("read the descriptor of the built image: %w", err)
	}
	if err := context.Cause(ctx); err != nil {
		return Result{}, err
	}
	// From here on it is done: a late cancellation must not leave some of the names.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	for _, name := range names {
		if err := s.name(ctx, name, result.Target); err != nil {
			return Result{}, fmt.Errorf("name the image %q: %w", name, err)
		}
	}
	return result, nil
}

// name makes a record of an image, or points the one that there is to it.
func (s *solver) name(ctx context.Context, name string, target ocispec.Descriptor) error {
	store := s.client.ImageService()
	record := images.Image{Name: name, Target: target, Labels: map[string]string{runtime.LabelManaged: "true"}}
	for {
		_, err := store.Update(ctx, record)
		if !errdefs.IsNotFound(err) {
			return err
		}
		if _, err = store.Create(ctx, record); !errdefs.IsAlreadyExists(err) {
			return err
		}
	}
}

// solve runs a build and exports it under a name. It returns what the exporter
// says.
func (s *solver) solve(ctx context.Context, attrs map[string]string, src *buildcontext.Context, name string, log *progress) (map[string]string, error) {
	export, err := s.worker.Exporter(bkclient.ExporterImage, s.sessions)
	if err != nil {
		return nil, err
	}
	instance, err := export.Resolve(ctx, 0, map[string]string{"name": name, "unpack": "true"})
	if err != nil {
		return nil, err
	}
	sess, endSession, err := s.newSession(ctx, src)
	if err != nil {
		return nil, err
	}
	defer endSession()

	id := rand.Text()
	statusCtx, cancelStatus := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelStatus()
	logged := make(chan struct{})
	go func() {
		defer close(logged)
		updates := make(chan *bkclient.SolveStatus, 8)
		go func() { _ = s.llb.Status(statusCtx, id, updates) }()
		for u := range updates {
			log.update(u)
		}
		log.finish()
	}()
	resp, err := s.llb.Solve(ctx, id, sess.ID(), frontend.SolveRequest{
		Frontend:    "dockerfile.v0",
		FrontendOpt: attrs,
	}, compat.CompatibilityVersionCurrent, llbsolver.ExporterRequest{
		Exporters: []exporter.ExporterInstance{instance},
	}, nil, nil, true, nil, "", false)
	// The job's end ends its status, unless it ended before that was asked for.
	late := time.AfterFunc(2*time.Second, cancelStatus)
	<-logged
	late.Stop()
	if err != nil {
		return nil, err
	}
	return resp.ExporterResponse, nil
}

// newSession is how the solver reads the build's files.
func (s *solver) newSession(ctx context.Context, src *buildcontext.Context) (_ *session.Session, end func(), err error) {
	dirs, closeDirs, err := openAll(map[string]string{"context": src.Dir, "dockerfile": filepath.Dir(src.RealDockerfile)})
	if err != nil {
		return nil, nil, err
	}
	// Builds of one directory share what was transferred.
	key := sha256.Sum256([]byte(src.Dir + "\x00" + src.RealDockerfile))
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	sess, err := session.NewSession(ctx, hex.EncodeToString(key[:]))
	if err != nil {
		cancel()
		closeDirs()
		return nil, nil, err
	}
	sess.Allow(filesync.NewFSSyncProvider(filesync.StaticDirSource(dirs)))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = sess.Run(ctx, func(ctx context.Context, _ string, meta map[string][]string) (net.Conn, error) {
			listener := bufconn.Listen(1 << 20)
			go func() {
				theirs, err := listener.Accept()
				if err != nil {
					return // ours fails, too
				}
				_ = s.sessions.HandleConn(ctx, theirs, meta)
			}()
			ours, err := listener.DialContext(ctx)
			if err != nil {
				return nil, errors.Join(err, listener.Close())
			}
			return ours, nil
		})
	}()
	return sess, func() {
		_ = sess.Close()
		cancel()
		<-ended
		closeDirs()
	}, nil
}
