package core

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core/ca"
	"github.com/bottle-run/bottle/core/internal/graph"
	"github.com/bottle-run/bottle/core/internal/inside"
	"github.com/bottle-run/bottle/core/trust"
	"github.com/bottle-run/bottle/runtime"
)

// stepTrust makes the agent's tools believe the bottle's authority. It is part of a launch
// with sidecars, and is done before the agent's command runs.
const stepTrust = "trust certificates"

// trustDir holds what package trust has variables name.
const trustDir = inside.Dir + "/trust"

// rootsDir is where what depends on the image's own roots is: a container whose root is
// read-only has no other place for it once it runs.
func (l *launch) rootsDir() string {
	if l.plan.ReadOnly {
		return inside.Tmpfs
	}
	return trustDir
}

// trustEnv are the variables of package trust: plain ones for the container, and secret
// ones, which add to what the user keeps secret.
func (l *launch) trustEnv() (plain, secret map[string]string) {
	if l.egress == nil {
		return nil, nil
	}
	proxy := l.proxyEnv()
	settings := trust.Settings{
		Dir: trustDir, RootsDir: l.rootsDir(), Image: l.image.Config.Env,
		Proxy: strings.TrimPrefix(proxy["http_proxy"], "http://"), NoProxy: strings.Split(proxy["no_proxy"], ","),
		User: func(name string) (string, bool) {
			if value, ok := l.opts.Secrets.values[name]; ok {
				return value, true
			}
			value, ok := l.plan.Env[name]
			return value, ok
		},
	}
	plain, kept := settings.Variables()
	secret = map[string]string{}
	for name, value := range plain {
		if _, ok := l.opts.Secrets.values[name]; ok {
			secret[name] = value
			delete(plain, name)
		}
	}
	for _, name := range kept {
		l.report.note(stepTrust, fmt.Sprintf("%s is as you have set it: what reads it may not trust the bottle's proxy", name))
	}
	return plain, secret
}

// corporate are the operator's further roots.
func (l *launch) corporate() []ca.File {
	if l.kept != nil {
		return l.kept.corporate
	}
	if l.plan.Egress == nil {
		return nil
	}
	return l.plan.Egress.Corporate()
}

// ownRoots are the bottle's root and the corporate ones.
func (l *launch) ownRoots(now time.Time) ([]*x509.Certificate, error) {
	own, err := ca.NewBundle(l.pair.Agent.Cert, nil, l.corporate(), now)
	if err != nil {
		return nil, withKind(KindInput, err)
	}
	return own.Certs, nil
}

// trustFiles are in the agent's container before it starts: what does not depend on its
// image.
func (l *launch) trustFiles() ([]runtime.File, error) {
	if l.egress == nil {
		return nil, nil
	}
	roots, err := l.ownRoots(time.Now())
	if err != nil {
		return nil, err
	}
	return []runtime.File{
		{Path: path.Join(trustDir, trust.ExtraFile), Mode: 0o644, Content: trust.PEM(roots)},
		{Path: path.Join(trustDir, trust.NodeFile), Mode: 0o644, Content: trust.NodeProxy},
	}, nil
}

// installTrust reads the image's own roots, writes the bundles that the variables name,
// and refreshes the system's stores. It runs nothing of the image's. What is known of the image
// has let stepAgent do so.
func (l *launch) installTrust(ctx context.Context) error {
	if l.recalled && !l.plan.ReadOnly {
		return nil
	}
	store := l.store
	if store == nil {
		var err error
		if store, err = readStore(ctx, l.view().open, trust.ImageFiles(l.image.Config.Env)); err != nil {
			return err
		}
	}
	writes, err := l.trustWrites(store)
	if err != nil {
		return err
	}
	if l.plan.ReadOnly {
		return l.share(ctx, writes)
	}
	return l.putWrites(ctx, writes)
}

