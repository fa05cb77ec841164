package main

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime"
)

// TestMain lets the test binary be the program itself, for the scripts.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"bottle": func() {
			if patience, err := time.ParseDuration(os.Getenv("BOTTLE_TEST_PATIENCE")); err == nil {
				enginePatience = patience
			}
			main()
		},
		watchdogName: main,
	})
}

// TestScriptsWithoutAnEngine runs what needs none.
func TestScriptsWithoutAnEngine(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script/plain", Cmds: scriptCommands(nil), RequireExplicitExec: true,
		Condition: isRoot,
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_CONFIG_HOME", env.WorkDir+"/config")
			env.Setenv("XDG_STATE_HOME", env.WorkDir+"/state")
			env.Setenv("GORACE", os.Getenv("GORACE"))
			// Whatever engines there are: none of them is here.
			env.Setenv("PATH", filepath.Dir(lookPath(t, "bottle"))+":"+busyboxDir(t))
			for _, name := range []string{"DOCKER_HOST", "CONTAINER_HOST", "CONTAINERD_ADDRESS", "BOTTLE_HOST"} {
				env.Setenv(name, "unix://"+env.WorkDir+"/nowhere.sock")
			}
			return nil
		},
	})
}

// isRoot is the condition [root] of scripts.
func isRoot(condition string) (bool, error) {
	if condition != "root" {
		return false, fmt.Errorf("there is no condition %q", condition)
	}
	return os.Geteuid() == 0, nil
}

// scriptEngine is the engine that the scripts of an engine run on.
type scriptEngine struct {
	name, host string
	rt         runtime.Runtime
	began      time.Time
	cache      string // XDG_CACHE_HOME
	// operators are files of the operator's that hold a secret because they are meant to.
	operators []string
}

const baseImage = "localhost/bottle-e2e/base:1"

// TestScripts runs the end-to-end tests on the engine that BOTTLE_TEST_ENGINE
// names: hack/engines as ENGINE runs a test there.
func TestScripts(t *testing.T) {
	e := openEngine(t)
	before, err := e.rt.Inventory(t.Context())
	check(t, err)
	e.loadBase(t, nil)
	t.Run("scripts", func(t *testing.T) {
		testscript.Run(t, testscript.Params{Dir: "testdata/script/engine", Cmds: scriptCommands(e), Condition: isRoot, RequireExplicitExec: true, Setup: e.setup})
	})
	if t.Failed() {
		e.removeBottles(t)
	}
	e.removeImages(t)
	e.nothingMoreThan(t, before)
}

func openEngine(t *testing.T) *scriptEngine {
	t.Helper()
	e := &scriptEngine{name: os.Getenv("BOTTLE_TEST_ENGINE"), began: time.Now().Add(-time.Second), cache: t.TempDir()}
	switch e.name {
	case "none":
		t.Skip("BOTTLE_TEST_ENGINE=none: this run is for what needs no engine")
	case "":
		if os.Getenv("BOTTLE_REQUIRE_ENGINES") != "" {
			t.Fatal("BOTTLE_TEST_ENGINE names no engine, and BOTTLE_REQUIRE_ENGINES is set")
		}
		t.Skip("BOTTLE_TEST_ENGINE names no engine: BOTTLE_TEST_ENGINE=docker go test -exec \"hack/engines as docker --\" runs these")
	case "docker":
		e.host = os.Getenv("BOTTLE_TEST_DOCKER_HOST")
	case "containerd":
		e.host = os.Getenv("BOTTLE_TEST_CONTAINERD_HOST")
	}
	rt, err := engines().Open(t.Context(), e.name, runtime.Options{Host: e.host})
	check(t, err)
	t.Cleanup(func() { check(t, rt.Close()) })
	e.rt = rt
	// What an earlier run left when it was killed does not count against this one.
	e.removeBottles(t)
	e.removeImages(t)
	return e
}

// removeBottles removes the scripts' bottles, if one failed before its end.
func (e *scriptEngine) removeBottles(t *testing.T) {
	t.Helper()
	list, err := core.List(t.Context(), e.rt)
	check(t, err)
	for _, s := range list {
		if !strings.HasPrefix(s.Name, "e2e-") {
			continue
		}
		b, err := core.Open(t.Context(), e.rt, s.Name, nil)
		check(t, err)
		check(t, b.Close(t.Context()))
	}
}

