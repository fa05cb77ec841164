// Command launch measures how long a full bottle takes to come up and to go, against the
// ways that there are without bottle, on the same machine, with the same images, in turn:
//
//   - sequential: one command of the engine's command line after another;
//   - compose or kube: the engine's own way of starting several containers by a definition;
//   - floor: the engine's API making and starting the same containers, all that can be at
//     once at once, and nothing else.
//
// Up is from the beginning until a command that runs in the agent's container has said so.
// Down is from there until everything is removed. Each round makes one of each; the
// medians are printed as a Markdown table.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/containerd"
	"github.com/bottle-run/bottle/runtime/docker"
	"github.com/bottle-run/bottle/runtime/podman"
)

// options are those of the command line.
type options struct {
	runtime, host string
	cli           []string
	cliKind       string // docker or podman
	bottle        string
	busybox       string
	compose, kube bool
	rounds        int
	goals         goals
	keep          string
	scale         int
	networks      int
	phase         string
	dir           string
}

// goals are ratios that are not to be exceeded.
type goals struct{ up, down, floor float64 }

// way is a way of bringing a bottle up.
type way interface {
	name() string
	// up returns when a command runs in the agent's container.
	up(ctx context.Context, round int) error
	// down returns when everything is gone.
	down(ctx context.Context, round int) error
	// clear removes what is not part of what is measured.
	clear(ctx context.Context, round int)
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("launch: ")
	var o options
	var cli string
	flag.StringVar(&o.runtime, "runtime", "docker", "the runtime to measure")
	flag.StringVar(&o.host, "host", "", "its endpoint")
	flag.StringVar(&cli, "cli", "docker", "the command line to measure it against, words separated by spaces")
	flag.StringVar(&o.cliKind, "cli-kind", "docker", "docker or podman: whose words it takes")
	flag.StringVar(&o.bottle, "bottle", "bin/bottle", "the program bottle, with bottle-sidecar beside it")
	flag.StringVar(&o.busybox, "busybox", "/bin/busybox", "a static busybox, the only program of the agent's image")
	flag.BoolVar(&o.compose, "compose", false, "measure docker-compose, too")
	flag.BoolVar(&o.kube, "kube", false, "measure podman kube play, too")
	flag.IntVar(&o.rounds, "n", 11, "rounds, after one that does not count")
	flag.Float64Var(&o.goals.up, "goal-up", 0, "bottle's up against the sequential one's, for the table")
	flag.Float64Var(&o.goals.down, "goal-down", 0, "the same for down")
	flag.Float64Var(&o.goals.floor, "goal-floor", 0, "bottle's up against the floor's")
	flag.StringVar(&o.keep, "trace", "", "write the trace of the last bottle to this file")
	flag.IntVar(&o.scale, "scale", 0, "instead: bring so many bottles up at once")
	flag.IntVar(&o.networks, "networks", 200, "with -scale: how many networks there are in all")
	flag.StringVar(&o.phase, "phase", "up", "with -scale: up, memory (by root), or down")
	flag.StringVar(&o.dir, "dir", "", "with -scale: where the phases keep the manifest")
	flag.Parse()
	o.cli = strings.Fields(cli)
	if err := run(context.Background(), o); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, o options) (err error) {
	if o.scale > 0 && o.phase == "memory" {
		return (&scale{o: o, bottles: o.scale}).memory()
	}
	registry := runtime.NewRegistry(podman.Driver{}, docker.Driver{}, containerd.Driver{})
	rt, err := registry.Open(ctx, o.runtime, runtime.Options{Host: o.host})
	if err != nil {
		return err
	}
	defer func() { _ = rt.Close() }()
	info, err := rt.Info(ctx)
	if err != nil {
		return err
	}
	w, err := newWorld(ctx, rt, o)
	if err != nil {
		return err
	}
	defer w.close()
	defer func() {
		if err != nil {
			// What is half made is not left.
			err = errors.Join(err, w.sweep(ctx))
		}
	}()
	if o.scale > 0 {
		s := &scale{w: w, o: o, bottles: o.scale, networks: o.networks}
		if o.phase == "down" {
			return s.down(ctx)
		}
		return s.up(ctx)
	}
	ours := &bottleWay{w: w, o: o}
	low, err := newFloor(ctx, rt, w)
	if err != nil {
		return err
	}
	defer low.close()
	ways := []way{&sequential{w: w, cli: cli{o.cli, o.cliKind}}, ours, low}
	if o.compose {
		ways = append(ways, &composeWay{w: w, o: o})
	}
	if o.kube {
		ways = append(ways, &kubeWay{w: w, cli: cli{o.cli, o.cliKind}})
	}
	ups, downs := make([][]time.Duration, len(ways)), make([][]time.Duration, len(ways))
	for round := range o.rounds + 1 {
		if err := w.change(round); err != nil {
			return err
		}
		for i, way := range ways {
			begun := time.Now()
			if err := way.up(ctx, round); err != nil {
				return fmt.Errorf("%s, up: %w", way.name(), err)
			}
			there := time.Now()
			if err := way.down(ctx, round); err != nil {
				return fmt.Errorf("%s, down: %w", way.name(), err)
			}
			gone := time.Now()
			way.clear(ctx, round)
			if round > 0 {
				ups[i], downs[i] = append(ups[i], there.Sub(begun)), append(downs[i], gone.Sub(there))
			}
		}
	}
	report(os.Stdout, info, o, ways, ups, downs)
	return nil
}

