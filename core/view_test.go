package core_test

import (
	"bytes"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/core/imagecache"
	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/fake"
)

const recalledText = `
bottles:
  dev:
    image: img
    workspace: {path: src, target: /home/robot/work}
    supervise: {propose: [egress_allow], mcp: [claude, cursor, vscode, gemini, codex]}
    egress: {allow: [a.test]}
agents:
  coder:
    bottle: dev
    files:
      - {target: ~/.gemini/settings.json, content: '{"theme": "dark"}', mode: "0600"}
      - {target: /home/robot/work/docs/deep/note, content: noted}
      - {target: /opt/tools/config, content: configured}
`

const systemRoots = "/etc/ssl/certs/ca-certificates.crt"

// recallBench is a bench whose image has roots of certificates and a configuration of its own.
func recallBench(t *testing.T) *bench {
	b, _ := sealedBench(t)
	root, err := ca.New(ca.Spec{Name: "of the image"})
	if err != nil {
		t.Fatal(err)
	}
	b.AddImage("img", runtime.ImageConfig{User: "robot", Env: []string{"PATH=/bin"}, Cmd: []string{"/bin/agent"}}, nil, map[string]string{
		"/etc/passwd": passwd, "/bin/agent": "", "/home/robot/.keep": "", systemRoots: string(root.CertPEM),
	})
	for name, content := range map[string]string{
		"src/.mcp.json": `{"mcpServers": {"mine": {"url": "http://mine.test/"}}}`, "src/docs/read.md": "# read", "src/main.go": "package main",
	} {
		b.write(name, content)
	}
	return b
}

// tree lists what a container holds: kinds, modes and owners.
func (b *bench) tree(container string) map[string]string {
	b.t.Helper()
	files, err := b.Files(container)
	if err != nil {
		b.t.Fatal(err)
	}
	found := map[string]string{}
	var walk func(dir string)
	walk = func(dir string) {
		names, err := files.ReadDir(dir)
		if err != nil {
			b.t.Fatal(err)
		}
		for _, name := range names {
			full := path.Join(dir, name)
			node, err := files.Lstat(full)
			if err != nil {
				b.t.Fatal(err)
			}
			found[full] = fmt.Sprintf("%v %d:%d %s", node.Mode, node.UID, node.GID, node.Link)
			if node.Mode.IsDir() {
				walk(full)
			}
		}
	}
	walk("/")
	return found
}

// copies counts the copies to and from containers, and the execs.
func copies(calls []fake.Call) (in, out, execs int) {
	for _, c := range calls {
		switch c.Op {
		case "Exec":
			execs++
		case "CopyTo":
			in++
		case "CopyFrom":
			out++
		}
	}
	return in, out, execs
}

