package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mcpClientVariable names the directory of an MCP client that nobody here wrote, which
// hack/mcp-client/install makes.
const mcpClientVariable = "BOTTLE_TEST_MCP_CLIENT"

// mcpBottle is a bottle in which such a client runs, with curl beside it.
type mcpBottle struct {
	*toolchainBottle
	hosts *toolchainHosts
}

const mcpName = "e2e-mcp"

// checkMCP has a real client propose, wait and be answered.
func checkMCP(t *testing.T, e *scriptEngine, hosts *toolchainHosts) {
	client := os.Getenv(mcpClientVariable)
	if client == "" {
		if os.Getenv("BOTTLE_REQUIRE_ENGINES") != "" {
			t.Fatalf("%s names no client, and BOTTLE_REQUIRE_ENGINES is set: %[1]s=$(hack/mcp-client/install)", mcpClientVariable)
		}
		t.Skipf("%s names no client: %[1]s=$(hack/mcp-client/install) installs one", mcpClientVariable)
	}
	b := &mcpBottle{&toolchainBottle{e: e, dir: t.TempDir()}, hosts}
	b.launch(t, client)
	for _, step := range []struct {
		name string
		run  func(*mcpBottle, *testing.T)
	}{
		{"it lists the tools", (*mcpBottle).lists},
		{"a yes is in force at once", (*mcpBottle).approved},
		{"a no changes nothing", (*mcpBottle).denied},
		{"a yes with an edit", (*mcpBottle).edited},
		{"a yes to what is stale is refused", (*mcpBottle).stale},
		{"a connection that is cut loses nothing", (*mcpBottle).cut},
		{"a sidecar that is killed loses nothing", (*mcpBottle).killed},
		{"a call waits for as long as it takes", (*mcpBottle).waits},
	} {
		if !t.Run(step.name, func(t *testing.T) { step.run(b, t) }) {
			t.FailNow() // the rest stands on it
		}
	}
}

func (b *mcpBottle) launch(t *testing.T, client string) {
	t.Helper()
	type m = map[string]any
	text, err := json.Marshal(m{ // YAML, too
		"bottles": m{mcpName: m{
			"image": toolchainImage, "user": "robot", "workspace": m{"path": client, "gitignore": false}, "supervise": m{"mcp": []string{}, "limits": m{"per_minute": 100}},
			"egress":   m{"allow": []string{b.hosts.allowed}},
			"firewall": m{"dns": []string{b.hosts.dns}, "allow_cidrs": []string{b.hosts.network}, "ca_files": []string{"corp.pem"}},
		}},
		"agents": m{mcpName: m{"bottle": mcpName}},
	})
	check(t, err)
	check(t, os.WriteFile(filepath.Join(b.dir, "bottle.yaml"), text, 0o644))
	check(t, os.WriteFile(filepath.Join(b.dir, "corp.pem"), b.hosts.roots, 0o644))
	b.must(t, "run", "--detach")
	t.Cleanup(func() {
		if out, err := b.bottle(context.Background(), "rm", mcpName); err != nil {
			t.Errorf("bottle rm: %v\n%s", err, out)
		}
	})
}

func (b *mcpBottle) must(t *testing.T, args ...string) string {
	t.Helper()
	out, err := b.bottle(t.Context(), args...)
	if err != nil {
		t.Fatalf("bottle %q: %v\n%s", args, err, out)
	}
	return out
}

// client is the command that runs the client with a method.
func client(args ...string) []string {
	return append([]string{"exec", mcpName, "--", "node", "/workspace/node_modules/@modelcontextprotocol/inspector-cli/build/cli.js",
		"--cli", "http://supervise:9100/", "--transport", "http"}, args...)
}

func call(tool string, args ...string) []string {
	words := []string{"--method", "tools/call", "--tool-name", tool}
	for _, a := range args {
		words = append(words, "--tool-arg", a)
	}
	return client(words...)
}

// propose proposes a host and returns the proposal's id.
func (b *mcpBottle) propose(t *testing.T, host string) string {
	t.Helper()
	out := b.must(t, call("propose_egress", `add=[{"host":"`+host+`","ports":[80]}]`, "reason=the docs are there")...)
	var got struct{ StructuredContent struct{ ID, State string } }
	if err := json.Unmarshal([]byte(out), &got); err != nil || got.StructuredContent.State != "pending" {
		t.Fatalf("%v\n%s", err, out)
	}
	return got.StructuredContent.ID
}

