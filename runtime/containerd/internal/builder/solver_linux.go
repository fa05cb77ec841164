package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	client "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/gc"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/moby/buildkit/cache"
	"github.com/moby/buildkit/cache/contenthash"
	"github.com/moby/buildkit/cache/metadata"
	"github.com/moby/buildkit/executor/containerdexecutor"
	"github.com/moby/buildkit/frontend"
	dockerfile "github.com/moby/buildkit/frontend/dockerfile/builder"
	"github.com/moby/buildkit/frontend/gateway/forwarder"
	"github.com/moby/buildkit/session"
	containerdsnapshot "github.com/moby/buildkit/snapshot/containerd"
	bksolver "github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/bboltcachestorage"
	"github.com/moby/buildkit/solver/llbsolver"
	"github.com/moby/buildkit/solver/llbsolver/mounts"
	"github.com/moby/buildkit/source/http"
	"github.com/moby/buildkit/util/imageutil"
	"github.com/moby/buildkit/util/leaseutil"
	"github.com/moby/buildkit/util/resolver"
	"github.com/moby/buildkit/util/winlayers"
	"github.com/moby/buildkit/worker"
	"github.com/moby/buildkit/worker/base"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"google.golang.org/grpc"
)

const (
	// LabelBuilder marks containers of running steps and the leases of the cache,
	// with the builder's root as value.
	LabelBuilder = "dev.bottle.builder"
	// cgroupParent holds the cgroups of steps.
	cgroupParent = "/bottle-build"

	connectTimeout = 5 * time.Second
)

// solver is BuildKit, assembled: one worker on containerd, the Dockerfile
// frontend, and the solver with its cache.
type solver struct {
	opts     Options
	client   *client.Client
	worker   *base.Worker
	sessions *session.Manager
	llb      *llbsolver.Solver
	cache    bksolver.CacheManager
	store    *bboltcachestorage.Store
}

// newSolver connects to containerd, removes leftovers of a killed process and
// assembles the solver. The root is locked.
func newSolver(ctx context.Context, opts Options) (_ *solver, err error) {
	logTo.Store(opts.Log)
	s := &solver{opts: opts}
	if s.client, err = connect(opts); err != nil {
		return nil, fmt.Errorf("connect the builder to containerd: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.client.Close())
		}
	}()
	if err := s.cleanUp(ctx); err != nil {
		return nil, fmt.Errorf("remove what a killed build left: %w", err)
	}
	if err := s.newWorker(ctx); err != nil {
		return nil, fmt.Errorf("start the builder: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.worker.Close())
		}
	}()
	controller := &worker.Controller{}
	if err := controller.Add(s.worker); err != nil {
		return nil, err
	}
	if s.store, err = bboltcachestorage.NewStore(filepath.Join(opts.Root, "cache.db")); err != nil {
		return nil, fmt.Errorf("open the builder's cache: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.store.Close())
		}
	}()
	if s.sessions, err = session.NewManager(); err != nil {
		return nil, err
	}
	queue, err := noHistory()
	if err != nil {
		return nil, err
	}
	s.cache = bksolver.NewCacheManager(context.WithoutCancel(ctx), "local", s.store, worker.NewCacheResultStorage(controller))
	builtin := forwarder.NewGatewayForwarder(controller.Infos(), dockerfile.Build)
	s.llb, err = llbsolver.New(llbsolver.Opt{
		WorkerController: controller,
		// The second name is what `# syntax=` asks for: the frontend of that
		// directive's image is never fetched, the built-in one used instead.
		Frontends:      map[string]frontend.Frontend{"dockerfile.v0": builtin, "gateway.v0": builtin},
		CacheManager:   s.cache,
		SessionManager: s.sessions,
		HistoryQueue:   queue,
	})
	return s, err
}

func connect(opts Options) (*client.Client, error) {
	// A missing socket would be waited for.
	if _, err := os.Stat(opts.Address); err != nil {
		return nil, err
	}
	marking := &markingStore{mark: opts.Root}
	c, err := client.New(opts.Address, client.WithDefaultNamespace(opts.Namespace), client.WithTimeout(connectTimeout),
		client.WithServices(client.WithContainerStore(marking)))
	if err != nil {
		return nil, err
	}
	conn, ok := c.Conn().(grpc.ClientConnInterface)
	if !ok {
		return nil, errors.Join(fmt.Errorf("unexpected connection %T", c.Conn()), c.Close())
	}
	marking.Store = client.NewRemoteContainerStore(containersapi.NewContainersClient(conn))
	return c, nil
}

// markingStore marks the containers that it creates.
type markingStore struct {
	containers.Store
	mark string
}

func (m *markingStore) Create(ctx context.Context, c containers.Container) (containers.Container, error) {
	c.Labels = marked(c.Labels, m.mark)
	return m.Store.Create(ctx, c)
}

// markingLeases marks the leases that it creates.
type markingLeases struct {
	leases.Manager
	mark string
}

func (m markingLeases) Create(ctx context.Context, opts ...leases.Opt) (leases.Lease, error) {
	return m.Manager.Create(ctx, append(opts, func(l *leases.Lease) error {
		l.Labels = marked(l.Labels, m.mark)
		return nil
	})...)
}

func marked(labels map[string]string, mark string) map[string]string {
	if labels == nil {
		labels = map[string]string{}
	}
	labels[LabelBuilder] = mark
	return labels
}

