package containerd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	apievents "github.com/containerd/containerd/api/events"
	"github.com/containerd/containerd/api/types/task"
	"github.com/containerd/containerd/v2/core/events"
	"github.com/containerd/typeurl/v2"

	"github.com/bottle-run/bottle/runtime"
)

// containerd removes no container by itself. A container that is to be removed when
// it ends needs a process that outlives ours: the watcher, this very program started
// again, one for all such containers of a state directory. It ends when there are
// none left.

const (
	// watcherName is what the watcher is called, and by which the program that
	// imports this package tells that it is meant to be one.
	watcherName     = "bottle-containerd-watcher"
	watcherVariable = "BOTTLE_CONTAINERD_WATCHER"

	labelAutoRemove = "dev.bottle/auto-remove"

	// watcherPatience bounds how long a watcher waits for a containerd that has gone.
	watcherPatience = 2 * time.Minute

	// startPatience bounds how long a run waits for the watcher that it has started.
	startPatience = 20 * time.Second

	// removalPatience bounds the removal of one container.
	removalPatience = 30 * time.Second
)

// The watcher runs before main: no program that imports this package needs to know
// of it, tests neither.
func init() {
	if len(os.Args) != 1 || os.Args[0] != watcherName {
		return
	}
	var config watcherConfig
	if err := json.Unmarshal([]byte(os.Getenv(watcherVariable)), &config); err != nil {
		os.Exit(2)
	}
	if err := config.run(); err != nil {
		os.Exit(1)
	}
	os.Exit(0)
}

type watcherConfig struct {
	Address, Namespace, State, Run, Snapshotter string
}

func (e *Engine) watcherLock() string { return filepath.Join(e.run, "watcher.lock") }
func (e *Engine) watcherGate() string { return filepath.Join(e.run, "watcher-gate.lock") }

// ensureWatcher starts the watcher unless it runs. Containers for it must have their
// record by then.
func (e *Engine) ensureWatcher(ctx context.Context) error {
	// Under the gate a watcher that is about to end does not do so unseen.
	gate, err := lock(ctx, e.watcherGate())
	if err != nil {
		return err
	}
	defer gate.unlock()
	l, err := tryLock(e.watcherLock())
	if err != nil {
		return err
	}
	if l == nil {
		return nil // it runs
	}
	l.unlock()
	config, err := json.Marshal(watcherConfig{e.address, e.namespace, e.state, e.run, e.snapshotter})
	if err != nil {
		return err
	}
	ready, started, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{watcherName}, Dir: "/",
		Env:         []string{watcherVariable + "=" + string(config), "PATH=" + os.Getenv("PATH")},
		ExtraFiles:  []*os.File{started},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	err = cmd.Start()
	_ = started.Close()
	if err != nil {
		return fmt.Errorf("start the process that removes the container when it ends: %w", err)
	}
	// It is nobody's child when this process ends before it, and else reaped.
	go func() { _ = cmd.Wait() }()
	if err := ready.SetReadDeadline(time.Now().Add(startPatience)); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Now()) })()
	if answer, err := io.ReadAll(ready); err != nil || string(answer) != "ok" {
		return fmt.Errorf("the process that removes the container when it ends did not start: %s", strings.TrimSpace(string(answer)+" "+errorText(err)))
	}
	return nil
}

// watched reports whether there is a watcher. Where that cannot be seen there is none.
func (e *Engine) watched() bool {
	// Under the gate none is being started: it would not get the lock.
	gate, err := tryLock(e.watcherGate())
	if err != nil || gate == nil {
		return false
	}
	defer gate.unlock()
	l, err := tryLock(e.watcherLock())
	if l != nil {
		l.unlock()
	}
	return err == nil && l == nil
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// run is the watcher's life.
func (c *watcherConfig) run() error {
	debug.SetGCPercent(20)
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT)
	starter := os.NewFile(3, "starter")
	syscall.CloseOnExec(3)
	answer := func(text string) {
		_, _ = starter.WriteString(text)
		_ = starter.Close()
	}
	ctx := context.Background()
	e, err := c.open(ctx)
	if err != nil {
		answer(err.Error())
		return err
	}
	l, err := tryLock(e.watcherLock())
	if err != nil || l == nil {
		answer("another one runs")
		return err
	}
	defer l.unlock()
	answered := false
	return e.keepWatch(ctx, func() {
		if !answered {
			answered = true
			answer("ok")
		}
	})
}

func (c *watcherConfig) open(ctx context.Context) (*Engine, error) {
	cl, version, err := dial(ctx, runtime.Options{}, c.Address, c.Namespace)
	if err != nil {
		return nil, err
	}
	e := &Engine{
		client: cl, address: c.Address, namespace: c.Namespace, version: version, snapshotter: c.Snapshotter,
		state: c.State, run: c.Run, log: runtime.Options{}.Log(),
	}
	return e, e.openLink()
}

