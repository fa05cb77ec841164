package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/bottle-run/bottle/core/sidecarimage"
	"github.com/bottle-run/bottle/runtime"
)

// Images that all ways use.
const (
	baseImage  = "localhost/bottle-bench/base:1"
	agentImage = "localhost/bottle-bench/agent:1"
)

// roles are the sidecars, in the order in which the sequential way starts them.
var roles = []string{"firewall", "git-gate", "egress-proxy", "supervise"}

// world is what all ways start from: images, a workspace, files to put in.
type world struct {
	dir      string // with manifest, Dockerfile and ws below it
	kept     bool   // it is the caller's
	manifest string
	prefix   string // of every object's name
	sidecar  string // the sidecars' image
	image    *sidecarimage.Image
	rt       runtime.Runtime
	cli      cli
}

// newWorld makes the images on both engines, which may be the same, and the files.
func newWorld(ctx context.Context, rt runtime.Runtime, o options) (*world, error) {
	dir := o.dir
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", "bottle-launch-"); err != nil {
			return nil, err
		}
	}
	w := &world{dir: dir, kept: o.dir != "", manifest: filepath.Join(dir, "bottle.yaml"), prefix: "bench-launch", rt: rt, cli: cli{o.cli, o.cliKind}}
	if o.scale > 0 && o.phase == "down" {
		return w, nil
	}
	if err := w.sweep(ctx); err != nil {
		return nil, err
	}
	base, err := w.baseArchive(o.busybox)
	if err != nil {
		return nil, err
	}
	if err := w.load(ctx, base); err != nil {
		return nil, err
	}
	if err := w.files(); err != nil {
		return nil, err
	}
	if err := w.sidecarImage(ctx); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *world) close() {
	if !w.kept {
		_ = os.RemoveAll(w.dir)
	}
}

// sweep removes what a run that failed has left.
func (w *world) sweep(ctx context.Context) error {
	containers, err := w.rt.ListContainers(ctx, runtime.Filter{})
	if err != nil {
		return err
	}
	for _, c := range containers {
		if strings.HasPrefix(c.Name, "bottle-"+w.prefix) {
			if err := w.rt.RemoveContainer(ctx, c.ID); err != nil {
				return err
			}
		}
	}
	networks, err := w.rt.ListNetworks(ctx, runtime.Filter{})
	if err != nil {
		return err
	}
	for _, n := range networks {
		if strings.HasPrefix(n.Name, "bottle-"+w.prefix) {
			if err := w.rt.RemoveNetwork(ctx, n.ID); err != nil {
				return err
			}
		}
	}
	if len(w.cli.words) == 0 {
		return nil
	}
	s := sequential{w: w, cli: w.cli}
	for _, c := range s.removals() {
		_, _ = s.cli.do(c...) // most of it is not there
	}
	return nil
}

// secrets are in bottle's environment.
func (w *world) secrets() []string {
	return []string{"BENCH_TOKEN=token-of-the-benchmark", "BENCH_SECRET=secret-of-the-benchmark"}
}

const manifestText = `bottles:
  full:
    dockerfile: agent/Dockerfile
    workspace: ws
    forward: [BENCH_SECRET]
    egress:
      allow: [one.example, two.example]
      routes: [{host: api.example, credential: {token: BENCH_TOKEN}}]
    git:
      project: {url: "https://code.example/project.git", credential: {token: BENCH_TOKEN}, push: {branches: ["agent/*"]}}
    supervise: true
agents:
  bench:
    bottle: full
    prompt: Do what the benchmark says.
    skills: [skill]
    gitconfig: {user.name: Bench, user.email: bench@example.com}
    files:
      - {source: settings.json, target: ~/.settings.json}
`

