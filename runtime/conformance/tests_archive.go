package conformance

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

func special(typ byte, name string) archived {
	return archived{&tar.Header{Typeflag: typ, Name: name, Mode: 0o666, Devmajor: 1, Devminor: 3}, nil}
}

var archiveTests = []Test{
	hostile("copy/hostile-dot-dot", "an entry whose name has a `..` element",
		func(host string) [][]archived {
			return [][]archived{
				{regular("../escaped", 0o644, "x")},
				{regular("ok/../../escaped", 0o644, "x")},
				{regular(strings.Repeat("../", 30)+host[1:]+"/escaped", 0o644, "x")},
				{archived{&tar.Header{Typeflag: tar.TypeDir, Name: "../dir/", Mode: 0o755}, nil}},
			}
		}),
	hostile("copy/hostile-absolute", "an entry with an absolute name",
		func(host string) [][]archived {
			return [][]archived{{regular("/escaped", 0o644, "x")}, {regular(host+"/escaped", 0o644, "x")}}
		}),
	hostile("copy/hostile-symlink", "an entry below a symbolic link of the same archive",
		func(host string) [][]archived {
			return [][]archived{
				{link("way", host), regular("way/escaped", 0o644, "x")},
				{link("way", ".."), regular("way/escaped", 0o644, "x")},
				{link("way", "/data"), regular("way/deep/escaped", 0o644, "x")},
				{link("a", "."), link("a/b", host), regular("a/b/escaped", 0o644, "x")},
			}
		}),
	hostile("copy/hostile-hard-link", "a hard link to outside the archive",
		func(host string) [][]archived {
			return [][]archived{
				{hardLink("taken", "/etc/passwd")}, {hardLink("taken", "../etc/passwd")}, {hardLink("taken", host+"/canary")},
				{link("way", host), hardLink("taken", "way/canary")},
			}
		}),
	hostile("copy/hostile-device", "a device node",
		func(string) [][]archived {
			return [][]archived{{special(tar.TypeChar, "null")}, {special(tar.TypeBlock, "disk")}}
		}),
	{
		Name: "copy/garbage-is-refused",
		Doc:  "What is no archive is InvalidArgument.",
		Run: func(ctx context.Context, e *Env) error {
			b, err := e.Box(ctx)
			if err != nil {
				return err
			}
			err = e.Runtime.CopyTo(ctx, b.ID, "/data", bytes.NewReader(bytes.Repeat([]byte("garbage!"), 4096)))
			return kind(err, errdefs.IsInvalidArgument, "InvalidArgument", "copy in of what is no archive")
		},
	},
}

// hostile is the test that archives are refused and harm nothing outside the
// target.
func hostile(name, doc string, archives func(host string) [][]archived) Test {
	return Test{
		Name: name, Doc: "An archive with " + doc + " is InvalidArgument, and nothing outside the target changes, neither in the container nor on the host.",
		Run: func(ctx context.Context, e *Env) error {
			host, err := e.Context(map[string]string{"canary": "alive"})
			if err != nil {
				return err
			}
			b, err := e.Box(ctx)
			if err != nil {
				return err
			}
			for i, entries := range archives(host) {
				target := fmt.Sprintf("target%d", i)
				if err := b.copyIn(ctx, "/data", archived{&tar.Header{Typeflag: tar.TypeDir, Name: target + "/", Mode: 0o755}, nil}); err != nil {
					return err
				}
				err := b.copyIn(ctx, "/data/"+target, append([]archived{regular("good", 0o644, "x")}, entries...)...)
				last := entries[len(entries)-1]
				if err := kind(err, errdefs.IsInvalidArgument, "InvalidArgument", fmt.Sprintf("copy in of %q (link to %q)", last.Name, last.Linkname)); err != nil {
					return err
				}
			}
			if got := list(host); len(got) != 1 {
				return failed("expected nothing new in the host's directory, got %q", got)
			}
			for _, dir := range []string{"/data", "/etc"} {
				inside, err := b.copied(ctx, dir)
				if err != nil {
					return err
				}
				for name, entry := range inside {
					if strings.Contains(name, "escaped") || strings.Contains(name, "taken") || entry.Typeflag == tar.TypeChar || entry.Typeflag == tar.TypeBlock {
						return failed("expected nothing of a refused entry, got %s in the container", name)
					}
				}
			}
			return nil
		},
	}
}

// raceWrites is the number of writes, and of reads, for which a container swaps
// a directory and a symbolic link.
const (
	raceWrites  = 3000
	racePerCall = 100
)