// setup prepares a script's environment.
func (e *scriptEngine) setup(env *testscript.Env) error {
	env.Setenv("BOTTLE_RUNTIME", e.name)
	env.Setenv("BOTTLE_HOST", e.host)
	env.Setenv("BASE", baseImage)
	env.Setenv("RACES", cmp.Or(os.Getenv("BOTTLE_TEST_RACES"), "2"))
	// Temporary files go where the script can count them.
	tmp := filepath.Join(env.WorkDir, "tmp")
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return err
	}
	env.Setenv("TMPDIR", tmp)
	env.Setenv("XDG_STATE_HOME", filepath.Join(env.WorkDir, "state"))
	env.Setenv("XDG_CACHE_HOME", e.cache)
	for _, name := range []string{"HOME", "PATH", "XDG_RUNTIME_DIR", "DOCKER_HOST", "CONTAINER_HOST", "CONTAINERD_ADDRESS", "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "DBUS_SESSION_BUS_ADDRESS", "GORACE"} {
		if value, ok := os.LookupEnv(name); ok {
			env.Setenv(name, value)
		}
	}
	env.Values["env"] = env
	return nil
}

// loadBase puts an image on the engine that holds busybox and two users, and the client
// fetch if there is one.
func (e *scriptEngine) loadBase(t *testing.T, fetch []byte) {
	t.Helper()
	image := busyboxImage(t, fetch)
	ref, err := name.NewTag(baseImage)
	check(t, err)
	var archive bytes.Buffer
	check(t, tarball.Write(ref, image, &archive))
	_, err = e.rt.LoadImage(t.Context(), &archive)
	check(t, err)
}

func busyboxImage(t *testing.T, fetch []byte) v1.Image {
	t.Helper()
	program, err := os.ReadFile(lookPath(t, "busybox"))
	check(t, err)
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		check(t, w.WriteHeader(&h))
		_, err := w.Write(content)
		check(t, err)
	}
	for _, dir := range []string{"bin", "etc", "home", "root"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	add(tar.Header{Typeflag: tar.TypeDir, Name: "home/robot/", Mode: 0o755, Uid: 1000, Gid: 1000}, nil)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, program)
	for _, applet := range strings.Fields("cat chmod echo env find head id ls mkdir printenv rm sh sleep stat stty test touch true tr wc wget yes") {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox"}, nil)
	}
	if fetch != nil {
		add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/fetch", Mode: 0o755}, fetch)
		for _, other := range []string{"ask", "attack", "bypass"} {
			add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + other, Linkname: "fetch"}, nil)
		}
	}
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\nrobot:x:1000:1000::/home/robot:/bin/sh\n"))
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nrobot:x:1000:\n"))
	check(t, w.Close())
	content := layer.Bytes()
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
	check(t, err)
	image, err := mutate.AppendLayers(empty.Image, l)
	check(t, err)
	info, err := e2eInfo(image)
	check(t, err)
	image, err = mutate.ConfigFile(image, info)
	check(t, err)
	return image
}

// e2eInfo is the configuration of the base image. It carries the label that lets
// the test remove it.
func e2eInfo(image v1.Image) (*v1.ConfigFile, error) {
	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", goruntime.GOARCH
	config.Config = v1.Config{
		Env: []string{"PATH=/bin"}, User: "robot", Cmd: []string{"/bin/sh"}, Labels: map[string]string{runtime.LabelManaged: "true"},
	}
	return config, nil
}

// removeImages removes the base and what the scripts built of it.
func (e *scriptEngine) removeImages(t *testing.T) {
	t.Helper()
	images, err := e.rt.ListImages(t.Context(), runtime.Filter{})
	check(t, err)
	for _, prefix := range []string{"localhost/bottle/e2e", "localhost/bottle-e2e/"} {
		for _, image := range images {
			for _, tag := range image.Tags {
				if strings.HasPrefix(tag, prefix) {
					check(t, e.rt.RemoveImage(t.Context(), tag))
				}
			}
		}
	}
}

// nothingMoreThan compares what is on the engine with what was there before the
// scripts, of every kind, labelled or not. An engine may finish removals a moment
// later.
func (e *scriptEngine) nothingMoreThan(t *testing.T, before runtime.Inventory) {
	t.Helper()
	var left []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		after, err := e.rt.Inventory(t.Context())
		check(t, err)
		left = nil
		for kind, list := range after {
			for _, object := range list {
				if !slices.Contains(before[kind], object) {
					left = append(left, kind+": "+object)
				}
			}
		}
		if left == nil {
			return
		}
	}
	t.Errorf("left on the engine:\n%s", strings.Join(left, "\n"))
}

