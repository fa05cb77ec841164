package leftover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/session"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/fake"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// dead is a process of this user that has ended.
func dead(t *testing.T) session.Process {
	t.Helper()
	cmd := exec.Command("true")
	check(t, cmd.Run())
	p := session.ThisSystem().Self()
	p.PID, p.Start = cmd.Process.Pid, "1"
	return p
}

// site is an engine in memory and a store.
type site struct {
	t      *testing.T
	engine *fake.Engine
	keeper Keeper
}

func newSite(t *testing.T) *site {
	t.Helper()
	store, err := session.Open(filepath.Join(t.TempDir(), "sessions"), session.ThisSystem())
	check(t, err)
	engine := fake.New()
	return &site{t, engine, Keeper{Runtime: runtime.Checked(engine), Store: store, System: session.ThisSystem()}}
}

// network puts what is left of a launch on the engine.
func (s *site) network(launch, bottle string, owner *session.Process, detached bool) {
	s.t.Helper()
	labels := map[string]string{core.LabelLaunch: launch, core.LabelBottle: bottle, core.LabelRole: core.RoleEgress}
	if owner != nil {
		labels[core.LabelOwner] = owner.String()
	}
	if detached {
		labels[core.LabelDetached] = "true"
	}
	_, err := s.keeper.Runtime.CreateNetwork(s.t.Context(), runtime.NetworkSpec{Name: "bottle-" + bottle + ".egress", Labels: labels})
	check(s.t, err)
}

// record writes the record of a launch, with another owner.
func (s *site) record(launch, bottle, engine string, owner session.Process, detached bool) {
	s.t.Helper()
	it, err := s.keeper.Store.Begin(session.Record{Launch: launch, Bottle: bottle, Engine: engine, Endpoint: "memory:", Label: core.LabelLaunch, Created: time.Unix(1e9, 0)})
	check(s.t, err)
	check(s.t, it.Update(func(r *session.Record) { r.Owner, r.Detached = owner, detached }))
	it.Release()
}

func launchID(n int) string { return fmt.Sprintf("%016x", n) }

func TestWhatIsToBeDoneAboutABottle(t *testing.T) {
	s := newSite(t)
	gone, self := dead(t), session.ThisSystem().Self()
	another := gone
	another.UID++
	elsewhere := gone
	elsewhere.Host, elsewhere.Boot = "elsewhere", "x"
	type want struct {
		verdict Verdict
		why     string
	}
	wants := map[string]want{}
	add := func(bottle string, w want, put func(launch string)) {
		put(launchID(len(wants)))
		wants[bottle] = w
	}
	for bottle, c := range map[string]struct {
		want
		engine   string
		owner    session.Process
		detached bool
		there    bool
	}{
		"abandoned":        {want{Remove, "died without removing it"}, fake.Name, gone, false, true},
		"abandoned-empty":  {want{Remove, "died without removing it"}, fake.Name, gone, false, false},
		"alive":            {want{Keep, "lives"}, fake.Name, self, false, true},
		"other-machine":    {want{Keep, "cannot be told from here"}, fake.Name, elsewhere, false, true},
		"detached-broken":  {want{Ask, "its agent is gone"}, fake.Name, gone, true, true},
		"detached-gone":    {want{Ask, "nothing of it is on the engine any more"}, fake.Name, gone, true, false},
		"elsewhere":        {want{Ask, "it is on another engine: other memory:"}, "other", gone, false, false},
		"elsewhere-living": {want{Keep, "it is on another engine: other memory:"}, "other", self, false, false},
	} {
		add(bottle, c.want, func(launch string) {
			s.record(launch, bottle, c.engine, c.owner, c.detached)
			if c.there {
				s.network(launch, bottle, &c.owner, c.detached)
			}
		})
	}
	for bottle, c := range map[string]struct {
		want
		owner    *session.Process
		detached bool
	}{
		"lost":               {want{Ask, "died, and there is no record of it"}, &gone, false},
		"lost-detached":      {want{Ask, "died, and there is no record of it"}, &gone, true}, // broken, in this site
		"lost-alive":         {want{Keep, "lives, or may live"}, &self, false},
		"another-users":      {want{Keep, fmt.Sprintf("it is of user %d", another.UID)}, &another, false},
		"another-machines":   {want{Keep, "on elsewhere"}, &elsewhere, false},
		"of-unknown-process": {want{Keep, "do not tell whose it is"}, nil, false},
	} {
		add(bottle, c.want, func(launch string) { s.network(launch, bottle, c.owner, c.detached) })
	}
	broken := launchID(1000)
	check(t, os.WriteFile(filepath.Join(s.keeper.Store.Dir(), broken+".json"), []byte(`{"version":`), 0o600))
	s.network(broken, "unreadable", &gone, false)
	wants["unreadable"] = want{Keep, "it is no record, or cut short"}

	found, err := s.keeper.Find(t.Context())
	check(t, err)
	if len(found) != len(wants) {
		t.Errorf("%d findings, want %d", len(found), len(wants))
	}
	for _, f := range found {
		w := wants[f.Bottle]
		if f.Verdict != w.verdict || !strings.Contains(f.Why, w.why) {
			t.Errorf("%s: %s, %q; want %s, %q", f.Bottle, f.Verdict, f.Why, w.verdict, w.why)
		}
	}

	// Whatever is asked for, what is to be kept stays.
	for _, f := range found {
		removed, err := s.keeper.Remove(t.Context(), f, nil)
		if may := f.Verdict != Keep && f.Elsewhere == ""; may != (err == nil) || (len(removed) > 0) != (may && f.There) {
			t.Errorf("%s: removed %q, %v", f.Bottle, removed, err)
		}
	}
	after, err := s.keeper.Find(t.Context())
	check(t, err)
	for _, f := range after {
		if f.Verdict != Keep && f.Elsewhere == "" {
			t.Errorf("%s is still there", f.Bottle)
		}
	}
	if kept := len(found) - len(after); kept != 6 {
		t.Errorf("%d are gone", kept)
	}
}