// wait begins to wait for an answer; what is returned gives what the client then says.
func (b *mcpBottle) wait(ctx context.Context, id string) func() string {
	said := make(chan string, 1)
	go func() {
		out, err := b.bottle(ctx, call("wait_for_answer", "id="+id)...)
		if err != nil {
			out += "\n" + err.Error()
		}
		said <- out
	}()
	return func() string { return <-said }
}

// curl gives the status of a request by the agent.
func (b *mcpBottle) curl(t *testing.T, host string) string {
	t.Helper()
	return strings.TrimSpace(b.must(t, "exec", mcpName, "--", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "http://"+host+"/hello"))
}

func (b *mcpBottle) lists(t *testing.T) {
	out := b.must(t, client("--method", "tools/list")...)
	for _, tool := range []string{"get_configuration", "propose_egress", "propose_routes", "propose_git_push", "propose_dockerfile", "wait_for_answer", "get_proposal", "list_proposals", "withdraw_proposal"} {
		if !strings.Contains(out, `"name": "`+tool+`"`) {
			t.Errorf("there is no %s:\n%s", tool, out)
		}
	}
	if out := b.must(t, call("get_configuration")...); !strings.Contains(out, b.hosts.allowed) {
		t.Error(out)
	}
}

func (b *mcpBottle) approved(t *testing.T) {
	if got := b.curl(t, b.hosts.denied); got != "403" {
		t.Fatalf("before: %s", got)
	}
	id := b.propose(t, b.hosts.denied)
	said := b.wait(t.Context(), id)
	time.Sleep(2 * time.Second) // the client starts; sooner would be no error
	// One shell asks again and again, so that no engine's exec is part of what is measured.
	loop := make(chan string, 1)
	go func() {
		out, err := b.bottle(t.Context(), "exec", mcpName, "--", "sh", "-c",
			`i=0; until c=$(curl -s -m 20 -o /dev/null -w '%{http_code}' http://`+b.hosts.denied+`/hello); test "$c" = 200; do
				i=$((i+1)); test $i -lt 1000 || { echo "status $c, still"; exit 1; }; sleep 0.02; done; date +%s.%N`)
		if err != nil {
			out += err.Error()
		}
		loop <- out
	}()
	b.must(t, "proposals", "approve", mcpName, id, "--reason", "fine")
	approved := time.Now()
	at := strings.TrimSpace(<-loop)
	if out := said(); !strings.Contains(out, `"state": "approved"`) || !strings.Contains(out, "fine") {
		t.Errorf("the client that waited: %s", out)
	}
	var seconds float64
	if _, err := fmt.Sscan(at, &seconds); err != nil {
		t.Fatalf("%q: %v", at, err)
	}
	t.Logf("200 came %.0f ms after bottle proposals approve had ended", 1000*seconds-float64(approved.UnixMilli()))
}

func (b *mcpBottle) denied(t *testing.T) {
	id := b.propose(t, "other."+b.hosts.denied)
	said := b.wait(t.Context(), id)
	b.must(t, "proposals", "deny", mcpName, id, "--reason", "too much")
	if out := said(); !strings.Contains(out, `"state": "denied"`) || !strings.Contains(out, "too much") {
		t.Error(out)
	}
	if got := b.curl(t, "other."+b.hosts.denied); got != "403" {
		t.Errorf("after a no: %s", got)
	}
}

func (b *mcpBottle) edited(t *testing.T) {
	id := b.propose(t, "*."+b.hosts.denied)
	said := b.wait(t.Context(), id)
	file := filepath.Join(b.dir, "edit.json")
	check(t, os.WriteFile(file, []byte(`{"kind":"egress_allow","egress_allow":{"add":[{"host":"`+b.hosts.routed+`","ports":[80]}]}}`), 0o600))
	b.must(t, "proposals", "approve", mcpName, id, "--edit", file)
	if out := said(); !strings.Contains(out, "changes of the operator") || !strings.Contains(out, b.hosts.routed) {
		t.Error(out)
	}
	if got := b.curl(t, b.hosts.routed); got != "200" {
		t.Errorf("what was edited: %s", got)
	}
	if got := b.curl(t, "x."+b.hosts.denied); got != "403" {
		t.Errorf("what was proposed: %s", got)
	}
}