// scriptCommands are what the scripts can do beside running programs.
func scriptCommands(e *scriptEngine) map[string]func(*testscript.TestScript, bool, []string) {
	commands := map[string]func(*testscript.TestScript, bool, []string){
		"status": cmdStatus, "pty": cmdPty, "interrupt": cmdInterrupt, "replace": cmdReplace, "killboth": cmdKillBoth,
		"race": cmdRace, "screen": cmdScreen, "deaf": cmdDeaf,
		"small": cmdSmall, "frozen": cmdFrozen,
	}
	if e != nil {
		commands["empty"] = e.cmdEmpty
		commands["records"] = e.cmdRecords
	}
	return commands
}

// cmdStatus runs a program and checks its exit status: status N PROGRAM ARG...
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N PROGRAM [ARG...]")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, want %s", got, args[0])
	}
}

// cmdPty runs a program with a terminal as its standard files: pty STATUS INPUT
// PROGRAM ARG... INPUT is a file whose lines are typed, each when the text before
// its first tab has appeared. What the program writes goes to stdout.
func cmdPty(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: pty STATUS INPUT PROGRAM [ARG...]")
	}
	env := ts.Value("env").(*testscript.Env)
	program, err := exec.LookPath(args[2])
	ts.Check(err)
	cmd := exec.Command(program, args[3:]...)
	cmd.Env, cmd.Dir = append(slices.Clone(env.Vars), "TERM=vt220"), ts.MkAbs(".")
	terminal, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 77})
	ts.Check(err)
	defer func() { _ = terminal.Close() }()

	var seen bytes.Buffer
	pending := strings.Split(strings.TrimSpace(ts.ReadFile(args[1])), "\n")
	buf := make([]byte, 4096)
	for {
		n, err := terminal.Read(buf)
		seen.Write(buf[:n])
		for len(pending) > 0 {
			until, text, _ := strings.Cut(pending[0], "\t")
			if !strings.Contains(seen.String(), until) {
				break
			}
			pending = pending[1:]
			if rows, resize := strings.CutPrefix(text, "RESIZE "); resize {
				r, err := strconv.ParseUint(rows, 10, 16)
				ts.Check(err)
				ts.Check(pty.Setsize(terminal, &pty.Winsize{Rows: uint16(r), Cols: 99}))
				continue
			}
			text, err := strconv.Unquote(`"` + text + `"`)
			ts.Check(err)
			_, err = io.WriteString(terminal, text)
			ts.Check(err)
		}
		if err != nil {
			break // EIO: the last process that had it open is gone
		}
	}
	_ = cmd.Wait()
	_, _ = fmt.Fprint(ts.Stdout(), strings.ReplaceAll(seen.String(), "\r\n", "\n"))
	if got := cmd.ProcessState.ExitCode(); strconv.Itoa(got) != args[0] {
		ts.Fatalf("exit status %d, want %s:\n%s", got, args[0], seen.String())
	}
	if len(pending) > 0 {
		ts.Fatalf("%q never appeared:\n%s", pending[0], seen.String())
	}
}

// patience is how long a program may take that is to be interrupted.
const patience = 90 * time.Second

// cmdInterrupt runs a program and sends it a signal when a text has appeared in
// what it writes: interrupt STATUS SIGNAL[,SIGNAL] TEXT PROGRAM ARG... Its output
// goes to stdout.
func cmdInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 4 {
		ts.Fatalf("usage: interrupt STATUS SIGNAL[,SIGNAL] TEXT PROGRAM [ARG...]")
	}
	sent := false
	seen, status := follow(ts, args[3:], nil, func(cmd *exec.Cmd, seen string) {
		if !sent && strings.Contains(seen, args[2]) {
			sent = true
			for name := range strings.SplitSeq(args[1], ",") {
				ts.Check(cmd.Process.Signal(map[string]os.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "HUP": syscall.SIGHUP, "KILL": syscall.SIGKILL}[name]))
			}
		}
	})
	if !sent || strconv.Itoa(status) != args[0] {
		ts.Fatalf("exit status %d, want %s; signalled: %v\n%s", status, args[0], sent, seen)
	}
}

