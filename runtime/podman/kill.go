package podman

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/tinyinit"
)

// killTime bounds the end of a cancelled exec.
const killTime = 15 * time.Second

// kill ends the processes of an exec session: closing its connection does not. On
// this machine they are killed from outside, which takes nothing in the container.
// Elsewhere a helper is put into the container and run as the same user; that is
// impossible in a container whose root is read-only.
func (x *execution) kill(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), killTime)
	defer cancel()
	var err error
	if x.e.local {
		err = x.killLocal(ctx)
	} else {
		err = x.killInside(ctx)
	}
	if err != nil {
		if c, gone := x.e.inspect(ctx, x.container.ID); isNotFound(gone) || gone == nil && state(c.State.Status) != runtime.StateRunning {
			return nil
		}
		return fmt.Errorf("the process could not be ended: %w", err)
	}
	return nil
}

// killLocal waits until the session has a process, or cannot get one any more, and
// ends it: the request to start it may still be under way.
func (x *execution) killLocal(ctx context.Context) error {
	for wait := 5 * time.Millisecond; ; wait = min(wait*2, 100*time.Millisecond) {
		found, err := killToken(ctx, x.container.State.Pid, x.token)
		if err != nil {
			return err
		}
		var s execState
		if err := x.e.ask(ctx, call{method: http.MethodGet, path: "/exec/" + x.id + "/json"}, &s); err != nil {
			if isNotFound(err) {
				return nil
			}
			return err
		}
		// A session that was never started has no exit status and no process; the
		// start was not asked for then, or was refused.
		if !s.Running && !found {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(wait):
		}
	}
}

const helperName = ".bottle-kill"

func (x *execution) killInside(ctx context.Context) error {
	h, err := x.e.describe(ctx)
	if err != nil {
		return err
	}
	binary, err := tinyinit.Binary(h.Host.Arch)
	if err != nil {
		return err
	}
	var b bytes.Buffer
	t := tar.NewWriter(&b)
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: helperName, Mode: 0o755, Size: int64(len(binary))}); err != nil {
		return err
	}
	if _, err := t.Write(binary); err != nil {
		return err
	}
	if err := t.Close(); err != nil {
		return err
	}
	if err := x.e.putArchive(ctx, x.container.ID, "/", &b); err != nil {
		return err
	}
	var made created
	if err := x.e.ask(ctx, call{method: http.MethodPost, path: "/containers/" + x.container.ID + "/exec", json: execConfig{
		Cmd: []string{"/" + helperName, "kill", x.token}, User: x.spec.User, WorkingDir: "/", AttachStdout: true, AttachStderr: true,
	}}, &made); err != nil {
		return err
	}
	helper := &execution{e: x.e, container: x.container, id: made.ID}
	if err := helper.run(ctx); err != nil {
		return err
	}
	code, err := helper.status(ctx)
	if err == nil && code != 0 {
		err = runtime.Errorf(errdefs.ErrInternal, "the helper in the container ended with status %d", code)
	}
	return err
}
