package docker_test

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/runtime"
)

const testImage = "localhost/dk-busybox:test"

// busyboxImage builds an image with nothing but a static busybox and its links.
func busyboxImage(t *testing.T, rt runtime.Runtime) {
	t.Helper()
	if _, err := rt.InspectImage(t.Context(), testImage); err == nil {
		return
	}
	program, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal("hack/engines installs busybox-static: ", err)
	}
	dir := t.TempDir()
	content, err := os.ReadFile(program)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "busybox"), content, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "Dockerfile"), []byte(
		"FROM scratch\nCOPY busybox /bin/busybox\nCOPY busybox /bin/sh\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\nENV PATH=/bin\nCMD [\"sleep\", \"1000\"]\n"), 0o644))
	_, err = rt.BuildImage(t.Context(), runtime.BuildSpec{ContextDir: dir, Tags: []string{testImage}, Progress: testWriter{t}})
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		must(t, rt.RemoveImage(ctx, testImage))
	})
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimRight(p, "\n"))
	return len(p), nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func run(t *testing.T, rt runtime.Runtime, spec runtime.ContainerSpec) runtime.Container {
	t.Helper()
	if spec.Image == "" {
		spec.Image = testImage
	}
	c, err := rt.Run(t.Context(), spec)
	must(t, err)
	t.Cleanup(func() { must(t, rt.RemoveContainer(context.WithoutCancel(t.Context()), c.ID)) })
	return c
}

func sh(t *testing.T, rt runtime.Runtime, container, script string) string {
	t.Helper()
	var out bytes.Buffer
	status, err := rt.Exec(t.Context(), container, runtime.ExecSpec{Command: []string{"sh", "-c", script}, Stdout: &out, Stderr: &out})
	must(t, err)
	if status.Code != 0 {
		t.Errorf("%s: status %d", script, status.Code)
	}
	return strings.TrimSpace(out.String())
}

func TestScratch(t *testing.T) {
	rt := openEngine(t)
	defer rt.Close()
	busyboxImage(t, rt)
	start := time.Now()
	lap := func(what string) { t.Logf("%s %v", what, time.Since(start)); start = time.Now() }
	n, err := rt.CreateNetwork(t.Context(), runtime.NetworkSpec{Name: "dk-scratch-i", Internal: true})
	must(t, err)
	t.Cleanup(func() { must(t, rt.RemoveNetwork(context.WithoutCancel(t.Context()), n.ID)) })
	lap("net int")
	g, err := rt.CreateNetwork(t.Context(), runtime.NetworkSpec{Name: "dk-scratch-e"})
	must(t, err)
	t.Cleanup(func() { must(t, rt.RemoveNetwork(context.WithoutCancel(t.Context()), g.ID)) })
	lap("net eg")
	t.Logf("%+v %+v", n, g)
	files := []runtime.File{{Path: "/etc/a/b/conf", Content: []byte("hello"), Mode: 0o600, UID: 5, GID: 6}, {Path: "/top", Content: []byte("x"), Mode: 0o755}}
	a := run(t, rt, runtime.ContainerSpec{Name: "dk-a", Networks: []runtime.NetworkAttachment{{Network: n.Name, Aliases: []string{"alpha"}}}, Files: files})
	lap("run a")
	b := run(t, rt, runtime.ContainerSpec{Name: "dk-b", Networks: []runtime.NetworkAttachment{{Network: n.Name}, {Network: g.Name, Aliases: []string{"beta"}}}, Files: files, ReadOnly: true, Tmpfs: []runtime.Tmpfs{{Target: "/tmp"}}})
	lap("run b ro")
	t.Logf("%+v\n%+v", a, b)
	for _, c := range []string{"dk-a", "dk-b"} {
		lap("before exec")
		t.Log(sh(t, rt, c, "ls -lan / /etc/a /etc/a/b /top; cat /etc/a/b/conf; id; mount | head -40; cat /etc/resolv.conf; ip a; ip r; cat /proc/sys/net/ipv4/ip_forward; ps; grep Cap /proc/self/status; touch /x; cat /proc/self/cgroup|head -2"))
		lap("exec")
	}
	t.Log(sh(t, rt, "dk-b", "ping -c1 alpha 2>&1; nslookup alpha 2>&1; nslookup example.com 2>&1; true"))
	t.Log(sh(t, rt, "dk-a", "nslookup dk-b 2>&1; nslookup example.com 2>&1; nslookup beta 2>&1; true"))
	lap("dns")
	for _, cmd := range [][]string{{"nope"}, {"/etc"}, {"/etc/a/b/conf"}, {"sh", "-c", "exit 7"}, {"sh", "-c", "sleep 100 & echo hi"}, {"sh", "-c", "kill -9 $$"}} {
		var out bytes.Buffer
		st, err := rt.Exec(t.Context(), "dk-a", runtime.ExecSpec{Command: cmd, Stdout: &out})
		t.Logf("%v: %v %v %q", cmd, st, err, out.String())
		lap("x")
	}
	st, err := rt.Exec(t.Context(), "dk-a", runtime.ExecSpec{Command: []string{"sh"}, WorkDir: "/none"})
	t.Log(st, err)
	st, err = rt.Exec(t.Context(), "dk-a", runtime.ExecSpec{Command: []string{"sh"}, User: "nobodyhere"})
	t.Log(st, err)
	for _, c := range []string{"dk-a", "dk-b"} {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		start = time.Now()
		st, err = rt.Exec(ctx, c, runtime.ExecSpec{Command: []string{"sh", "-c", "trap '' TERM; sleep 1001 & (sleep 1002 & ) ; sleep 1003"}})
		cancel()
		t.Log(st, err)
		lap("cancel")
		t.Log(sh(t, rt, c, "ps"))
	}
	r, err := rt.CopyFrom(t.Context(), "dk-a", "/etc")
	must(t, err)
	x, err := io.ReadAll(r)
	t.Log(len(x), err)
	r.Close()
	info, err := rt.Info(t.Context())
	t.Logf("%+v %v", info, err)
	inv, err := rt.Inventory(t.Context())
	t.Logf("%v %v", inv, err)
}
