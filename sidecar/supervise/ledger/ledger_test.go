package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
)

func adds(host string) change.Change {
	return change.Change{Kind: config.ProposeAllow, Allow: &change.Allow{Add: []policy.Rule{{Host: host}}}}
}

func open(t *testing.T, dir string, limits config.SuperviseLimits) *Ledger {
	t.Helper()
	l, err := Open(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Configure(&config.Supervise{Agent: "coder", Limits: limits}); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestNothingGoesBeforeAConfiguration(t *testing.T) {
	l, err := Open("", time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Charge(); !errors.Is(err, ErrState) {
		t.Error(err)
	}
	if _, err := l.Propose(adds("a.example"), "r"); !errors.Is(err, ErrState) {
		t.Error(err)
	}
	if _, err := l.Deny("p1", "", "op", ""); !errors.Is(err, ErrState) {
		t.Error(err)
	}
}

func TestWhatIsKeptIsBounded(t *testing.T) {
	l := open(t, t.TempDir(), config.SuperviseLimits{Kept: 3})
	for i := range 6 {
		p, err := l.Propose(adds(fmt.Sprintf("h%d.example", i)), "r")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Withdraw(p.ID); err != nil {
			t.Fatal(err)
		}
	}
	list := l.List()
	if len(list) != 3 || list[0].ID != "p4" {
		t.Errorf("%+v", list)
	}
	if _, err := l.Get("p1"); !errors.Is(err, ErrNotFound) {
		t.Error(err)
	}
	// In bytes, too; what waits is never forgotten.
	l = open(t, "", config.SuperviseLimits{Kept: 1000})
	pending, err := l.Propose(adds("first.example"), "r")
	if err != nil {
		t.Fatal(err)
	}
	if err := l.update(func(s *state) error { s.Config.Policy.Dockerfile = "FROM x"; return nil }); err != nil {
		t.Fatal(err)
	}
	for i := range 60 {
		p, err := l.Propose(change.Change{Kind: config.ProposeDockerfile, Dockerfile: &change.Dockerfile{Content: "FROM x\n#" + strings.Repeat("x", 60000) + fmt.Sprint(i)}}, "r")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Withdraw(p.ID); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(l.List()); n > keptBytes/60000+1 || n < 20 {
		t.Errorf("%d are kept", n)
	}
	if _, err := l.Get(pending.ID); err != nil {
		t.Error(err)
	}
}

func TestTheRate(t *testing.T) {
	now := time.Now()
	l, err := Open("", func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Configure(&config.Supervise{Limits: config.SuperviseLimits{PerMinute: 2}}); err != nil {
		t.Fatal(err)
	}
	for i, want := range []error{nil, nil, ErrLimit} {
		if err := l.Charge(); !errors.Is(err, want) {
			t.Errorf("%d: %v", i, err)
		}
	}
	now = now.Add(time.Minute)
	if err := l.Charge(); err != nil {
		t.Error(err)
	}
	now = now.Add(-time.Hour) // the clock was set back
	if err := l.Charge(); err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeWrittenHasNotHappened(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	l := open(t, dir, config.SuperviseLimits{})
	p, err := l.Propose(adds("a.example"), "r")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Withdraw(p.ID); !errors.Is(err, ErrKept) {
		t.Error(err)
	}
	if got, err := l.Get(p.ID); err != nil || got.State != Pending {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := l.Propose(adds("b.example"), "r"); !errors.Is(err, ErrKept) || len(l.List()) != 1 {
		t.Errorf("%v, %+v", err, l.List())
	}
}

func TestASpoiltFileIsToldOf(t *testing.T) {
	for name, content := range map[string]string{
		"no json": "x", "version": `{"version":2,"next":0,"proposals":[]}`, "member": `{"version":1,"next":0,"proposals":[],"x":1}`,
		"policy": `{"version":1,"next":0,"proposals":[],"config":{"agent":"a","policy":{"allow":[{"host":"*"}],"routes":[]},"limits":{}}}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, time.Now); err == nil || !strings.Contains(err.Error(), FileName) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(t.TempDir(), "none"), time.Now); err == nil {
		t.Error("a directory that is not there was opened")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, FileName), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, time.Now); err == nil {
		t.Error("a directory was read as a file")
	}
}

func TestAnApprovalThatWasBegunOutlivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, config.SuperviseLimits{})
	p, err := l.Propose(adds("a.example"), "r")
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Begin(p.ID, Approval{Revision: p.Revision, PolicyRevision: change.Revision(l.Config().Policy), By: "op"})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(filepath.Join(dir, FileName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	l, err = Open(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Get(p.ID)
	if err != nil || got.State != Applying || got.Decision.Token != "" || got.Decision.Policy != nil || got.Revision != p.Revision {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err = l.Finish(p.ID, b.Token, ""); err != nil || got.State != Approved || change.Revision(l.Config().Policy) != b.PolicyAfter {
		t.Errorf("%+v, %v", got, err)
	}
	if data, err := json.Marshal(l.List()); err != nil || strings.Contains(string(data), b.Token) {
		t.Errorf("%s, %v", data, err)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := l.Wait(done, p.ID); err != nil || got.State != Approved {
		t.Errorf("%+v, %v", got, err)
	}
}