func TestWhatIsKnownOfAnImageIsNotAskedForAgain(t *testing.T) {
	b := recallBench(t)
	cache := imagecache.New(path.Join(b.dir, "cache"))
	texts := []string{"/home/robot/work/.mcp.json", "/home/robot/work/.vscode/mcp.json", "/home/robot/.cursor/mcp.json", "/home/robot/.gemini/settings.json", "/home/robot/.codex/config.toml", "/home/robot/work/docs/deep/note", inside.EnvFile}
	var want map[string]string
	said := map[string]string{}
	for round, kept := range []*imagecache.Cache{nil, cache, cache} {
		b.images = kept
		before := len(b.Calls())
		bottle, err := b.launchSealed(t.Context(), recalledText)
		if err != nil {
			t.Fatal(err)
		}
		in, out, execs := copies(b.Calls()[before:])
		if last := round == 2; last != (out == 0) || last && (in != 1 || execs != 0) {
			t.Errorf("launch %d: %d copies in and %d out, %d execs", round, in, out, execs)
		}
		got := b.tree("bottle-coder")
		if want == nil {
			want = got
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			if got[name] != want[name] {
				t.Errorf("launch %d: %s is %q, and was %q", round, name, got[name], want[name])
			}
		}
		if len(got) != len(want) {
			t.Errorf("launch %d: %d files, and there were %d", round, len(got), len(want))
		}
		for _, name := range texts {
			text := readBack(t, bottle, name)
			if said[name] == "" {
				said[name] = text
			}
			if text != said[name] {
				t.Errorf("launch %d: %s is %q, and was %q", round, name, text, said[name])
			}
		}
		if n := strings.Count(readBack(t, bottle, systemRoots), "BEGIN CERTIFICATE"); n != 2 {
			t.Errorf("launch %d: the system's store has %d roots", round, n)
		}
		if err := bottle.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	for name, parts := range map[string][]string{
		texts[0]: {`"mine"`, `"supervise"`}, texts[1]: {`"supervise"`}, texts[2]: {`"supervise"`}, texts[3]: {`"dark"`, `"supervise"`}, texts[4]: {"[mcp_servers.supervise]"}, texts[5]: {"noted"},
	} {
		for _, part := range parts {
			if !strings.Contains(said[name], part) {
				t.Errorf("%s has no %s: %s", name, part, said[name])
			}
		}
	}
	// Another user's home is another place, of which nothing is known yet.
	before := len(b.Calls())
	bottle, err := b.launchSealed(t.Context(), strings.Replace(recalledText, "image: img", "image: img\n    user: root", 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, out, _ := copies(b.Calls()[before:]); out == 0 {
		t.Error("what is known of one user is believed of another")
	}
	if text := readBack(t, bottle, "/root/.gemini/settings.json"); !strings.Contains(text, "dark") {
		t.Errorf("root's file: %s", text)
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.empty()
}

// The home directory that the environment names counts, whenever it is looked up.
func TestTheHomeOfARecalledUserIsTheOneThatCounts(t *testing.T) {
	b := newBench(t, nil)
	b.images = imagecache.New(path.Join(b.dir, "cache"))
	b.env["SECRET"] = "hidden"
	for range 2 {
		bottle, err := b.launch(t.Context(), "bottles:\n  b: {image: img, workspace: false, env: {HOME: /data}, forward: [SECRET]}\nagents:\n  robot: {bottle: b, files: [{content: x, target: ~/f}]}\n", core.Wishes{})
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"HOME": "/data", "USER": "robot", "SECRET": "hidden"} {
			var out bytes.Buffer
			if _, err := bottle.Exec(t.Context(), core.ExecOptions{Command: []string{"getenv", name}, Stdout: &out}); err != nil || out.String() != want {
				t.Errorf("%s is %q, %v", name, out.String(), err)
			}
		}
		if text := readBack(t, bottle, "/data/f"); text != "x" {
			t.Errorf("%q", text)
		}
		if err := bottle.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatTheIdleProcessSaysIsNoneOfTheAgentsWords(t *testing.T) {
	b := newBench(t, nil)
	b.images = imagecache.New(path.Join(b.dir, "cache"))
	for range 2 {
		bottle, err := b.launch(t.Context(), small, core.Wishes{})
		if err != nil {
			t.Fatal(err)
		}
		b.says <- "one\n"
		var lines []string
		for len(lines) == 0 { // what is said takes a moment
			if err := bottle.ReadLogs(t.Context(), core.LogOptions{}, func(l core.LogLine) error {
				lines = append(lines, string(l.Text))
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(lines, []string{"one"}) {
			t.Errorf("%q", lines)
		}
		if err := bottle.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// A file of the manifest's is none of the image's, wherever it lies.
func TestWhatTheManifestPutsThereIsNotTakenForTheImages(t *testing.T) {
	b := recallBench(t)
	b.images = imagecache.New(path.Join(b.dir, "cache"))
	const own = "/usr/local/share/ca-certificates/own.crt"
	with := strings.Replace(recalledText, "{target: /opt/tools/config", "{target: "+own+", content: mine}\n      - {target: /opt/tools/config", 1)
	for _, text := range []string{with, with, recalledText} {
		bottle, err := b.launchSealed(t.Context(), text)
		if err != nil {
			t.Fatal(err)
		}
		if _, there := b.tree("bottle-coder")[own]; there != (text == with) {
			t.Errorf("there: %v", there)
		}
		if err := bottle.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// What is on the way to a file may be a link, and then only the container tells where it is.
func TestARegistrationBehindALinkComesLater(t *testing.T) {
	b := recallBench(t)
	b.images = imagecache.New(path.Join(b.dir, "cache"))
	b.write("src/real/x", "")
	b.link("src/.vscode", "real")
	b.link("src/dangling", "nowhere")
	for range 2 {
		bottle, err := b.launchSealed(t.Context(), recalledText)
		if err != nil {
			t.Fatal(err)
		}
		if text := readBack(t, bottle, "/home/robot/work/real/mcp.json"); !strings.Contains(text, "supervise") {
			t.Errorf("%s", text)
		}
		if kind := b.tree("bottle-coder")["/home/robot/work/.vscode"]; !strings.HasSuffix(kind, " real") {
			t.Errorf("the link is %q", kind)
		}
		if err := bottle.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// What is no configuration of the program's stays as it is, and is said.
func TestAnOddConfigurationIsNotAddedTo(t *testing.T) {
	b := recallBench(t)
	b.images = imagecache.New(path.Join(b.dir, "cache"))
	b.write("src/.vscode/mcp.json", "[]")
	b.write("src/.mcp.json", "")
	b.unlink("src/.mcp.json")
	b.link("src/.mcp.json", "main.go")
	for range 2 {
		b.events = nil
		bottle, err := b.launchSealed(t.Context(), recalledText)
		if err != nil {
			t.Fatal(err)
		}
		if text := readBack(t, bottle, "/home/robot/work/.vscode/mcp.json"); text != "[]" {
			t.Errorf("%q", text)
		}
		if kind := b.tree("bottle-coder")["/home/robot/work/.mcp.json"]; !strings.HasSuffix(kind, " main.go") {
			t.Errorf("the link is %q", kind)
		}
		var said []string
		for _, e := range b.events {
			if e.Step == "register supervise" && (e.State == core.StateNote || e.State == core.StateEnd) {
				said = append(said, e.Text)
			}
		}
		slices.Sort(said)
		want := []string{
			"/home/robot/.codex/config.toml, /home/robot/.cursor/mcp.json, /home/robot/.gemini/settings.json",
			"the supervise server is not registered for claude: /home/robot/work/.mcp.json is no regular file",
			"the supervise server is not registered for vscode: ./.vscode/mcp.json is no JSON object",
		}
		if !slices.Equal(said, want) {
			t.Errorf("said %q", said)
		}
		if err := bottle.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestACacheThatCannotBeWrittenIsNoError(t *testing.T) {
	b := recallBench(t)
	b.write("cache", "a file")
	b.images = imagecache.New(path.Join(b.dir, "cache"))
	bottle, err := b.launchSealed(t.Context(), recalledText)
	if err != nil {
		t.Fatal(err)
	}
	noted := slices.ContainsFunc(b.events, func(e core.Event) bool {
		return e.State == core.StateNote && strings.Contains(e.Text, "is not kept for the next launch")
	})
	if !noted {
		t.Error("nothing was said of it")
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}
