package containerd

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	tasks "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/snapshots"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/containerd/internal/builder"
	"github.com/bottle-run/bottle/runtime/internal/dump"
)

// Inventory implements [runtime.Runtime].
func (e *Engine) Inventory(ctx context.Context) (runtime.Inventory, error) {
	inv, err := e.inventory(e.ctx(ctx))
	return inv, wrap(ctx, "take the inventory", "", err)
}

func (e *Engine) inventory(ctx context.Context) (runtime.Inventory, error) {
	inv := runtime.Inventory{}
	add := func(kind string, ids ...string) { inv[kind] = append(inv[kind], ids...) }

	list, err := e.containers().List(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range list {
		add("containers", strings.TrimSpace(c.ID+" "+c.Labels[labelName]))
	}
	running, err := e.tasks().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return nil, err
	}
	for _, t := range running.Tasks {
		add("tasks", first(t.ContainerID, t.ID))
	}
	records, err := e.imageStore().List(ctx)
	if err != nil {
		return nil, err
	}
	for _, r := range records {
		add("images", r.Name+" "+r.Target.Digest.String())
	}
	held, err := e.client.LeasesService().List(ctx)
	if err != nil {
		return nil, err
	}
	cached := map[string]bool{}
	for _, l := range held {
		if _, cache := l.Labels[builder.LabelBuilder]; !cache {
			add("leases", l.ID)
			continue
		}
		resources, err := e.client.LeasesService().ListResources(ctx, l)
		if err != nil && !isNotFound(err) {
			return nil, err
		}
		for _, r := range resources {
			cached[r.ID] = true
		}
	}
	err = e.snapshots().Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		// Those of images are images' concern; the builder's cache holds its own.
		if info.Kind != snapshots.KindCommitted && !cached[info.Name] {
			add("snapshots", info.Name)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	namespaces, err := e.client.NamespaceService().List(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range namespaces {
		if n != e.namespace { // ours is made with the first object in it, and stays
			add("namespaces", n)
		}
	}
	if err := e.networkInventory(ctx, add); err != nil {
		return nil, err
	}
	mounted, err := stateMounts(e.state, e.run)
	if err != nil {
		return nil, err
	}
	add("mounts", mounted...)
	for _, dir := range []string{e.state, e.run} {
		if err := e.listFiles(dir, func(name string) { add("files", name) }); err != nil {
			return nil, err
		}
	}
	for kind := range inv {
		slices.Sort(inv[kind])
	}
	return inv, nil
}

// networkInventory adds the networks and what is set up for them. It holds the lock of
// the networks: amid another's change a table is listed and then not there.
func (e *Engine) networkInventory(ctx context.Context, add func(kind string, ids ...string)) error {
	l, err := e.lockNetworks(ctx)
	if err != nil {
		return err
	}
	defer l.unlock()
	networks, err := e.networks()
	if err != nil {
		return err
	}
	for _, n := range networks {
		add("networks", n.ID+" "+n.Name)
	}
	links, err := dump.Whole(e.link.LinkList)
	if err != nil {
		return err
	}
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, devicePrefix) {
			add("devices", l.Attrs().Name)
		}
	}
	rules, err := firewallInventory()
	if err != nil {
		return err
	}
	add("firewall", rules...)
	forward, err := forwardInventory()
	if err != nil {
		return err
	}
	add("firewall", forward...)
	return nil
}

// listFiles names the files of bottle's own that belong to some object.
func (e *Engine) listFiles(dir string, add func(string)) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		name := d.Name()
		switch {
		case d.IsDir() && path == filepath.Join(e.state, builderDir):
			return fs.SkipDir // a cache
		case d.IsDir() && filepath.Dir(path) == dir && !strings.HasPrefix(name, mountPrefix),
			d.IsDir() && path == dir,
			strings.HasPrefix(name, "init-") && filepath.Dir(path) == e.state && !strings.Contains(name, "."),
			d.IsDir() && filepath.Dir(path) == filepath.Join(e.run, "exec"), // a connection's
			strings.HasSuffix(name, ".lock"), path == e.againFile():
			return nil // of the engine itself
		}
		add(path)
		return nil
	})
}

// stateMounts are the mounts below bottle's directories.
func stateMounts(dirs ...string) ([]string, error) {
	content, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var found []string
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line)
		if len(fields) > 4 && slices.ContainsFunc(dirs, func(d string) bool { return within(fields[4], d) && fields[4] != d }) {
			found = append(found, fields[4])
		}
	}
	return found, nil
}