// follow runs a program, of which prepare may change what it likes, and shows look all
// that it has written each time that there is more. What it wrote goes to the script's
// stdout; it is returned too, with the exit status.
func follow(ts *testscript.TestScript, command []string, prepare func(*exec.Cmd), look func(cmd *exec.Cmd, seen string)) (written string, status int) {
	program, err := exec.LookPath(command[0])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, command[1:]...)
	cmd.Env, cmd.Dir = ts.Value("env").(*testscript.Env).Vars, ts.MkAbs(".")
	out, in, err := os.Pipe()
	ts.Check(err)
	defer func() { _ = out.Close() }()
	cmd.Stdout, cmd.Stderr = in, in
	if prepare != nil {
		prepare(cmd)
	}
	ts.Check(cmd.Start())
	ts.Check(in.Close())
	var seen bytes.Buffer
	buf := make([]byte, 4096)
	for {
		n, err := out.Read(buf)
		seen.Write(buf[:n])
		look(cmd, seen.String())
		if err != nil {
			break
		}
	}
	_ = cmd.Wait()
	_, _ = ts.Stdout().Write(seen.Bytes())
	return seen.String(), cmd.ProcessState.ExitCode()
}

// cmdReplace puts values of variables into files: replace FILE...
func cmdReplace(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: replace FILE...")
	}
	for _, file := range args {
		content := os.Expand(ts.ReadFile(file), func(name string) string {
			if name == "$" {
				return "$"
			}
			return ts.Getenv(name)
		})
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(content), 0o644))
	}
}

// cmdEmpty checks that a bottle has left nothing: empty PREFIX. Temporary files
// count too, and records, and watchdogs.
func (e *scriptEngine) cmdEmpty(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: empty PREFIX")
	}
	var left []string
	for deadline := time.Now().Add(killedTime()); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		inventory, err := e.rt.Inventory(context.Background())
		ts.Check(err)
		left = nil
		for kind, list := range inventory {
			for _, object := range list {
				if kind != "images" && strings.Contains(object, "bottle-"+args[0]) {
					left = append(left, kind+": "+object)
				}
			}
		}
		files, err := os.ReadDir(ts.Getenv("TMPDIR"))
		ts.Check(err)
		for _, f := range files {
			left = append(left, "temporary file: "+f.Name())
		}
		left = append(left, records(ts.Getenv("XDG_STATE_HOME"), args[0])...)
		if left == nil {
			return
		}
	}
	ts.Fatalf("left:\n%s", strings.Join(left, "\n"))
}

// cmdRecords writes all that the engine's own command line tells about a
// container and about images to stdout: records CONTAINER.
func (e *scriptEngine) cmdRecords(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: records CONTAINER")
	}
	queries := map[string][][]string{
		"docker": {{"docker", "inspect", args[0]}, {"docker", "history", "--no-trunc", baseImage}, {"docker", "top", args[0]}},
		"podman": {{"podman", "inspect", args[0]}, {"podman", "history", "--no-trunc", baseImage}, {"podman", "top", args[0]}},
		"containerd": {
			{"ctr", "--address", strings.TrimPrefix(e.host, "unix://"), "--namespace", "bottle", "containers", "list"},
			{"ctr", "--address", strings.TrimPrefix(e.host, "unix://"), "--namespace", "bottle", "containers", "info", e.id(ts, args[0])},
		},
	}[e.name]
	for _, q := range queries {
		out, err := exec.Command(q[0], q[1:]...).CombinedOutput()
		if err != nil {
			ts.Fatalf("%q: %v: %s", q, err, out)
		}
		_, _ = ts.Stdout().Write(out)
	}
}

func (e *scriptEngine) id(ts *testscript.TestScript, container string) string {
	c, err := e.rt.InspectContainer(context.Background(), container)
	ts.Check(err)
	return c.ID
}

func lookPath(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("%s is needed (Debian: busybox-static): %v", program, err)
	}
	return path
}

// busyboxDir is a directory of the usual small programs, and no engine's.
func busyboxDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	busybox := lookPath(t, "busybox")
	for _, applet := range strings.Fields("sh cat chmod mkdir touch ls mkfifo") {
		check(t, os.Symlink(busybox, filepath.Join(dir, applet)))
	}
	return dir
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
