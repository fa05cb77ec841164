// Command bench measures each primitive of a runtime against the command line
// of a container engine, on the same machine, in the same run, in turn, and
// prints the medians and their ratio as a Markdown table.
//
//	bench --runtime=docker --cli='docker'
//	bench --runtime=containerd --cli='docker -H unix:///run/docker.sock'
//
// The command line is timed as a whole process, as a script would call it; the
// runtime is timed as bottle itself calls it, on a connection that is open.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/containerd"
	"github.com/bottle-run/bottle/runtime/docker"
	"github.com/bottle-run/bottle/runtime/podman"
)

const image = "localhost/bottle-bench:latest"

// primitive is one operation, done either way. Both ways leave the engine in
// the same state, so that they can alternate.
type primitive struct {
	name string
	cli  []string // words after the engine's command
	ours func(context.Context, runtime.Runtime) error
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	engine := flag.String("runtime", "docker", "the runtime to measure")
	host := flag.String("host", "", "its endpoint")
	cli := flag.String("cli", "docker", "the command line to measure it against, words separated by spaces")
	busybox := flag.String("busybox", "/bin/busybox", "a static busybox, the only file of the image")
	rounds := flag.Int("n", 11, "rounds, after one that does not count")
	flag.Parse()
	if err := run(context.Background(), *engine, *host, strings.Fields(*cli), *busybox, *rounds); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, engine, host string, cli []string, busybox string, rounds int) error {
	registry := runtime.NewRegistry(podman.Driver{}, docker.Driver{}, containerd.Driver{})
	rt, err := registry.Open(ctx, engine, runtime.Options{Host: host})
	if err != nil {
		return err
	}
	defer func() { _ = rt.Close() }()
	info, err := rt.Info(ctx)
	if err != nil {
		return err
	}

	work, err := os.MkdirTemp("", "bottle-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }()
	if err := prepareImage(ctx, rt, cli, busybox, work); err != nil {
		return err
	}
	defer func() { _ = rt.RemoveImage(ctx, image) }()
	// The command line may speak to another engine than the runtime does.
	defer func() { _ = exec.Command(cli[0], append(slices.Clone(cli[1:]), "rmi", image)...).Run() }()

	small, err := prepareFile(work, "small", 1<<20)
	if err != nil {
		return err
	}
	large, err := prepareFile(work, "large", 100<<20)
	if err != nil {
		return err
	}
	primitives := list(small, large)
	cliTimes, ourTimes := make([][]time.Duration, len(primitives)), make([][]time.Duration, len(primitives))
	for round := range rounds + 1 {
		for i, p := range primitives {
			took, err := timeCLI(cli, p.cli)
			if err != nil {
				return fmt.Errorf("%s by %s: %w", p.name, cli[0], err)
			}
			if round > 0 {
				cliTimes[i] = append(cliTimes[i], took)
			}
		}
		for i, p := range primitives {
			start := time.Now()
			if err := p.ours(ctx, rt); err != nil {
				return fmt.Errorf("%s: %w", p.name, err)
			}
			if round > 0 {
				ourTimes[i] = append(ourTimes[i], time.Since(start))
			}
		}
	}
	report(os.Stdout, info, cli, rounds, primitives, cliTimes, ourTimes)
	return nil
}

func list(small, large string) []primitive {
	const network, container = "bottle-bench", "bottle-bench"
	copyIn := func(file string) func(context.Context, runtime.Runtime) error {
		return func(ctx context.Context, rt runtime.Runtime) error {
			r, w := io.Pipe()
			go func() { w.CloseWithError(tarFile(w, file)) }()
			defer func() { _ = r.Close() }()
			return rt.CopyTo(ctx, container, "/tmp", r)
		}
	}
	return []primitive{
		{"network create", []string{"network", "create", "--internal", network}, func(ctx context.Context, rt runtime.Runtime) error {
			_, err := rt.CreateNetwork(ctx, runtime.NetworkSpec{Name: network, Internal: true})
			return err
		}},
		{"run", []string{"run", "-d", "--init", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--name", container, "--network", network, image},
			func(ctx context.Context, rt runtime.Runtime) error {
				_, err := rt.Run(ctx, runtime.ContainerSpec{Name: container, Image: image,
					Networks: []runtime.NetworkAttachment{{Network: network}}})
				return err
			}},
		{"exec", []string{"exec", container, "/bin/busybox", "true"}, func(ctx context.Context, rt runtime.Runtime) error {
			status, err := rt.Exec(ctx, container, runtime.ExecSpec{Command: []string{"/bin/busybox", "true"}})
			if err == nil && status.Code != 0 {
				err = fmt.Errorf("exit status %d", status.Code)
			}
			return err
		}},
		{"copy 1 MB", []string{"cp", small, container + ":/tmp"}, copyIn(small)},
		{"copy 100 MB", []string{"cp", large, container + ":/tmp"}, copyIn(large)},
		{"remove", []string{"rm", "-f", container}, func(ctx context.Context, rt runtime.Runtime) error {
			return rt.RemoveContainer(ctx, container)
		}},
		{"network remove", []string{"network", "rm", network}, func(ctx context.Context, rt runtime.Runtime) error {
			return rt.RemoveNetwork(ctx, network)
		}},
	}
}

func timeCLI(cli, args []string) (time.Duration, error) {
	cmd := exec.Command(cli[0], append(slices.Clone(cli[1:]), args...)...)
	start := time.Now()
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return time.Since(start), err
}

// prepareImage loads an image of one file into the runtime's engine and into
// the command line's, which may be the same.
func prepareImage(ctx context.Context, rt runtime.Runtime, cli []string, busybox, work string) error {
	binary, err := os.ReadFile(busybox)
	if err != nil {
		return fmt.Errorf("read the static busybox (Debian: busybox-static): %w", err)
	}
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	for _, hdr := range []*tar.Header{
		{Name: "bin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "tmp/", Typeflag: tar.TypeDir, Mode: 0o1777},
		{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(binary))},
	} {
		if err := tw.WriteHeader(hdr); err != nil {
			return err
		}
	}
	if _, err := tw.Write(binary); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return err
	}
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{Architecture: "amd64", OS: "linux",
		RootFS: mustRootFS(img),
		Config: v1.Config{Cmd: []string{"/bin/busybox", "sleep", "3600"}, Labels: map[string]string{runtime.LabelManaged: "true"}}})
	if err != nil {
		return err
	}
	archive := filepath.Join(work, "image.tar")
	ref, err := name.NewTag(image)
	if err != nil {
		return err
	}
	if err := tarball.WriteToFile(archive, ref, img); err != nil {
		return err
	}
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := rt.LoadImage(ctx, f); err != nil {
		return err
	}
	_, err = timeCLI(cli, []string{"load", "-i", archive})
	return err
}