func (s *solver) newWorker(ctx context.Context) error {
	dir := s.dir("worker")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	id, err := base.ID(dir)
	if err != nil {
		return err
	}
	ns := s.opts.Namespace
	manager := leaseutil.WithNamespace(markingLeases{s.client.LeasesService(), s.opts.Root}, ns)
	content := containerdsnapshot.NewContentStore(s.client.ContentStore(), ns)
	differ := s.client.DiffService()
	providers := networks(s.opts.Network, s.dir("net"))
	records, err := metadata.NewStore(filepath.Join(dir, "metadata_v2.db"))
	if err != nil {
		return fmt.Errorf("open the builder's records: %w", err)
	}
	if err := s.dropLost(ctx, records, manager); err != nil {
		return errors.Join(err, records.Close())
	}
	run := containerdexecutor.New(containerdexecutor.ExecutorOptions{
		Client:           s.client,
		Root:             dir,
		CgroupParent:     cgroupParent,
		NetworkProviders: providers,
		Runtime:          &containerdexecutor.RuntimeInfo{Name: s.opts.Runtime},
	})
	w, err := base.NewWorker(ctx, base.WorkerOpt{
		ID:               id,
		Root:             dir,
		Labels:           map[string]string{},
		Platforms:        []ocispec.Platform{platforms.Normalize(platforms.DefaultSpec())},
		NetworkProviders: providers,
		Executor:         stepRunner{run},
		Snapshotter:      containerdsnapshot.NewSnapshotter(s.opts.Snapshotter, s.client.SnapshotService(s.opts.Snapshotter), ns, nil),
		ContentStore:     content,
		Applier:          winlayers.NewFileSystemApplierWithWindows(content, differ),
		Differ:           winlayers.NewWalkingDiffWithWindows(content, differ),
		ImageStore:       s.client.ImageService(),
		RegistryHosts:    resolver.NewRegistryConfig(nil),
		LeaseManager:     manager,
		GarbageCollect:   func(ctx context.Context) (gc.Stats, error) { return nil, collect(ctx, manager) },
		MetadataStore:    records,
		MountPoolRoot:    s.mounts(),
	})
	if err != nil {
		return errors.Join(err, records.Close())
	}
	s.worker = w
	downloads, err := http.NewSource(http.Opt{
		CacheAccessor: w.CacheMgr,
		Transport:     downloader{s.opts.Network, s.dir("net")},
	})
	if err != nil {
		return errors.Join(err, w.Close())
	}
	w.SourceManager.Register(downloads)
	w.SourceManager.Register(noGit{})
	return nil
}

func (s *solver) dir(name string) string { return filepath.Join(s.opts.Root, name) }

// mounts is where BuildKit mounts the file systems of running steps.
func (s *solver) mounts() string { return filepath.Join(s.dir("worker"), "cachemounts") }

// collect has containerd remove what nothing refers to: to delete a lease
// synchronously is how it is told to.
func collect(ctx context.Context, manager leases.Manager) error {
	l, err := manager.Create(ctx, leases.WithRandomID())
	if err != nil {
		return fmt.Errorf("make a lease: %w", err)
	}
	return manager.Delete(ctx, l, leases.SynchronousDelete)
}

// rest is called when no build runs: what BuildKit keeps for some minutes in
// case of a next build is let go, and the views of layers that the build looked at,
// which are nobody's now, are removed.
func (s *solver) rest() error {
	imageutil.CancelCacheLeases()
	ctx, cancel := context.WithTimeout(context.Background(), undoTimeout)
	defer cancel()
	return collect(ctx, s.client.LeasesService())
}

// close takes everything down.
func (s *solver) close() error {
	return errors.Join(s.rest(), s.forget(), s.llb.Close(), s.store.Close(), s.worker.Close(), s.dropTemporary(), s.client.Close())
}

// dropTemporary removes leases that BuildKit would have removed a moment later.
func (s *solver) dropTemporary() error {
	ctx, cancel := context.WithTimeout(context.Background(), undoTimeout)
	defer cancel()
	filter := fmt.Sprintf("labels.%q==%q,labels.%q", LabelBuilder, s.opts.Root, "buildkit/lease.temporary")
	manager := s.client.LeasesService()
	list, err := manager.List(ctx, filter)
	if err != nil {
		return fmt.Errorf("list the builder's leases: %w", err)
	}
	for _, l := range list {
		if err := manager.Delete(ctx, l); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove lease %s: %w", l.ID, err)
		}
	}
	return nil
}

// forget empties what BuildKit keeps about records in variables of the package. The
// next solver of this process must not find it: its records may have been changed
// by another process, and these refer to a closed database.
func (s *solver) forget() error {
	records, err := s.worker.MetadataStore.All()
	if err != nil {
		return fmt.Errorf("list the builder's records: %w", err)
	}
	for _, r := range records {
		contenthash.ClearCacheContext(recordID{id: r.ID()})
	}
	locker := mounts.CacheMountsLocker()
	locker.Lock()
	defer locker.Unlock()
	mounts.ClearActiveCacheMounts()
	return nil
}

// recordID is what a record is identified by.
type recordID struct {
	cache.RefMetadata
	id string
}

// ID is all that is asked for.
func (r recordID) ID() string { return r.id }