// keepWatch removes containers as they end, until there are none to wait for. It
// calls ready when it would miss no end.
func (e *Engine) keepWatch(ctx context.Context, ready func()) error {
	ctx = e.ctx(ctx)
	var lost time.Time // since when containerd does not answer
	for {
		err := e.watchOnce(ctx, func() { lost = time.Time{}; ready() })
		if err == nil {
			return nil
		}
		if lost.IsZero() {
			lost = time.Now()
		}
		if time.Since(lost) > watcherPatience {
			return err
		}
		// containerd is being restarted; it has no way to tell when it is back.
		time.Sleep(time.Second)
	}
}

// watchOnce keeps watch over one subscription. It returns nil when there is nothing
// left to watch.
func (e *Engine) watchOnce(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	envelopes, failures := e.client.EventService().Subscribe(ctx,
		fmt.Sprintf(`namespace==%s,topic=="/tasks/exit"`, e.namespace),
		fmt.Sprintf(`namespace==%s,topic=="/containers/delete"`, e.namespace))
	// Whatever ends from here on is in the subscription or in the state that is looked
	// at next. Subscribing is not acknowledged, and so it is looked at every now and
	// then, too.
	ready()
	again := time.NewTicker(5 * time.Second)
	defer again.Stop()
	var of string
	for {
		left, err := e.removeEnded(ctx, of)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			done, err := e.mayEnd(ctx)
			if done || err != nil {
				return err
			}
		}
		for matters := false; !matters; {
			if of, err = e.nextEnd(ctx, envelopes, failures, again.C); err != nil {
				return err
			}
			if matters, err = e.matters(ctx, of, left); err != nil {
				return err
			}
		}
	}
}

// matters reports whether something that has happened to a container matters, of which left
// are to be removed when they end: it is one of them, or may be a new one.
func (e *Engine) matters(ctx context.Context, id string, left map[string]bool) (bool, error) {
	if id == "" || left[id] {
		return true, nil
	}
	c, err := e.containers().Get(ctx, id)
	if isNotFound(err) {
		return false, nil // one that is removed is waited for no more than before
	}
	return c.Labels[labelAutoRemove] == "true", err
}

// nextEnd waits until a container has ended or is removed, and returns which: none if all are
// to be looked at.
func (e *Engine) nextEnd(ctx context.Context, envelopes <-chan *events.Envelope, failures <-chan error, again <-chan time.Time) (of string, err error) {
	for {
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-again:
			return "", nil
		case err, ok := <-failures:
			if !ok || err == nil {
				err = errors.New("containerd closed the subscription")
			}
			return "", err
		case envelope := <-envelopes:
			if envelope == nil {
				return "", errors.New("containerd closed the subscription")
			}
			event, err := typeurl.UnmarshalAny(envelope.Event)
			if err != nil {
				return "", nil
			}
			switch event := event.(type) {
			case *apievents.TaskExit:
				// The end of an exec is no concern.
				if event.ID != event.ContainerID {
					continue
				}
				return event.ContainerID, nil
			case *apievents.ContainerDelete:
				return event.ID, nil
			}
			return "", nil
		}
	}
}

// removeEnded removes the containers that are to be removed and have ended, or the one of
// them that is named, and returns those that are left. To ask whether one has ended is a
// call to its shim.
func (e *Engine) removeEnded(ctx context.Context, of string) (left map[string]bool, err error) {
	list, err := e.containers().List(ctx, fmt.Sprintf("labels.%q==true", labelAutoRemove))
	if err != nil {
		return nil, err
	}
	left = map[string]bool{}
	for _, c := range list {
		left[c.ID] = true
		if of != "" && c.ID != of {
			continue
		}
		p, err := e.process(ctx, c.ID)
		if err != nil {
			return nil, err
		}
		switch {
		case p != nil && p.Status != task.Status_STOPPED:
			continue
		case p == nil:
			// Between its record and its process, or after a reboot: whoever makes it
			// holds its name.
			l, err := tryLock(e.nameLock(c.Labels[labelName]))
			if err != nil || l == nil {
				continue
			}
			l.remove()
			if p, err := e.process(ctx, c.ID); err != nil || p != nil {
				continue
			}
		}
		if err := e.removeOne(ctx, c.ID); err == nil {
			delete(left, c.ID)
		}
	}
	return left, nil
}

// removeOne removes a container. One that cannot be removed keeps the others waiting
// only so long, and is tried again.
func (e *Engine) removeOne(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, removalPatience)
	defer cancel()
	return e.removeContainer(ctx, id)
}

// mayEnd reports whether the watcher may end: under the gate nobody relies on it
// anew, and it lets go of its lock before the gate.
func (e *Engine) mayEnd(ctx context.Context) (bool, error) {
	gate, err := lock(ctx, e.watcherGate())
	if err != nil {
		return false, err
	}
	list, err := e.containers().List(ctx, fmt.Sprintf("labels.%q==true", labelAutoRemove))
	if err != nil || len(list) > 0 {
		gate.unlock()
		return false, err
	}
	// Both locks end with the process, which ends now; the other way round would
	// leave a moment in which the lock is held and nobody watches.
	return true, nil
}