// trustWrites are the files by which tools trust the bottle's authority and what the image
// trusts.
func (l *launch) trustWrites(store *trust.Store) ([]trust.Write, error) {
	now := time.Now()
	bundle, err := ca.NewBundle(l.pair.Agent.Cert, store.Roots(), l.corporate(), now)
	if err != nil {
		return nil, withKind(KindInput, err)
	}
	writes := []trust.Write{
		{Path: path.Join(l.rootsDir(), trust.RootsFile), Mode: 0o644, Content: bundle.PEM()},
		{Path: path.Join(l.rootsDir(), trust.JavaFile), Mode: 0o644, Content: bundle.JavaStore(now)},
	}
	what := fmt.Sprintf("%d roots", len(bundle.Certs))
	if bundle.Skipped > 0 {
		l.report.note(stepTrust, fmt.Sprintf("the image's own store has %d entries that are no certificates that can be read: they are left out", bundle.Skipped))
	}
	if l.plan.ReadOnly {
		l.report.result(stepTrust, what+"; the image's own store stays, since the bottle is read-only")
		return writes, nil
	}
	roots, err := l.ownRoots(now)
	if err != nil {
		return nil, err
	}
	own, err := store.Refresh(containerName(l.name), roots)
	if err != nil {
		return nil, err
	}
	l.report.result(stepTrust, fmt.Sprintf("%s, %d files of the image's own store", what, len(own)))
	return append(writes, own...), nil
}

// readStore reads the stores of certificates of an image.
func readStore(ctx context.Context, open opener, named []string) (*trust.Store, error) {
	store := &trust.Store{}
	store.AddExtra(named)
	var mu sync.Mutex
	read := func(name string) error {
		archive, err := open(ctx, name)
		mu.Lock()
		defer mu.Unlock()
		if errdefs.IsNotFound(err) {
			store.Absent(name)
			return nil
		}
		if err != nil {
			return err
		}
		return errors.Join(store.Add(name, archive), archive.Close())
	}
	// Links lead to links; an image with more of them than this is not followed.
	names := trust.Areas()
	for range maxLinks {
		errs := make([]error, len(names))
		var reading sync.WaitGroup
		for i, name := range names {
			reading.Go(func() { errs[i] = graph.Guard(func() error { return read(name) }) })
		}
		reading.Wait()
		if err := errors.Join(errs...); err != nil {
			return nil, err
		}
		if names = store.Missing(); len(names) == 0 {
			break
		}
	}
	return store, nil
}

// share writes files into the container's tmpfs, as root: the agent may read them, as may
// any other user.
func (l *launch) share(ctx context.Context, files []trust.Write) error {
	errs := make(chan error, len(files))
	for _, f := range files {
		go func() {
			errs <- graph.Guard(func() error { return share(ctx, l.rt, l.container.ID, f.Path, f.Content) })
		}()
	}
	var all []error
	for range files {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}

// share writes a file into a container's tmpfs, as root.
func share(ctx context.Context, rt runtime.Runtime, container, name string, content []byte) error {
	var said bytes.Buffer
	status, err := rt.Exec(ctx, container, runtime.ExecSpec{
		Command: inside.Share(name), User: "0", WorkDir: "/", Stdin: bytes.NewReader(content), Stderr: &said,
	})
	if err == nil && status.Code != 0 {
		err = fmt.Errorf("%s could not be written: status %d: %s", name, status.Code, bytes.TrimSpace(said.Bytes()))
	}
	return err
}

// putWrites puts files into the container, all in one archive. Directories that are there
// stay as they are, and those that are missing become root's: none is in the archive.
func (l *launch) putWrites(ctx context.Context, writes []trust.Write) error {
	p := placer{rt: l.rt, container: l.container.ID}
	return p.send(ctx, "/", func(tw *tar.Writer) error {
		for _, w := range writes {
			h := header(w.Path[1:], uint32(w.Mode), account{UID: w.UID, GID: w.GID})
			h.Size = int64(len(w.Content))
			if err := tw.WriteHeader(h); err != nil {
				return err
			}
			if _, err := tw.Write(w.Content); err != nil {
				return err
			}
		}
		return nil
	})
}
