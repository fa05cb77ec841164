package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/bottle-run/bottle/core/sidecarimage"
)

const (
	toolchainImage = "localhost/bottle-e2e/toolchain:1"
	// toolchainVariable names the archive of it, which hack/toolchain-image makes.
	toolchainVariable = "BOTTLE_TEST_TOOLCHAIN"
)

// teaching is what a denial begins with.
const teaching = "denied by bottle"

// tool is a program that speaks HTTP, as testdata/toolchain/run.sh runs it: with no option
// about proxies or roots.
type tool struct {
	name string
	// plain is whether it speaks HTTP without TLS too.
	plain bool
	// denied is what it says about a denial: the body of the answer, or at least its status.
	denied string
	// needsRoot is whether it needs the container's root. root is whether root tries it, too: a
	// bottle gives both the same, and one of each kind shows it.
	needsRoot, root bool
}

var tools = []tool{
	{name: "curl", plain: true, denied: teaching, root: true},
	{name: "curl-without-variables", plain: true, denied: teaching, root: true},
	{name: "wget", plain: true, denied: teaching},
	{name: "git", plain: true, denied: "returned error: 403"},
	{name: "python-urllib", plain: true, denied: teaching},
	{name: "python-urllib-without-variables", plain: true, denied: teaching},
	{name: "python-requests", plain: true, denied: teaching},
	{name: "node-fetch", plain: true, denied: teaching},
	{name: "node-https", plain: true, denied: teaching},
	{name: "go", plain: true, denied: teaching},
	{name: "go-without-variables", plain: true, denied: teaching},
	{name: "java", plain: true, denied: teaching},
	{name: "openssl", denied: teaching},
	{name: "apt-helper", plain: true, denied: "403"},
	{name: "apt", plain: true, denied: "403", needsRoot: true},
	{name: "npm", plain: true, denied: "403 Forbidden"},
}

// TestToolchains checks that the usual tools reach what is allowed, through both sidecars
// and with no option given, and are told of what is not, on the engine that
// BOTTLE_TEST_ENGINE names.
func TestToolchains(t *testing.T) {
	e := openEngine(t)
	archive := os.Getenv(toolchainVariable)
	if archive == "" {
		if os.Getenv("BOTTLE_REQUIRE_ENGINES") != "" {
			t.Fatalf("%s names no image, and BOTTLE_REQUIRE_ENGINES is set: %[1]s=$(hack/toolchain-image)", toolchainVariable)
		}
		t.Skipf("%s names no image: %[1]s=$(hack/toolchain-image) makes one", toolchainVariable)
	}
	if os.Getenv(sidecarimage.Variable) == "" {
		t.Fatalf("%s has to name a static bottle-sidecar: make build, and then %[1]s=$PWD/bin/bottle-sidecar", sidecarimage.Variable)
	}
	before, err := e.rt.Inventory(t.Context())
	check(t, err)
	defer func() {
		e.removeBottles(t)
		e.removeImages(t)
		e.removeSidecarImages(t)
		e.nothingMoreThan(t, before)
	}()
	hosts := newToolchainHosts(t)
	b := &toolchainBottle{e: e, dir: t.TempDir()}
	b.workspace(t)
	check(t, os.WriteFile(filepath.Join(b.dir, "corp.pem"), hosts.roots, 0o644))
	b.load(t, archive)
	t.Run("at once", func(t *testing.T) { // both mostly wait
		t.Run("a client of MCP", func(t *testing.T) {
			t.Parallel()
			checkMCP(t, e, hosts)
		})
		t.Run("tools", func(t *testing.T) {
			t.Parallel()
			for _, user := range []string{"root", "robot"} {
				t.Run(user, func(t *testing.T) { b.checkAll(t, hosts, user) })
			}
		})
	})
}

// toolchainBottle is a directory with a manifest and what the bottle works on.
type toolchainBottle struct {
	e   *scriptEngine
	dir string
}

// workspace gathers the clients.
func (b *toolchainBottle) workspace(t *testing.T) {
	t.Helper()
	work := filepath.Join(b.dir, "work")
	check(t, os.CopyFS(work, os.DirFS("testdata/toolchain")))
	check(t, os.WriteFile(filepath.Join(work, "client"), testProgram(t, "client"), 0o755))
}