func (b *mcpBottle) stale(t *testing.T) {
	id := b.propose(t, "stale.example")
	out, err := b.bottle(t.Context(), "proposals", "approve", mcpName, id, "--policy-revision", strings.Repeat("0", 64))
	if err == nil || !strings.Contains(out, "has changed since it was shown") {
		t.Errorf("%v: %s", err, out)
	}
	if out := b.must(t, call("get_proposal", "id="+id)...); !strings.Contains(out, `"state": "pending"`) {
		t.Error(out)
	}
	b.must(t, call("withdraw_proposal", "id="+id)...)
}

func (b *mcpBottle) cut(t *testing.T) {
	id := b.propose(t, "cut.example")
	ctx, cancel := context.WithCancel(t.Context())
	first := b.wait(ctx, id)
	time.Sleep(2 * time.Second) // it is under way by then, or is cut while it connects
	cancel()                    // bottle is killed, and the client with it
	if out := first(); strings.Contains(out, "approved") {
		t.Errorf("an answer before there is one: %s", out)
	}
	again := b.wait(t.Context(), id)
	b.must(t, "proposals", "approve", mcpName, id)
	if out := again(); !strings.Contains(out, `"state": "approved"`) {
		t.Error(out)
	}
}

func (b *mcpBottle) killed(t *testing.T) {
	id := b.propose(t, "killed.example")
	ctx, cancel := context.WithCancel(t.Context())
	before := b.wait(ctx, id)
	time.Sleep(2 * time.Second)
	b.killServer(t)
	cancel() // its connection is gone, and it would take a minute to give up
	if out := before(); strings.Contains(out, "approved") {
		t.Errorf("an answer before there is one: %s", out)
	}
	again := b.wait(t.Context(), id)
	b.must(t, "proposals", "approve", mcpName, id)
	if out := again(); !strings.Contains(out, `"state": "approved"`) {
		t.Error(out)
	}
	if out := b.must(t, call("list_proposals")...); !strings.Contains(out, `"p1"`) {
		t.Errorf("what was answered before is gone: %s", out)
	}
	if got := b.curl(t, b.hosts.denied); got != "200" {
		t.Errorf("what was approved before: %s", got)
	}
}

// waitVariable says how long a call is let wait, such as 10m.
const waitVariable = "BOTTLE_SOAK_WAIT"

// waits has one call wait, through curl: the client gives up after a minute by itself.
func (b *mcpBottle) waits(t *testing.T) {
	wait := 12 * time.Second // longer than nothing is ever said on a response
	if text := os.Getenv(waitVariable); text != "" {
		var err error
		wait, err = time.ParseDuration(text)
		check(t, err)
	}
	id := b.propose(t, "patient.example")
	cmd := exec.CommandContext(t.Context(), "bottle", "exec", mcpName, "--", "curl", "-sSN", "-H", "Content-Type: application/json", "-H", "Accept: application/json, text/event-stream",
		"-d", `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"wait_for_answer","arguments":{"id":"`+id+`"}}}`, "http://supervise:9100/")
	cmd.Dir, cmd.Env = b.dir, b.environ()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	begun := time.Now()
	check(t, cmd.Start())
	time.Sleep(wait)
	b.must(t, "proposals", "approve", mcpName, id)
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "approved") || !strings.Contains(out.String(), ": waiting") {
		t.Errorf("after %v: %v\n%s", time.Since(begun), err, out.String())
	}
	t.Logf("one call waited for %v, with %d signs of life", time.Since(begun).Round(time.Second), strings.Count(out.String(), ": waiting"))
}

// killServer kills the newest process of the supervise sidecar's program in its container:
// the server, which another process of it starts again.
func (b *mcpBottle) killServer(t *testing.T) {
	t.Helper()
	_, err := b.e.inSupervise(mcpName, sidecarProcesses+`; kill -9 $(processes | /busybox tail -n 1)`)
	check(t, err)
}
