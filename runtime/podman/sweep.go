package podman

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// What this process makes on this machine for itself lies in a directory of its own below
// the base directory, whose lock it holds as long as it lives: s* a service, p* seccomp
// profiles, b* a build that runs.

// deadBuild is what another process has to know to clear up after a build.
type deadBuild struct {
	Mark int64  `json:"mark"`
	Tag  string `json:"tag"`
	// Images and Containers are what there was before.
	Images     map[string]bool `json:"images"`
	Containers map[string]bool `json:"containers"`
}

// buildFile is its name in the build's directory.
const buildFile = "build.json"

// noteBuild notes a build for whoever comes after this process's death.
func noteBuild(b deadBuild) (done func(), err error) {
	base, err := baseDir()
	if err != nil {
		return nil, err
	}
	unlock, err := lockDir(base)
	if err != nil {
		return nil, err
	}
	defer unlock()
	dir, err := os.MkdirTemp(base, "b")
	if err != nil {
		return nil, err
	}
	content, err := json.Marshal(b)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, buildFile), content, 0o600)
	}
	var lock *os.File
	if err == nil {
		lock, err = holdDir(dir)
	}
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return func() {
		_ = os.RemoveAll(dir)
		_ = lock.Close()
	}, nil
}

// deadBuilds are the builds whose process died, by directory; none if one of a living
// process runs: their images cannot be told apart.
func deadBuilds(base string) (dead map[string]deadBuild, alive bool) {
	dead = map[string]deadBuild{}
	dirs, _ := filepath.Glob(filepath.Join(base, "b*"))
	for _, d := range dirs {
		f, err := holdDir(d)
		if err != nil {
			alive = true
			continue
		}
		var b deadBuild
		content, err := os.ReadFile(filepath.Join(d, buildFile))
		if err == nil {
			err = json.Unmarshal(content, &b)
		}
		if err != nil {
			_ = os.RemoveAll(d) // it died before it built
		} else {
			dead[d] = b
		}
		_ = f.Close()
	}
	return dead, alive
}

// buildEnd bounds the wait for a service to clear up after a build.
const buildEnd = 8 * time.Second

// endBuilds has a service whose process died clear up after its builds, before it is
// ended: it waits for the step that runs, so that is ended first.
func endBuilds(uri string, dead map[string]deadBuild) {
	if len(dead) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildEnd)
	defer cancel()
	conn, err := connect(ctx, uri)
	if err != nil {
		return // it has ended
	}
	orphan := &engine{log: slog.New(slog.DiscardHandler), uri: uri, local: true, conn: conn}
	for _, b := range dead {
		orphan.endBuild(ctx, b.Mark, b.before(), buildQuiet)
	}
}

func (b deadBuild) before() buildScene { return buildScene{containers: b.Containers, images: b.Images} }

// Sweep implements [runtime.Runtime].
func (e *engine) Sweep(ctx context.Context) error {
	const op = "remove what dead processes left"
	if !e.local {
		return nil
	}
	base := filepath.Join(runtimeDir(), "bottle-podman-"+strconv.Itoa(os.Geteuid()))
	if checkPrivate(base) != nil {
		return nil // most often there is none
	}
	unlock, err := lockDir(base)
	if err != nil {
		return nil
	}
	sweep(base)
	dead, alive := deadBuilds(base)
	unlock()
	if alive {
		return nil
	}
	for dir, b := range dead {
		ending, cancel := context.WithTimeout(ctx, buildEnd)
		e.endBuild(ending, b.Mark, b.before(), buildQuiet)
		cancel()
		e.removeSteps(ctx, b.Tag, b.Images)
		if ctx.Err() != nil {
			return wrap(ctx, op, b.Tag, context.Cause(ctx))
		}
		if err := os.RemoveAll(dir); err != nil {
			return wrap(ctx, op, b.Tag, err)
		}
	}
	return nil
}