func (b *toolchainBottle) load(t *testing.T, archive string) {
	t.Helper()
	f, err := os.Open(archive)
	check(t, err)
	defer func() { _ = f.Close() }()
	_, err = b.e.rt.LoadImage(t.Context(), f)
	check(t, err)
}

func (b *toolchainBottle) manifest(t *testing.T, hosts *toolchainHosts, user string) {
	t.Helper()
	type m = map[string]any
	text, err := json.Marshal(m{ // YAML, too
		"bottles": m{"e2e-tools": m{
			"image": toolchainImage, "user": user, "workspace": "work",
			"egress": m{
				"allow": []string{hosts.allowed},
				// A route makes it two hops.
				"routes": []m{{"id": "routed", "host": hosts.routed, "ports": []int{80, 443}, "methods": []string{"GET", "POST"}, "paths": []string{"/**"}}},
			},
			"firewall": m{"dns": []string{hosts.dns}, "allow_cidrs": []string{hosts.network}, "ca_files": []string{"corp.pem"}},
		}},
		"agents": m{"e2e-tools": m{"bottle": "e2e-tools", "command": []string{"true"}}},
	})
	check(t, err)
	check(t, os.WriteFile(filepath.Join(b.dir, "bottle.yaml"), text, 0o644))
}

func (b *toolchainBottle) environ() []string {
	return append(os.Environ(), "BOTTLE_RUNTIME="+b.e.name, "BOTTLE_HOST="+b.e.host, "XDG_STATE_HOME="+filepath.Join(b.dir, "state"), "XDG_CACHE_HOME="+b.e.cache)
}

// bottle runs the program and returns what it says. One that hangs says where.
func (b *toolchainBottle) bottle(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bottle", args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGQUIT) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Dir, cmd.Env = b.dir, b.environ()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (b *toolchainBottle) checkAll(t *testing.T, hosts *toolchainHosts, user string) {
	b.manifest(t, hosts, user)
	out, err := b.bottle(t.Context(), "run", "--detach")
	if err != nil {
		t.Fatalf("bottle run: %v\n%s", err, out)
	}
	defer func() {
		if out, err := b.bottle(context.Background(), "rm", "e2e-tools"); err != nil {
			t.Errorf("bottle rm: %v\n%s", err, out)
		}
	}()
	for _, tool := range tools {
		if user == "root" && (tool.root || tool.needsRoot) || user != "root" && !tool.needsRoot {
			t.Run(tool.name, func(t *testing.T) { b.checkTool(t, hosts, tool) })
		}
	}
	if user != "root" {
		return
	}
	// The system's own tool makes its stores anew, and the bottle's root is still there.
	t.Run("update-ca-certificates", func(t *testing.T) {
		if out, err := b.bottle(t.Context(), "exec", "e2e-tools", "update-ca-certificates", "--fresh"); err != nil {
			t.Fatalf("update-ca-certificates: %v\n%s", err, out)
		}
		for _, name := range []string{"curl-without-variables", "wget"} {
			b.checkTool(t, hosts, tool{name: name, denied: teaching})
		}
	})
}

// checkTool runs a tool against what is allowed and what is not.
func (b *toolchainBottle) checkTool(t *testing.T, hosts *toolchainHosts, tool tool) {
	t.Helper()
	schemes := []string{"https"}
	if tool.plain {
		schemes = append(schemes, "http")
	}
	want := map[string]string{}
	args := []string{"exec", "e2e-tools", "--", "sh", "/workspace/run.sh", tool.name}
	for _, scheme := range schemes {
		for host, text := range map[string]string{
			hosts.allowed: helloFrom(scheme, hosts.allowed), hosts.routed: helloFrom(scheme, hosts.routed), hosts.denied: tool.denied,
		} {
			url := scheme + "://" + host
			want[url] = text
			args = append(args, url)
		}
	}
	out, err := b.bottle(t.Context(), args...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	got := map[string]string{}
	for section := range strings.SplitSeq(out, "== ") {
		url, text, _ := strings.Cut(section, "\n")
		got[url] = text
	}
	var summary []string
	for url, text := range want {
		if !strings.Contains(got[url], text) {
			t.Errorf("%s %s: want %q, got\n%s", tool.name, url, text, got[url])
			continue
		}
		summary = append(summary, fmt.Sprintf("%s: %s", url, text))
	}
	if t.Failed() {
		t.Logf("all of it:\n%s", out)
	}
	t.Logf("%s\n%s", tool.name, strings.Join(summary, "\n"))
}