// files writes the manifest, a workspace of 200 files and 2 MiB, and what is put in.
func (w *world) files() error {
	write := func(name, content string) error {
		file := filepath.Join(w.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		return os.WriteFile(file, []byte(content), 0o644)
	}
	files := map[string]string{
		"bottle.yaml": manifestText, "settings.json": "{}\n", "skill/SKILL.md": "# A skill\n", "ca.pem": "certificate\n", "key.pem": "key\n",
		"agent/Dockerfile":   "FROM " + baseImage + "\nENV A=1\nUSER robot\n",
		"derived/Dockerfile": "FROM " + agentImage + "\nCOPY --chown=1000:1000 ws /workspace\n",
	}
	for i := range 200 {
		files[fmt.Sprintf("ws/dir%d/file%d.txt", i%10, i)] = strings.Repeat(fmt.Sprintf("line of file %d\n", i), 10<<10/16)
	}
	for name, content := range files {
		if err := write(name, content); err != nil {
			return err
		}
	}
	return nil
}

// change changes one file of the workspace, as someone who works does between launches.
func (w *world) change(round int) error {
	return os.WriteFile(filepath.Join(w.dir, "ws/changed.txt"), fmt.Appendf(nil, "round %d\n", round), 0o644)
}

// load puts an archive of an image on both engines.
func (w *world) load(ctx context.Context, archive []byte) error {
	if _, err := w.rt.LoadImage(ctx, bytes.NewReader(archive)); err != nil {
		return err
	}
	if len(w.cli.words) == 0 {
		return nil
	}
	cmd := w.cli.command("load")
	cmd.Stdin = bytes.NewReader(archive)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd, err, out)
	}
	return nil
}

// sidecarImage puts the image of bottle's sidecars on both engines.
func (w *world) sidecarImage(ctx context.Context) error {
	// This program lies beside bottle, and finds the same.
	image, _, err := sidecarimage.FromHost(goruntime.GOARCH)
	if err != nil {
		return err
	}
	w.image, w.sidecar = image, image.Tag()
	archive, err := image.Archive()
	if err != nil {
		return err
	}
	defer func() { _ = archive.Close() }()
	content, err := io.ReadAll(archive)
	if err != nil {
		return err
	}
	return w.load(ctx, content)
}

// baseArchive is an image that holds busybox and two users.
func (w *world) baseArchive(busybox string) ([]byte, error) {
	program, err := os.ReadFile(busybox)
	if err != nil {
		return nil, fmt.Errorf("read the static busybox (Debian: busybox-static): %w", err)
	}
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		// To memory.
		_ = tw.WriteHeader(&h)
		_, _ = tw.Write(content)
	}
	for _, dir := range []string{"bin", "etc", "home", "root"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	add(tar.Header{Typeflag: tar.TypeDir, Name: "home/robot/", Mode: 0o755, Uid: 1000, Gid: 1000}, nil)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, program)
	for _, applet := range strings.Fields("cat chmod chown echo env id ls mkdir rm sh sleep true") {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox"}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\nrobot:x:1000:1000::/home/robot:/bin/sh\n"))
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nrobot:x:1000:\n"))
	if err := tw.Close(); err != nil {
		return nil, err
	}
	content := layer.Bytes()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return nil, err
	}
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = "amd64", "linux"
	config.Config = v1.Config{Cmd: []string{"/bin/sh"}, Env: []string{"PATH=/bin"}, Labels: map[string]string{runtime.LabelManaged: "true"}}
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return nil, err
	}
	ref, err := name.NewTag(baseImage)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	if err := tarball.Write(ref, image, &archive); err != nil {
		return nil, err
	}
	return archive.Bytes(), nil
}

// cli is the command line of an engine.
type cli struct {
	words []string
	kind  string
}

func (c cli) command(args ...string) *exec.Cmd {
	return exec.Command(c.words[0], append(append([]string{}, c.words[1:]...), args...)...)
}

// do runs a command and returns what it printed.
func (c cli) do(args ...string) (string, error) {
	cmd := c.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", cmd, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