// errNotUp is a bottle whose command has not said what it was to say.
var errNotUp = errors.New("it is not up")

// bottleWay is bottle.
type bottleWay struct {
	w   *world
	o   options
	cmd *exec.Cmd
	out io.ReadCloser
	err *strings.Builder
}

func (b *bottleWay) name() string { return "bottle" }

func (b *bottleWay) up(ctx context.Context, _ int) error {
	args := []string{"--runtime", b.o.runtime, "-f", b.w.manifest, "run", "--name", b.w.prefix}
	if b.o.host != "" {
		args = append([]string{"--host", b.o.host}, args...)
	}
	if b.o.keep != "" {
		args = append(args, "--trace", b.o.keep)
	}
	b.cmd = exec.CommandContext(ctx, b.o.bottle, append(args, "bench", "--", "/bin/busybox", "echo", "up")...)
	b.cmd.Env, b.cmd.Dir = append(os.Environ(), b.w.secrets()...), b.w.dir
	b.err = &strings.Builder{}
	b.cmd.Stderr = b.err
	var err error
	if b.out, err = b.cmd.StdoutPipe(); err != nil {
		return err
	}
	if err := b.cmd.Start(); err != nil {
		return err
	}
	line, err := bufio.NewReader(b.out).ReadString('\n')
	if err != nil || line != "up\n" {
		_ = b.cmd.Wait()
		return fmt.Errorf("bottle said %q: %w: %s", line, errors.Join(err, errNotUp), b.err)
	}
	return nil
}

func (b *bottleWay) down(context.Context, int) error {
	if err := b.cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, b.err)
	}
	return nil
}

func (b *bottleWay) clear(context.Context, int) {}

func report(out io.Writer, info runtime.Info, o options, ways []way, ups, downs [][]time.Duration) {
	rootless := ""
	if info.Rootless {
		rootless = " rootless"
	}
	fmt.Fprintf(out, "### %s %s%s against `%s`\n\n", info.Engine, info.Version, rootless, o.cliKind)
	fmt.Fprintf(out, "Kernel %s, cgroup v%s, storage %s, load average %s; medians of %d rounds in turn, in milliseconds.\n\n", info.Kernel, info.CgroupVersion, info.StorageDriver, load(), o.rounds)
	fmt.Fprintf(out, "| way | up | down |\n|---|---:|---:|\n")
	for i, w := range ways {
		fmt.Fprintf(out, "| %s | %.0f | %.0f |\n", w.name(), ms(median(ups[i])), ms(median(downs[i])))
	}
	fmt.Fprintf(out, "\n| ratio, of medians | bottle | goal | |\n|---|---:|---:|---|\n")
	row := func(what string, ratio, goal float64) {
		if goal == 0 {
			fmt.Fprintf(out, "| %s | %.2f | | |\n", what, ratio)
			return
		}
		met := "met"
		if ratio > goal {
			met = "missed"
		}
		fmt.Fprintf(out, "| %s | %.2f | %.2f | %s |\n", what, ratio, goal, met)
	}
	of := func(a, b []time.Duration) float64 { return float64(median(a)) / float64(median(b)) }
	row("up / sequential", of(ups[1], ups[0]), o.goals.up)
	row("down / sequential", of(downs[1], downs[0]), o.goals.down)
	row("up / floor", of(ups[1], ups[2]), o.goals.floor)
	for i, w := range ways[3:] {
		row("up / "+w.name(), of(ups[1], ups[3+i]), 0)
		row("down / "+w.name(), of(downs[1], downs[3+i]), 0)
	}
	fmt.Fprintln(out)
}

// load is the load average of the last minute: other work on the machine makes a run worthless.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func median(d []time.Duration) time.Duration {
	d = slices.Sorted(slices.Values(d))
	return d[len(d)/2]
}
