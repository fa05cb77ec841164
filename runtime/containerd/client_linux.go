package containerd

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"google.golang.org/grpc"

	"github.com/bottle-run/bottle/runtime"
)

const connectTimeout = 5 * time.Second

// Engine is a connection to a containerd.
type Engine struct {
	client      *client.Client
	address     string
	namespace   string
	version     string
	snapshotter string
	subnets     netip.Prefix // to take networks from
	log         *slog.Logger

	// state outlives a reboot, run does not.
	state, run string

	images imageCache
	builds builders

	// name is the connection's own, alive the lock that goes with it.
	name  string
	alive *fileLock
	// answered are ends of a dead connection's FIFOs, held until this one is closed.
	answered   []*os.File
	answeredMu sync.Mutex

	link     *netlink.Handle
	closeOne sync.Once
}

var _ runtime.Runtime = (*Engine)(nil)

// Probe asks the daemon for its version. Nothing is changed.
func (Driver) Probe(ctx context.Context, opts runtime.Options) runtime.Status {
	path, named := address(opts.Host)
	s := runtime.Status{Engine: engine, Endpoint: "unix://" + path, Installed: named}
	if err := checkEndpoint(opts.Host, path); err != nil {
		s.Reason, s.Fix = err.Err.Error(), err.Hint
		if _, statErr := os.Stat(path); statErr == nil {
			s.Installed = true
		}
		return s
	}
	s.Installed = true
	c, version, err := dial(ctx, opts.Probing(), path, defaultNamespace)
	if err != nil {
		s.Reason = fmt.Sprintf("containerd does not answer at %s: %v", path, native(err))
		s.Fix = "start it: systemctl start containerd"
		return s
	}
	defer func() { _ = c.Close() }()
	s.Version = version
	if !supported(version) {
		s.Reason = "containerd " + version + " is older than 1.6"
		s.Fix = "install containerd 1.6 or newer"
		return s
	}
	s.Healthy = true
	return s
}

// Open connects to containerd.
func (Driver) Open(ctx context.Context, opts runtime.Options) (runtime.Runtime, error) {
	return open(ctx, opts, defaultNamespace)
}

func open(ctx context.Context, opts runtime.Options, namespace string) (*Engine, error) {
	path, _ := address(opts.Host)
	if err := checkEndpoint(opts.Host, path); err != nil {
		return nil, err
	}
	c, version, err := dial(ctx, opts, path, namespace)
	if err != nil {
		return nil, &runtime.Error{
			Engine: engine, Op: "connect", Object: path,
			Err:  runtime.WithKind(errdefs.ErrUnavailable, native(err)),
			Hint: "is containerd running? Start it (systemctl start containerd) or name its socket with --host or CONTAINERD_ADDRESS",
		}
	}
	if !supported(version) {
		_ = c.Close()
		return nil, &runtime.Error{
			Engine: engine, Op: "connect", Object: path,
			Err:  runtime.Errorf(errdefs.ErrUnavailable, "containerd %s is older than 1.6", version),
			Hint: "install containerd 1.6 or newer",
		}
	}
	e := &Engine{client: c, address: path, namespace: namespace, version: version, subnets: opts.SubnetPool, log: opts.Log()}
	e.setDirs(opts.StateDir)
	if err := e.prepare(ctx); err != nil {
		_ = c.Close()
		return nil, wrap(ctx, "connect", path, err)
	}
	return e, nil
}

// setDirs chooses the directories. Each daemon and namespace has its own, so that
// no process takes another daemon's containers for leftovers.
func (e *Engine) setDirs(stateDir string) {
	name := "containerd"
	if e.address != defaultAddress || e.namespace != defaultNamespace || stateDir != "" {
		name += "-" + shortHash(stateDir+"|"+e.address+"|"+e.namespace)
	}
	if stateDir == "" {
		stateDir = "/var/lib/bottle"
	}
	e.state = filepath.Join(stateDir, name)
	e.run = filepath.Join("/run/bottle", name)
}

func (e *Engine) prepare(ctx context.Context) error {
	for _, dir := range []string{"/run/bottle", e.state, e.dir("containers"), e.dir("networks"), e.dir("names"), e.run, e.endpointsDir("")} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the state directory: %w", err)
		}
	}
	var err error
	if e.snapshotter, err = e.pickSnapshotter(ctx); err != nil {
		return err
	}
	if err := e.openLink(); err != nil {
		return err
	}
	if err := e.live(); err != nil {
		return err
	}
	e.sweep(ctx, false)
	return nil
}