func mustRootFS(img v1.Image) v1.RootFS {
	cfg, err := img.ConfigFile()
	if err != nil {
		log.Fatal(err)
	}
	return cfg.RootFS
}

// prepareFile writes a file that does not compress.
func prepareFile(dir, name string, size int64) (string, error) {
	file := filepath.Join(dir, name)
	f, err := os.Create(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	random, err := os.Open("/dev/urandom")
	if err != nil {
		return "", err
	}
	defer random.Close()
	_, err = io.CopyN(f, random, size)
	return file, err
}

func tarFile(w io.Writer, file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	if err := tw.WriteHeader(&tar.Header{Name: filepath.Base(file), Typeflag: tar.TypeReg, Mode: 0o644, Size: info.Size()}); err != nil {
		return err
	}
	if _, err := io.Copy(tw, f); err != nil {
		return err
	}
	return tw.Close()
}

func report(w io.Writer, info runtime.Info, cli []string, rounds int, primitives []primitive, cliTimes, ourTimes [][]time.Duration) {
	rootless := ""
	if info.Rootless {
		rootless = " rootless"
	}
	fmt.Fprintf(w, "### %s %s%s against `%s`\n\n", info.Engine, info.Version, rootless, cli[0])
	fmt.Fprintf(w, "Kernel %s, cgroup v%s, storage %s; medians of %d rounds in turn, in milliseconds.\n\n", info.Kernel, info.CgroupVersion, info.StorageDriver, rounds)
	fmt.Fprintf(w, "| primitive | `%s` | bottle | ratio |\n|---|---:|---:|---:|\n", cli[0])
	var cliSum, ourSum time.Duration
	row := func(name string, c, o time.Duration) {
		fmt.Fprintf(w, "| %s | %.1f | %.1f | %.2f |\n", name, ms(c), ms(o), float64(o)/float64(c))
	}
	for i, p := range primitives {
		c, o := median(cliTimes[i]), median(ourTimes[i])
		cliSum, ourSum = cliSum+c, ourSum+o
		row(p.name, c, o)
	}
	row("**all**", cliSum, ourSum)
	fmt.Fprintln(w)
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