var raceTests = []Test{
	{
		Name: "copy/symlink-swap-race-in", Kernel: true, Timeout: 2 * DefaultTimeout,
		Doc: "While a container swaps a directory for a symbolic link to a path of the host, 3,000 writes of copies in do not leave the container.",
		Run: raceIn,
	},
	{
		Name: "copy/symlink-swap-race-out", Kernel: true, Timeout: 2 * DefaultTimeout,
		Doc: "While a container swaps a directory for a symbolic link to a path of the host, 3,000 reads of copies out do not leave the container.",
		Run: raceOut,
	},
}

// swapping runs a container in which /data/way is by turns a directory and a
// link to the path of a directory of the host, which exists inside too.
func (e *Env) swapping(ctx context.Context, host string) (*Box, error) {
	// Everything that the race could want is there before it begins.
	var files []runtime.File
	for i := range racePerCall {
		files = append(files,
			runtime.File{Path: fmt.Sprintf("/data/way.dir/f%d", i), Content: []byte("INSIDE")},
			runtime.File{Path: fmt.Sprintf("%s/f%d", host, i), Content: []byte("INSIDE")})
	}
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Files: files})
	if err != nil {
		return nil, err
	}
	swapCtx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ready := &lineWriter{seen: make(chan struct{}), want: "ready"}
	done := make(chan error, 1)
	go func() {
		_, err := e.Runtime.Exec(swapCtx, b.ID, runtime.ExecSpec{Command: []string{probe.Path, "swap", "/data/way", host}, Stdout: ready})
		done <- err
	}()
	e.Cleanup(func(context.Context) error {
		cancel()
		_ = <-done // the cancellation
		return nil
	})
	select {
	case <-ready.seen:
		return b, nil
	case err := <-done:
		done <- err
		return nil, failed("the swapping ended: %w", err)
	}
}

func raceIn(ctx context.Context, e *Env) error {
	host, err := e.Context(nil)
	if err != nil {
		return err
	}
	b, err := e.swapping(ctx, host)
	if err != nil {
		return err
	}
	// Two callers, as a race wants more than one.
	const lanes = 2
	landed := make([]int, lanes)
	var wg sync.WaitGroup
	for lane := range lanes {
		wg.Go(func() {
			for i := range raceWrites / racePerCall / lanes {
				var entries []archived
				for j := range racePerCall {
					entries = append(entries, regular(fmt.Sprintf("way/race-%d-%d-%d", lane, i, j), 0o644, "x"))
				}
				// It may fail: what is there one moment is not there the next.
				if b.copyIn(ctx, "/data", entries...) == nil {
					landed[lane]++
				}
			}
		})
	}
	wg.Wait()
	if got := list(host); len(got) > 0 {
		return failed("%d of %d writes left the container, the first: %s", len(got), raceWrites, got[0])
	}
	e.Logf("%v of %d copies met no swap that made them fail", landed, raceWrites/racePerCall/lanes)
	return nil
}

func raceOut(ctx context.Context, e *Env) error {
	files := map[string]string{}
	for i := range racePerCall {
		files[fmt.Sprintf("f%d", i)] = "HOST"
	}
	host, err := e.Context(files)
	if err != nil {
		return err
	}
	b, err := e.swapping(ctx, host)
	if err != nil {
		return err
	}
	reads, calls := 0, 0
	deadline := time.Now().Add(90 * time.Second)
	// A call that begins between two swaps, or meets one, reads less than it could:
	// a tenth of what was tried is enough to say that it was read at all.
	for ; (calls*(racePerCall+1) < raceWrites || reads < raceWrites/10) && time.Now().Before(deadline); calls++ {
		r, err := e.Runtime.CopyFrom(ctx, b.ID, "/data/way")
		if err != nil {
			continue // it was between two swaps
		}
		err = eachEntry(r, func(h *tar.Header, content io.Reader) error {
			data, err := io.ReadAll(content)
			if h.Typeflag == tar.TypeReg {
				reads++
			}
			if bytes.Contains(data, []byte("HOST")) {
				return fmt.Errorf("%w: %s", errEscaped, h.Name)
			}
			return err
		})
		_ = r.Close()
		if err != nil && errors.Is(err, errEscaped) {
			return err
		}
		// A name below the link, which the engine resolves on the way.
		if r, err = e.Runtime.CopyFrom(ctx, b.ID, fmt.Sprintf("/data/way/f%d", calls%racePerCall)); err == nil {
			data, _ := io.ReadAll(r)
			_ = r.Close()
			reads++
			if bytes.Contains(data, []byte("HOST")) {
				return errEscaped
			}
		}
	}
	e.Logf("%d reads in %d calls", reads, calls)
	return check(reads >= raceWrites/10, "expected %d reads of %d at least in the time there was, got %d in %d calls", raceWrites/10, raceWrites, reads, calls)
}

var errEscaped = failed("a read left the container and returned a file of the host")
