package fake

import (
	"context"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// Program stands for an executable file: it is called in place of the process
// and returns its exit status. ctx ends when the process is killed; what a
// program does after that has no effect any more.
type Program func(ctx context.Context, p *Process) int

// Process is what a [Program] is given.
type Process struct {
	// Args are the command, its name first.
	Args []string
	// Env is the whole environment, "NAME=value", sorted by name.
	Env []string
	// User is as asked for or as the image says, not resolved.
	User string
	Dir  string
	// Container is the name of the container it runs in.
	Container string

	Stdin  io.Reader // never nil
	Stdout io.Writer // never nil
	Stderr io.Writer // never nil

	TTY    bool
	Size   runtime.Size
	Resize <-chan runtime.Size

	// Files gives access to the container's files.
	Files Files

	main    bool
	signals chan string
	caught  chan struct{}
	once    sync.Once
}

// Notify makes the process catch signals, which arrive on the channel by name
// ("SIGTERM"). Without it a signal ends the process. SIGKILL always does.
func (p *Process) Notify() <-chan string {
	p.once.Do(func() { close(p.caught) })
	return p.signals
}

// Getenv is the last value of a variable in Env.
func (p *Process) Getenv(name string) string {
	for _, kv := range slices.Backward(p.Env) {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v
		}
	}
	return ""
}

func (p *Process) catches() bool {
	select {
	case <-p.caught:
		return true
	default:
		return false
	}
}

// Files are a container's files.
type Files struct {
	engine *Engine
	c      *container
}

// ReadFile returns a file's content; it follows symbolic links.
func (f Files) ReadFile(name string) ([]byte, error) {
	n, err := f.Stat(name)
	if err != nil {
		return nil, err
	}
	if !n.Mode.IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrInvalid}
	}
	return n.Content, nil
}

// Stat describes a file, following symbolic links.
func (f Files) Stat(name string) (Node, error) { return f.stat(name, true) }

// Lstat describes a file, or the symbolic link itself.
func (f Files) Lstat(name string) (Node, error) { return f.stat(name, false) }

func (f Files) stat(name string, follow bool) (Node, error) {
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	n, _, err := f.c.files.lookup(name, follow)
	if err != nil {
		return Node{}, err
	}
	return *n, nil
}

// ReadDir returns the names in a directory, sorted.
func (f Files) ReadDir(name string) ([]string, error) {
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	n, _, err := f.c.files.lookup(name, true)
	if err != nil {
		return nil, err
	}
	var names []string
	for child := range n.children {
		names = append(names, child)
	}
	slices.Sort(names)
	return names, nil
}

// WriteFile makes or replaces a file; missing directories are made.
func (f Files) WriteFile(name string, node Node) error {
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	if f.c.readOnly(path.Clean(name)) {
		return &fs.PathError{Op: "write", Path: name, Err: fs.ErrPermission}
	}
	node.children = nil
	if node.Mode.IsDir() {
		node.children = map[string]*Node{}
	}
	return f.c.files.put(name, &node)
}

// Remove removes a file or a directory with all it holds.
func (f Files) Remove(name string) {
	f.engine.mu.Lock()
	defer f.engine.mu.Unlock()
	f.c.files.remove(name)
}

// gate passes on what is written until it is shut.
type gate struct {
	mu   sync.Mutex
	w    io.Writer
	shut bool
}

func newGate(w io.Writer) *gate {
	if w == nil {
		w = io.Discard
	}
	return &gate{w: w}
}

func (g *gate) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return 0, io.ErrClosedPipe
	}
	return g.w.Write(p)
}

func (g *gate) close() {
	g.mu.Lock()
	g.shut = true
	g.mu.Unlock()
}

// command finds what to run: the program, or why there is none. The caller
// holds the lock.
func (e *Engine) command(c *container, args []string, env []string) (Program, error) {
	if len(args) == 0 {
		return nil, invalid("no command was given, and the image names none")
	}
	name := args[0]
	if !strings.Contains(name, "/") {
		if p := e.program(name); p != nil {
			return p, nil
		}
		for _, dir := range searchPath(env) {
			if n, _, err := c.files.lookup(path.Join(dir, name), true); err == nil && n.Mode.IsRegular() {
				return e.executable(path.Join(dir, name), n)
			}
		}
		return nil, notFound("command", name)
	}
	if p := e.program(name); p != nil {
		return p, nil
	}
	n, _, err := c.files.lookup(name, true)
	if err != nil {
		return nil, notFound("command", name)
	}
	return e.executable(name, n)
}

func (e *Engine) executable(name string, n *Node) (Program, error) {
	if !n.Mode.IsRegular() || n.Mode.Perm()&0o111 == 0 {
		return nil, runtime.Errorf(errdefs.ErrPermissionDenied, "%q may not be executed", name)
	}
	if p := e.program(name); p != nil {
		return p, nil
	}
	return idle, nil
}

// idle is the program of every executable file that has no function: it runs
// until a signal ends it.
func idle(ctx context.Context, _ *Process) int {
	<-ctx.Done()
	return 0
}

func searchPath(env []string) []string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			return strings.Split(v, ":")
		}
	}
	return []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"}
}

// signalNumber gives a signal's number by its name or number; 0 if there is
// no such signal.
func signalNumber(name string) int {
	name = strings.TrimPrefix(strings.ToUpper(name), "SIG")
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= 64 {
		return n
	}
	return map[string]int{
		"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "BUS": 7, "FPE": 8, "KILL": 9,
		"USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "CHLD": 17, "CONT": 18,
		"STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "WINCH": 28,
	}[name]
}
