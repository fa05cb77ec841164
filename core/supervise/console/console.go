// Package console runs the terminal interface of package tui over all bottles on an engine:
// it finds them as they come and go, follows their proposals and what is denied in them, and
// does what the operator decides, through the engine alone.
//
// It ends when the operator quits or ctx ends, and the terminal is then as it was before. An
// engine that goes away in the middle is said on the screen, and asked again.
package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/internal/graph"
	"github.com/bottle-run/bottle/core/supervise"
	"github.com/bottle-run/bottle/core/supervise/tui"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
	"github.com/bottle-run/bottle/sidecar/supervise/operator"

	_ "github.com/bottle-run/bottle/core/supervise/unasked" // no command asks the terminal anything at its start
)

const (
	// every is how often the engine is asked which bottles there are.
	every = 2 * time.Second
	// past is how old denied requests may be that are shown in the beginning.
	past = 10 * time.Minute
	// perSecond is how many denied requests of a bottle are shown in a second: an agent
	// can make more than anybody can read.
	perSecond = 50
)

// Options say what the interface works with.
type Options struct {
	Runtime runtime.Runtime
	// Host is where tokens come from that a bottle does not have yet.
	Host core.Host
	// Manifest is written to in place of those that bottles were launched from, if it is not
	// empty.
	Manifest string
	// By is who decides: USER@HOST.
	By string
	// Input and Output are the terminal.
	Input  io.Reader
	Output io.Writer
}

// Run shows the interface until the operator quits.
func Run(ctx context.Context, opts Options) error {
	ctx, cancel := context.WithCancel(ctx)
	d := &desk{Options: opts, followed: map[string]*followed{}}
	p := tea.NewProgram(tui.New(ctx, d), tea.WithAltScreen(), tea.WithInput(opts.Input), tea.WithOutput(opts.Output), tea.WithoutSignalHandler())
	d.send = p.Send
	d.running.Go(func() {
		if err := graph.Guard(func() error { d.discover(ctx); return nil }); err != nil {
			d.broken(err)
			p.Quit()
		}
	})
	// It is asked to quit and not killed, nor given the context, which comes to the same: then
	// it does not wait for what reads the terminal.
	stop := context.AfterFunc(ctx, p.Quit)
	_, err := p.Run()
	told := !stop()
	cancel()
	d.running.Wait()
	switch {
	case d.bug != nil:
		return d.bug
	case err == nil && told:
		return context.Cause(ctx)
	}
	return err
}

// desk is a [tui.Backend].
type desk struct {
	Options
	send    func(tea.Msg)
	running sync.WaitGroup

	mu       sync.Mutex
	bug      error
	followed map[string]*followed // by launch
}

// followed is a bottle that is looked at.
type followed struct {
	name string
	stop context.CancelFunc
	// asking and auditing are whether its proposals and its denials are being followed.
	asking, auditing bool
}

func (d *desk) broken(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bug == nil {
		d.bug = err
	}
}

