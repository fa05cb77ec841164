package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/core/sidecarimage"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance"
)

// wholeManifest is a bottle with all that a bottle can have.
const wholeManifest = `
bottles:
  life:
    image: %s
    workspace: {path: ws, target: /work}
    supervise: {propose: [egress_allow, routes]}
    egress:
      allow: [allowed.test]
      routes: [{host: routed.test, methods: [GET], credential: {token: TOKEN}}]
    git:
      project: {url: "https://git.test/project.git", credential: {token: TOKEN, username: robot}, push: {branches: ["agent/**"]}}
agents:
  e2e-life:
    bottle: life
    command: [sh, -c, "echo ready; %s"]
`

// scene is a place where bottles with everything are launched, on an engine, with all that
// one could leave.
type scene struct {
	*scriptEngine
	t        *testing.T
	dir      string // with the manifest
	state    string // XDG_STATE_HOME
	temp     string // TMPDIR
	settings []string
	empty    runtime.Inventory   // before the scene
	before   map[string][]string // see mark
}

// newScene prepares a scene, in which the agent runs a command.
func newScene(t *testing.T, command string) *scene {
	t.Helper()
	e := openEngine(t)
	if os.Getenv(sidecarimage.Variable) == "" {
		t.Fatalf("%s has to name a static bottle-sidecar: make build, and then %s=$PWD/bin/bottle-sidecar", sidecarimage.Variable, sidecarimage.Variable)
	}
	before, err := e.rt.Inventory(t.Context())
	check(t, err)
	e.loadBase(t, nil)
	dir := t.TempDir()
	s := &scene{scriptEngine: e, t: t, dir: dir, state: filepath.Join(dir, "state"), temp: filepath.Join(dir, "tmp")}
	for _, d := range []string{s.temp, filepath.Join(dir, "ws")} {
		check(t, os.Mkdir(d, 0o700))
	}
	check(t, os.WriteFile(filepath.Join(dir, "ws", "file"), []byte("content\n"), 0o600))
	check(t, os.WriteFile(filepath.Join(dir, "bottle.yaml"), fmt.Appendf(nil, wholeManifest, baseImage, command), 0o600))
	s.settings = []string{"BOTTLE_RUNTIME=" + e.name, "BOTTLE_HOST=" + e.host, "TMPDIR=" + s.temp, "XDG_STATE_HOME=" + s.state, "XDG_CACHE_HOME=" + e.cache, "TOKEN=tok-kestrel-secret-value"}
	s.empty = before
	return s
}

// end removes what the scene needed, and checks that nothing else is there.
func (s *scene) end() {
	if s.t.Failed() {
		s.removeBottles(s.t)
	}
	s.removeImages(s.t)
	s.removeSidecarImages(s.t)
	s.nothingMoreThan(s.t, s.empty)
}

// bottle is the program, about to be run in the scene.
func (s *scene) bottle(args ...string) *exec.Cmd {
	program, err := exec.LookPath("bottle")
	check(s.t, err)
	cmd := exec.Command(program, args...)
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), s.settings...)
	return cmd
}

// mark remembers what there is now.
func (s *scene) mark() { s.before = s.snapshot() }

// snapshot is all that there is on the engine and on this host.
func (s *scene) snapshot() map[string][]string {
	s.t.Helper()
	all := map[string][]string{}
	inventory, err := s.rt.Inventory(context.Background())
	check(s.t, err)
	for kind, list := range inventory {
		all["engine: "+kind] = list
	}
	run := os.Getenv("XDG_RUNTIME_DIR")
	host, err := conformance.Host(os.TempDir())
	for range 50 {
		if err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond) // it changed while it was looked at
		host, err = conformance.Host(os.TempDir())
	}
	check(s.t, err)
	for kind, list := range host {
		all["host: "+kind] = list
	}
	for _, pattern := range []string{filepath.Join(s.temp, "*"), filepath.Join(s.state, "bottle/sessions/*"), filepath.Join(run, "bottle-podman-*", "*"), "/run/bottle-podman-*/*"} {
		files, err := filepath.Glob(pattern)
		check(s.t, err)
		all["files"] = append(all["files"], files...)
	}
	all["processes"] = processes()
	return all
}

// processes are those of this process namespace, but for this one and its descendants.
func processes() []string {
	parents, names := map[int]int{}, map[int]string{}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(d, "stat"))
		line, lineErr := os.ReadFile(filepath.Join(d, "cmdline"))
		if err != nil || lineErr != nil || len(line) == 0 {
			continue // it has ended
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		parents[pid], _ = strconv.Atoi(fields[1])
		names[pid] = fmt.Sprintf("%d %s", pid, strings.ReplaceAll(string(line), "\x00", " "))
	}
	var list []string
	for pid, name := range names {
		own := false
		for p := pid; p > 1 && !own; p = parents[p] {
			own = p == os.Getpid()
		}
		// The daemons themselves are restarted by tests.
		daemon := strings.Contains(name, " dockerd ") || strings.Contains(name, " containerd --config ") || strings.Contains(name, " system service ")
		if !own && !daemon {
			list = append(list, name)
		}
	}
	return list
}

// left is what there is more than before.
func (s *scene) left() []string {
	s.t.Helper()
	var left []string
	for kind, list := range s.snapshot() {
		for _, it := range list {
			if !slices.Contains(s.before[kind], it) {
				left = append(left, kind+": "+it)
			}
		}
	}
	slices.Sort(left)
	return left
}

// nothingLeft waits until nothing is left, as long as it may take, and returns how long
// it took. What others may leave does not count.
func (s *scene) nothingLeft(within time.Duration, others ...func(string) bool) (took time.Duration, left []string) {
	s.t.Helper()
	for begun := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		left = s.left()
		for _, other := range others {
			left = slices.DeleteFunc(left, other)
		}
		if took = time.Since(begun); len(left) == 0 || took > within {
			return took, left
		}
	}
}
