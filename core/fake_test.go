package core_test

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/imagecache"
	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/fake"
)

const passwd = "root:x:0:0::/root:/bin/sh\nrobot:x:1000:1001::/home/robot:/bin/sh\n"

// bench is an engine in memory with the image "img", and a project directory.
type bench struct {
	*fake.Engine
	t    *testing.T
	rt   runtime.Runtime
	dir  string
	host core.Host
	env  map[string]string

	images *imagecache.Cache
	// says are what the agent's main process writes.
	says chan string

	mu     sync.Mutex
	events []core.Event
	ran    int // commands of the image
}

func newBench(t *testing.T, files map[string]string) *bench {
	t.Helper()
	b := &bench{Engine: fake.New(), t: t, dir: t.TempDir(), env: map[string]string{}, says: make(chan string)}
	b.rt = runtime.Checked(b.Engine)
	b.AddImage("img", runtime.ImageConfig{User: "robot", Env: []string{"PATH=/bin"}, Cmd: []string{"/bin/agent"}}, nil,
		map[string]string{"/etc/passwd": passwd, "/etc/group": "staff:x:50:\n", "/bin/agent": "", "/home/robot/.keep": ""})
	b.Handle(inside.Path, b.inside)
	for name, content := range files {
		b.write(name, content)
	}
	b.host = core.Host{WorkDir: b.dir, HomeDir: filepath.Join(b.dir, "home"), LookupEnv: func(name string) (string, bool) {
		v, ok := b.env[name]
		return v, ok
	}}
	return b
}

func (b *bench) write(name, content string) {
	b.t.Helper()
	full := filepath.Join(b.dir, name)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) unlink(name string) {
	b.t.Helper()
	if err := os.Remove(filepath.Join(b.dir, name)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) link(name, target string) {
	b.t.Helper()
	if err := os.Symlink(target, filepath.Join(b.dir, name)); err != nil {
		b.t.Fatal(err)
	}
}

// inside does what the program of that package does.
func (b *bench) inside(ctx context.Context, p *fake.Process) int {
	switch p.Args[1] {
	case "idle":
		if len(p.Args) == 3 {
			content, err := io.ReadAll(p.Stdin)
			if err == nil {
				err = p.Files.WriteFile(p.Args[2], fake.Node{Mode: 0o600, Content: content})
			}
			if err != nil {
				_, _ = fmt.Fprintln(p.Stderr, err)
				return 125
			}
			_, _ = fmt.Fprintln(p.Stderr, inside.Ready)
		}
		for {
			select {
			case text := <-b.says:
				_, _ = io.WriteString(p.Stdout, text)
			case <-ctx.Done():
				return 0
			case <-p.Notify():
				return 0
			}
		}
	case "put", "share":
		mode := map[string]fs.FileMode{"put": 0o600, "share": 0o644}[p.Args[1]]
		content, err := io.ReadAll(p.Stdin)
		if err == nil {
			err = p.Files.WriteFile(p.Args[2], fake.Node{Mode: mode, Content: content})
		}
		if err != nil {
			_, _ = fmt.Fprintln(p.Stderr, err)
			return 125
		}
		return 0
	case "get":
		content, err := p.Files.ReadFile(p.Args[2])
		if err == nil {
			_, _ = p.Stdout.Write(content)
		}
		return 0
	case "env":
		content, err := p.Files.ReadFile(p.Args[2])
		if err == nil {
			p.Env = append(p.Env, strings.Split(strings.TrimSuffix(string(content), "\x00"), "\x00")...)
		}
		p.Args = p.Args[3:]
		if p.Args[0] == inside.Path {
			return b.inside(ctx, p)
		}
		return b.command(p)
	}
	return 125
}

// command is the agent's side of an exec: it prints a variable or exits.
func (b *bench) command(p *fake.Process) int {
	b.mu.Lock()
	b.ran++
	b.mu.Unlock()
	switch p.Args[0] {
	case "getenv":
		_, _ = fmt.Fprint(p.Stdout, p.Getenv(p.Args[1]))
	case "/bin/agent":
		_, _ = fmt.Fprint(p.Stdout, "agent in "+p.Dir)
		return 7
	default:
		return 127
	}
	return 0
}

func (b *bench) manifest(text string) *manifest.Manifest {
	b.t.Helper()
	m, err := manifest.Parse(filepath.Join(b.dir, "bottle.yaml"), []byte(text))
	if err != nil {
		b.t.Fatal(err)
	}
	return m
}

func (b *bench) plan(text string, wishes core.Wishes) (core.Plan, core.Secrets) {
	b.t.Helper()
	p, s, err := core.NewPlan(b.manifest(text), b.host, wishes)
	if err != nil {
		b.t.Fatal(err)
	}
	return p, s
}

func (b *bench) observe(e core.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, e)
}

func (b *bench) launch(ctx context.Context, text string, wishes core.Wishes) (*core.Bottle, error) {
	b.t.Helper()
	p, s := b.plan(text, wishes)
	return core.Launch(ctx, b.rt, p, core.LaunchOptions{Secrets: s, Observer: b.observe, Images: b.images})
}

// holds lists the containers and networks on the engine.
func (b *bench) holds() []string {
	b.t.Helper()
	inventory, err := b.Inventory(context.Background())
	if err != nil {
		b.t.Fatal(err)
	}
	return slices.Concat(inventory["containers"], inventory["networks"])
}

func (b *bench) empty() {
	b.t.Helper()
	if left := b.holds(); len(left) > 0 {
		b.t.Errorf("left on the engine: %q", left)
	}
}
