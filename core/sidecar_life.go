package core

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core/sidecarimage"
	"github.com/bottle-run/bottle/runtime"
)

// Sidecar is one of a bottle's.
type Sidecar struct {
	// Role is what it is: RoleFirewall, RoleEgressProxy, RoleGitGate, RoleSupervise.
	Role string
	// Container is the ID of its container.
	Container string
	// State is as it was when it was found, or a moment before.
	State runtime.State
}

// Sidecars finds the bottle's sidecars, in the order in which they were made.
func (b *Bottle) Sidecars(ctx context.Context) ([]Sidecar, error) {
	containers, err := b.containers(ctx)
	if err != nil {
		return nil, err
	}
	var list []Sidecar
	for _, c := range containers {
		if role := c.Labels[LabelRole]; isSidecar(role) {
			list = append(list, Sidecar{Role: role, Container: c.ID, State: c.State})
		}
	}
	return list, nil
}

// containers lists the bottle's containers.
func (b *Bottle) containers(ctx context.Context) ([]runtime.Container, error) {
	b.mu.Lock()
	launch := b.launch
	b.mu.Unlock()
	if launch == "" {
		return nil, nil
	}
	return b.rt.ListContainers(ctx, runtime.Filter{Labels: map[string]string{LabelLaunch: launch}})
}

// AskSidecar runs the sidecars' program in one of them: args are its arguments, such as
// "policy", "show". A status other than 0 is an *AskError. A bottle without such a
// sidecar is of KindNotFound.
func (b *Bottle) AskSidecar(ctx context.Context, role string, args []string, stdin io.Reader, stdout io.Writer) error {
	s, err := b.sidecar(ctx, role)
	if err != nil {
		return err
	}
	return b.ask(ctx, s, args, stdin, stdout)
}

// ask is AskSidecar for a sidecar that has been found.
func (b *Bottle) ask(ctx context.Context, s Sidecar, args []string, stdin io.Reader, stdout io.Writer) error {
	said := &tailBuffer{max: maxLastWords}
	status, err := b.rt.Exec(ctx, s.Container, runtime.ExecSpec{
		Command: append([]string{sidecarimage.Program}, args...), WorkDir: "/", Stdin: stdin, Stdout: stdout, Stderr: said,
	})
	if err != nil {
		return err
	}
	if status.Code != 0 {
		return &AskError{Role: s.Role, Status: status.Code, Said: strings.Join(said.lines(), "\n")}
	}
	return nil
}

// AskError is a sidecar's program that did not end well.
type AskError struct {
	Role   string
	Status int
	// Said is what it said, escaped.
	Said string
}

// Error gives what the program said.
func (e *AskError) Error() string {
	said := strings.TrimPrefix(e.Said, "bottle-sidecar: ")
	return fmt.Sprintf("the %s: %s", roleText(e.Role), orDefault(said, fmt.Sprintf("status %d", e.Status)))
}

// SidecarLogs writes what a sidecar wrote: its audit log to Stdout, what happened to
// itself to Stderr.
func (b *Bottle) SidecarLogs(ctx context.Context, role string, opts runtime.LogOptions) error {
	s, err := b.sidecar(ctx, role)
	if err != nil {
		return err
	}
	return b.rt.Logs(ctx, s.Container, opts)
}

func (b *Bottle) sidecar(ctx context.Context, role string) (Sidecar, error) {
	list, err := b.Sidecars(ctx)
	if err != nil {
		return Sidecar{}, err
	}
	i := slices.IndexFunc(list, func(s Sidecar) bool { return s.Role == role })
	if i < 0 {
		return Sidecar{}, Errorf(KindNotFound, "bottle %s has no %s", b.Name, roleText(role))
	}
	return list[i], nil
}

// Death is the end of a sidecar while its bottle lives. The agent cannot reach anything
// through it any more.
type Death struct {
	Role string
	// Status is how it ended.
	Status runtime.ExitStatus
	// Gone reports that its container has been removed.
	Gone bool
	// Err is why it cannot be told any more whether it lives.
	Err error
	// Log holds its last lines, escaped.
	Log []string
}

// String words the death, in several lines if there is a log.
func (d Death) String() string {
	role := roleText(d.Role)
	switch {
	case d.Err != nil:
		return fmt.Sprintf("whether the %s runs is not known any more: %v", role, d.Err)
	case d.Gone:
		return fmt.Sprintf("the %s is gone: somebody has removed its container. What the agent asks of it fails", role)
	}
	return fmt.Sprintf("the %s has died with status %s. What the agent asks of it fails%s", role, statusText(d.Status), saidText(d.Log))
}

// WatchSidecars tells when a sidecar ends. The channel is closed when all have, or, soon, after
// ctx ends; wait for that before the bottle is closed.
func (b *Bottle) WatchSidecars(ctx context.Context) (<-chan Death, error) {
	list := b.launched
	if list == nil {
		var err error
		if list, err = b.Sidecars(ctx); err != nil {
			return nil, err
		}
	}
	deaths := make(chan Death, len(list))
	var wg sync.WaitGroup
	for _, s := range list {
		wg.Go(func() {
			d := Death{Role: s.Role}
			status, err := b.rt.Wait(ctx, s.Container)
			switch {
			case ctx.Err() != nil:
				return
			case errdefs.IsNotFound(err):
				d.Gone = true
			case err != nil:
				d.Err = err
			default:
				// The agent may end of it, and the watch with that: its words are told all the same.
				looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
				defer cancel()
				d.Status, d.Log = status, lastWords(looking, b.rt, s.Container)
				if _, err := b.rt.InspectContainer(looking, s.Container); errdefs.IsNotFound(err) {
					d.Gone = true
				}
			}
			deaths <- d
		})
	}
	go func() {
		wg.Wait()
		close(deaths)
	}()
	return deaths, nil
}

// DeadSidecars are those that do not run, but for those that are known to be dead. What is
// gone altogether is not among them.
func (b *Bottle) DeadSidecars(ctx context.Context, known []Death) ([]Death, error) {
	list, err := b.containers(ctx)
	if err != nil {
		return nil, err
	}
	list = slices.DeleteFunc(list, func(c runtime.Container) bool {
		role := c.Labels[LabelRole]
		return !isSidecar(role) || slices.ContainsFunc(known, func(d Death) bool { return d.Role == role })
	})
	// A list may still have one run that has just ended.
	if list, err = inspectAll(ctx, b.rt, list); err != nil {
		return nil, err
	}
	var dead []Death
	for _, c := range list {
		if c.State == runtime.StateExited {
			dead = append(dead, Death{Role: c.Labels[LabelRole], Status: c.Exit, Log: lastWords(ctx, b.rt, c.ID)})
		}
	}
	return dead, nil
}

// isSidecar reports whether a role is a sidecar's.
func isSidecar(role string) bool {
	return slices.Contains([]string{RoleFirewall, RoleEgressProxy, RoleGitGate, RoleSupervise}, role)
}