func (e *Engine) openLink() (err error) {
	if e.link, err = netlink.NewHandle(); err != nil {
		return fmt.Errorf("open a netlink socket: %w", err)
	}
	return nil
}

// pickSnapshotter takes overlayfs, or native where the file system cannot hold an
// overlay.
func (e *Engine) pickSnapshotter(ctx context.Context) (string, error) {
	plugins, err := e.client.IntrospectionService().Plugins(ctx, "type==io.containerd.snapshotter.v1")
	if err != nil {
		return "", fmt.Errorf("list the snapshotters: %w", err)
	}
	for _, want := range []string{"overlayfs", "native"} {
		for _, p := range plugins.Plugins {
			if p.ID == want && p.InitErr == nil {
				return want, nil
			}
		}
	}
	return "", runtime.Errorf(errdefs.ErrUnavailable, "containerd has neither the overlayfs nor the native snapshotter")
}

func dial(ctx context.Context, opts runtime.Options, path, namespace string) (*client.Client, string, error) {
	// A missing socket would be waited for.
	if _, err := os.Stat(path); err != nil {
		return nil, "", err
	}
	c, err := client.New(path, client.WithDefaultNamespace(namespace), client.WithTimeout(connectTimeout),
		client.WithExtraDialOpts([]grpc.DialOption{grpc.WithChainUnaryInterceptor(settled)}))
	if err != nil {
		return nil, "", err
	}
	var v client.Version
	err = opts.Ask(ctx, func(ctx context.Context) (err error) {
		v, err = c.Version(ctx)
		return err
	})
	if err != nil {
		_ = c.Close()
		return nil, "", err
	}
	return c, strings.TrimPrefix(v.Version, "v"), nil
}

// checkEndpoint says what keeps this process from using an endpoint.
func checkEndpoint(host, path string) *runtime.Error {
	fail := func(kind error, hint, format string, args ...any) *runtime.Error {
		return &runtime.Error{Engine: engine, Op: "connect", Object: path, Err: runtime.Errorf(kind, format, args...), Hint: hint}
	}
	if strings.Contains(path, "://") || !filepath.IsAbs(path) {
		return fail(errdefs.ErrInvalidArgument, "give the path of its socket: unix:///run/containerd/containerd.sock",
			"containerd is spoken to through a local socket, not %q", host)
	}
	if os.Geteuid() != 0 {
		return fail(errdefs.ErrUnavailable, "run bottle as root, or use rootless Podman with --runtime=podman",
			"containerd takes root: networks and mounts are made by bottle itself")
	}
	if _, err := os.Stat(path); err != nil {
		return fail(errdefs.ErrUnavailable, "install and start containerd, or name its socket with --host or CONTAINERD_ADDRESS",
			"there is no socket at %s", path)
	}
	return nil
}

func supported(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return true // a development build
	}
	return major > 1 || major == 1 && minor >= 6
}

// Close ends the builder and the connection. Containers go on.
func (e *Engine) Close() error {
	var err error
	e.closeOne.Do(func() {
		err = errors.Join(e.builds.close(), e.client.Close())
		e.link.Close()
		e.answeredMu.Lock()
		for _, f := range e.answered {
			_ = f.Close()
		}
		e.answeredMu.Unlock()
		if e.alive != nil { // the watcher has none
			_ = os.Remove(filepath.Join(e.run, "exec", e.name)) // if there is one; it is empty
			e.alive.remove()
		}
	})
	return wrap(context.Background(), "close the connection", "", err)
}

// ctx adds containerd's namespace.
func (e *Engine) ctx(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, e.namespace)
}

func (e *Engine) tasks() tasks.TasksClient         { return e.client.TaskService() }
func (e *Engine) containers() containers.Store     { return e.client.ContainerService() }
func (e *Engine) imageStore() images.Store         { return e.client.ImageService() }
func (e *Engine) snapshots() snapshots.Snapshotter { return e.client.SnapshotService(e.snapshotter) }
func (e *Engine) dir(elem ...string) string {
	return filepath.Join(append([]string{e.state}, elem...)...)
}
func (e *Engine) containerDir(id string) string { return e.dir("containers", id) }
func (e *Engine) endpointsDir(network string) string {
	return filepath.Join(e.run, "endpoints", network)
}

// undoing gives work that must be done although ctx has ended.
func undoing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 30*time.Second)
}

func newID() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:9]
}