func TestWhatTheEngineMakesLateIsRemovedToo(t *testing.T) {
	synctest.Test(t, whatIsMadeLate)
}

func whatIsMadeLate(t *testing.T) {
	s := newSite(t)
	gone := dead(t)
	s.record(launchID(1), "late", fake.Name, gone, false)
	it, err := s.keeper.Store.Take(launchID(1))
	check(t, err)
	time.AfterFunc(100*time.Millisecond, func() { s.network(launchID(1), "late", &gone, false) })
	removed, err := Clear(t.Context(), s.keeper.Runtime, it, 2*time.Second, nil)
	if err != nil || !slices.Equal(removed, []string{"network bottle-late.egress"}) {
		t.Errorf("%q, %v", removed, err)
	}
	if left, err := s.keeper.Store.List(); err != nil || len(left) > 0 {
		t.Errorf("left: %+v, %v", left, err)
	}
}

func TestARecordStaysUntilEverythingIsGone(t *testing.T) {
	s := newSite(t)
	gone := dead(t)
	s.record(launchID(1), "stuck", fake.Name, gone, false)
	s.network(launchID(1), "stuck", &gone, false)
	s.engine.SetFault(func(op, _ string) error {
		if op == "RemoveNetwork" {
			return errors.New("not now")
		}
		return nil
	})
	it, err := s.keeper.Store.Take(launchID(1))
	check(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := Clear(ctx, s.keeper.Runtime, it, 0, nil); core.KindOf(err) != core.KindLeftover {
		t.Errorf("got %v", err)
	}
	e, err := s.keeper.Store.Load(launchID(1))
	if err != nil || !strings.Contains(e.Record.Trouble, "1 error") && !strings.Contains(e.Record.Trouble, "not now") {
		t.Errorf("%+v, %v", e.Record, err)
	}
	s.engine.SetFault(nil)
	abandoned, err := Abandoned(s.keeper.Store)
	if err != nil || len(abandoned) != 1 {
		t.Errorf("%+v, %v", abandoned, err)
	}
}

func TestOnlyOneClearsUp(t *testing.T) {
	s := newSite(t)
	s.record(launchID(1), "one", fake.Name, dead(t), false)
	found, err := s.keeper.Find(t.Context())
	check(t, err)
	it, err := s.keeper.Store.Take(launchID(1))
	check(t, err)
	defer it.Release()
	if _, err := s.keeper.Remove(t.Context(), found[0], nil); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
}