// discover finds bottles as they come and go.
func (d *desk) discover(ctx context.Context) {
	for {
		list, err := core.List(ctx, d.Runtime)
		if ctx.Err() != nil {
			return
		}
		d.send(tui.Engine{Err: err})
		if err == nil {
			d.follow(ctx, list)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

// follow follows those that are there, and lets go of those that are not any more.
func (d *desk) follow(ctx context.Context, list []core.Status) {
	d.mu.Lock()
	defer d.mu.Unlock()
	here := map[string]bool{}
	for _, s := range list {
		if s.State == core.StateBroken {
			continue
		}
		here[s.Launch] = true
		f := d.followed[s.Launch]
		if f == nil {
			own, stop := context.WithCancel(ctx)
			f = &followed{name: s.Name, stop: stop}
			d.followed[s.Launch] = f
			f.auditing = len(s.Sidecars) > 0
			if f.auditing {
				d.start(func() { d.denials(own, s.Name) })
			}
			f.asking = slices.Contains(s.Sidecars, core.RoleSupervise)
			if f.asking {
				d.start(func() { d.proposals(own, s.Name) })
			}
		}
	}
	for _, launch := range slices.Collect(maps.Keys(d.followed)) {
		f := d.followed[launch]
		if here[launch] {
			continue
		}
		f.stop()
		delete(d.followed, launch)
		if f.asking {
			d.send(tui.Gone{Bottle: f.name})
		}
	}
}

// start runs something until its end; a bug in it is told when the terminal is restored.
func (d *desk) start(do func()) {
	d.running.Go(func() {
		if err := graph.Guard(func() error { do(); return nil }); err != nil {
			d.broken(err)
			d.send(tea.Quit())
		}
	})
}

// proposals follows those of a bottle, also when its sidecar was started again meanwhile.
func (d *desk) proposals(ctx context.Context, name string) {
	for {
		b, err := d.open(ctx, name)
		if err == nil {
			err = supervise.Watch(ctx, b, func(l operator.List) { d.send(tui.Listed{Bottle: name, List: l}) })
		}
		if ctx.Err() != nil {
			return
		}
		d.send(tui.Gone{Bottle: name, Err: err})
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

// denials follows the requests that are denied in a bottle.
func (d *desk) denials(ctx context.Context, name string) {
	since := time.Now().Add(-past)
	var second int64
	shown := 0
	for {
		b, err := core.Open(ctx, d.Runtime, name, nil)
		if err == nil {
			err = b.Audit(ctx, core.AuditOptions{Since: since, Follow: true}, func(l core.AuditLine) error {
				if l.Foreign || l.Decision != audit.Deny || l.Proposal != nil || l.Host == "" {
					return nil
				}
				since = l.Time.Add(1)
				if now := time.Now().Unix(); now != second {
					second, shown = now, 0
				}
				if shown++; shown > perSecond {
					return nil
				}
				denied := tui.Denied{Bottle: name, Host: l.Host, Port: l.Port, Method: l.Method, Path: l.Path, Reason: l.Reason, Time: l.Time, Git: l.Role == core.RoleGitGate}
				d.send(denied)
				return nil
			})
		}
		// A bottle without a firewall has no such log; one that is gone is told elsewhere.
		if ctx.Err() != nil || core.KindOf(err) == core.KindNotFound {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
	}
}

func (d *desk) open(ctx context.Context, name string) (supervise.Bottle, error) {
	b, err := core.Open(ctx, d.Runtime, name, nil)
	if err != nil {
		return nil, err
	}
	return supervise.Of(b, d.Host, d.Manifest), nil
}

// By implements [tui.Backend].
func (d *desk) By() string { return d.Options.By }

// Show implements [tui.Backend].
func (d *desk) Show(ctx context.Context, bottle, id string) (operator.View, error) {
	b, err := d.open(ctx, bottle)
	if err != nil {
		return operator.View{}, err
	}
	return supervise.Show(ctx, b, id)
}

// Preview implements [tui.Backend].
func (d *desk) Preview(ctx context.Context, bottle, id string, c change.Change) (operator.View, error) {
	b, err := d.open(ctx, bottle)
	if err != nil {
		return operator.View{}, err
	}
	return supervise.Preview(ctx, b, id, c)
}

// Approve implements [tui.Backend].
func (d *desk) Approve(ctx context.Context, bottle string, v operator.View, a ledger.Approval) (ledger.Begun, error) {
	b, err := core.Open(ctx, d.Runtime, bottle, func(e core.Event) {
		if e.Text != "" && (e.State == core.StateOutput || e.State == core.StateNote) {
			d.send(tui.Output{Text: e.Text})
		}
	})
	if err != nil {
		return ledger.Begun{}, err
	}
	return supervise.Approve(ctx, supervise.Of(b, d.Host, d.Manifest), v, a)
}

// Deny implements [tui.Backend].
func (d *desk) Deny(ctx context.Context, bottle string, v operator.View, reason string) error {
	b, err := d.open(ctx, bottle)
	if err != nil {
		return err
	}
	_, err = supervise.Deny(ctx, b, v, d.By(), reason)
	return err
}

// Allow implements [tui.Backend].
func (d *desk) Allow(ctx context.Context, denied tui.Denied) error {
	if denied.Git || denied.Port == 0 {
		return errors.New("no host can be allowed for that: a repository's push rules are changed with bottle policy set")
	}
	b, err := core.Open(ctx, d.Runtime, denied.Bottle, nil)
	if err != nil {
		return err
	}
	if err := b.AllowHost(ctx, denied.Host, denied.Port, d.Host); err != nil {
		return fmt.Errorf("allowing %s: %w", denied.Host, err)
	}
	return nil
}
