package tui

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/bottle-run/bottle/core/supervise"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
	"github.com/bottle-run/bottle/sidecar/supervise/effect"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
	"github.com/bottle-run/bottle/sidecar/supervise/operator"
)

var update = flag.Bool("update", false, "write the golden files")

// backend records what it is asked for.
type backend struct {
	view operator.View
	err  error
	did  []string
}

func (b *backend) By() string { return "op@host" }
func (b *backend) Show(_ context.Context, bottle, id string) (operator.View, error) {
	b.did = append(b.did, "show "+bottle+" "+id)
	return b.view, nil
}
func (b *backend) Preview(_ context.Context, bottle, id string, c change.Change) (operator.View, error) {
	b.did = append(b.did, "preview "+bottle+" "+id+" "+c.Kind)
	return b.view, nil
}
func (b *backend) Approve(_ context.Context, bottle string, v operator.View, a ledger.Approval) (ledger.Begun, error) {
	b.did = append(b.did, fmt.Sprint("approve ", bottle, " ", v.Proposal.ID, " ", a.By, " ", a.Scope, " ", a.Edited != nil, " ", a.TakeOver))
	return ledger.Begun{}, b.err
}
func (b *backend) Deny(_ context.Context, bottle string, v operator.View, reason string) error {
	b.did = append(b.did, fmt.Sprintf("deny %s %s %q", bottle, v.Proposal.ID, reason))
	return b.err
}
func (b *backend) Allow(_ context.Context, d Denied) error {
	b.did = append(b.did, fmt.Sprintf("allow %s %s:%d", d.Bottle, d.Host, d.Port))
	return b.err
}
func (b *backend) Edit(v operator.View) tea.Cmd {
	return func() tea.Msg { return Edited{Change: v.Proposal.Change} }
}

// screen drives a model as a terminal would.
type screen struct {
	t *testing.T
	m Model
	b *backend
}

func newScreen(t *testing.T) *screen {
	c := change.Change{Kind: config.ProposeAllow, Allow: &change.Allow{Add: []policy.Rule{{Host: "*.evil.example"}}}}
	before := config.Policy{Allow: []policy.Rule{{Host: "example.com"}}}
	after, err := c.Apply(before, "proposal:p1")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{view: operator.View{
		Proposal: ledger.Proposal{ID: "p1", State: ledger.Pending, Change: c}, PolicyRevision: "r", Title: "+*.evil.example",
		Reason: "docs are there\nWhat becomes possible: nothing", Effect: effect.Compare(before, after), Diff: "--- a\n+++ b\n@@ -1 +1 @@\n-x\n+y\n",
	}}
	s := &screen{t, New(t.Context(), b), b}
	s.send(tea.WindowSizeMsg{Width: 80, Height: 24})
	return s
}

// send delivers a message, and those of the commands that it makes.
func (s *screen) send(msg tea.Msg) {
	for msg != nil {
		m, cmd := s.m.Update(msg)
		s.m, msg = m.(Model), nil
		if cmd != nil {
			msg = cmd()
		}
		if _, quit := msg.(tea.QuitMsg); quit {
			return
		}
	}
}

func (s *screen) keys(keys ...string) {
	for _, k := range keys {
		switch k {
		case "enter":
			s.send(tea.KeyMsg{Type: tea.KeyEnter})
		case "esc":
			s.send(tea.KeyMsg{Type: tea.KeyEsc})
		case "tab":
			s.send(tea.KeyMsg{Type: tea.KeyTab})
		case "backspace":
			s.send(tea.KeyMsg{Type: tea.KeyBackspace})
		case "down":
			s.send(tea.KeyMsg{Type: tea.KeyDown})
		default:
			s.send(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune(k)})
		}
	}
}

func (s *screen) golden(name string) {
	s.t.Helper()
	got := s.m.View() + "\n"
	file := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		s.t.Fatal(err)
	}
	if got != string(want) {
		s.t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
	for i, l := range strings.Split(strings.TrimSuffix(got, "\n"), "\n") {
		if n := len([]rune(l)); n > s.m.width || i >= s.m.height {
			s.t.Errorf("%s: line %d has %d characters", name, i, n)
		}
	}
}

func (s *screen) list() {
	s.send(Listed{"coder", operator.List{Agent: "claude", Proposals: []operator.Summary{
		{ID: "p1", State: ledger.Pending, Kind: config.ProposeAllow, Made: "2026-11-23T12:34:56Z", Title: "+*.evil.example"},
		{ID: "p0", State: ledger.Denied, Kind: config.ProposeAllow, Made: "2026-11-23T12:00:00Z", Title: "+old.example"},
	}}})
	s.send(Listed{"tester", operator.List{Agent: "codex", Proposals: []operator.Summary{
		{ID: "p7", State: ledger.Applying, Kind: config.ProposeDockerfile, Made: "2026-11-23T12:30:00Z", Title: "2 edits of the Dockerfile", By: "eve@host"},
	}}})
}

func (s *screen) did(want ...string) {
	s.t.Helper()
	if strings.Join(s.b.did, "; ") != strings.Join(want, "; ") {
		s.t.Errorf("%q; want %q", s.b.did, want)
	}
	s.b.did = nil
}

func TestScreens(t *testing.T) {
	s := newScreen(t)
	s.golden("empty")
	s.list()
	s.send(Denied{Bottle: "coder", Host: "xn--80ak6aa92e.com", Port: 443, Method: "GET", Path: "/\x1b[2J", Reason: "not in the allowlist", Time: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)})
	s.golden("list")
	s.keys("down", "enter")
	s.did("show coder p1")
	s.golden("proposal")
	s.keys("d")
	s.keys("n", "o", "x", "backspace")
	s.golden("why")
	s.keys("enter")
	s.did(`deny coder p1 "no"`)
	s.golden("denied")
	s.keys("tab")
	s.golden("feed")
	s.keys("r")
	// Another one comes in: the question stays the same.
	s.send(Denied{Bottle: "coder", Host: "evil.example", Port: 443})
	s.golden("allow")
	s.keys("y")
	s.did("allow coder xn--80ak6aa92e.com:443")
	s.keys("r", "n")
	s.did()
	s.send(tea.WindowSizeMsg{Width: 40, Height: 10})
	s.golden("small")
}

func TestNothingIsApprovedUnseen(t *testing.T) {
	s := newScreen(t)
	s.b.view.Diff = strings.Repeat("+x\n", 100)
	s.list()
	s.keys("down", "enter", "a")
	s.did("show coder p1")
	if !strings.Contains(s.m.status, "read on") {
		t.Errorf("%q", s.m.status)
	}
	for range 10 {
		s.keys(" ")
	}
	s.keys("a")
	s.did("approve coder p1 op@host bottle false false")
	// What is opened again has to be read again, as has what was edited.
	s.keys("enter")
	s.b.did = nil
	s.keys("m")
	s.did()
	s.b.view.Diff = "+x\n"
	s.keys("e")
	s.did("preview coder p1 egress_allow")
	if !strings.Contains(s.m.View(), "As you have edited it") {
		t.Error(s.m.View())
	}
	s.keys("m")
	s.did("approve coder p1 op@host manifest true false")
}

func TestWhatHasChangedIsShownAgain(t *testing.T) {
	s := newScreen(t)
	s.list()
	s.keys("down", "enter")
	s.b.did = nil
	s.b.err = fmt.Errorf("wrapped: %w", supervise.ErrStale)
	s.keys("a")
	s.did("approve coder p1 op@host bottle false false", "show coder p1")
	if s.m.mode != viewing || !strings.Contains(s.m.View(), "NOT DONE") {
		t.Error(s.m.View())
	}
	s.b.err = errors.New("the engine is \x1b[2Jgone")
	s.keys("a")
	if !strings.Contains(s.m.View(), `the engine is \u{1b}[2Jgone`) {
		t.Error(s.m.View())
	}
	s.b.view.Conflict = "nothing would change"
	s.keys("esc", "enter")
	s.b.did = nil
	s.keys("a")
	s.did()
	s.keys("esc")
	s.send(Gone{Bottle: "coder"})
	s.send(Gone{Bottle: "tester", Err: errors.New("the engine does not answer")})
	if !strings.Contains(s.m.View(), "No bottle with supervise runs") || !strings.Contains(s.m.View(), "cannot be asked any more") {
		t.Error(s.m.View())
	}
	s.keys("enter", "down", "r", "tab", "r")
	s.did()
}

func TestAnAgentsTextStaysInItsPlace(t *testing.T) {
	s := newScreen(t)
	s.b.view.Reason = strings.Repeat("x ", 100) + "\nWhat becomes possible:\n" + strings.Repeat("漢", 200)
	s.b.view.Diff = "+" + strings.Repeat("y ", 100)
	s.list()
	s.keys("down", "enter")
	for _, l := range s.m.text() {
		if strings.ContainsAny(l, "xy漢") && strings.Contains(l, "x x") || strings.Contains(l, "y y") || strings.Contains(l, "漢") {
			if !strings.HasPrefix(l, "  │ ") {
				t.Errorf("%q", l)
			}
		}
		width := 0
		for _, r := range l {
			width += cells(r)
		}
		if width > 80 {
			t.Errorf("%q has %d cells", l, width)
		}
	}
	if n := strings.Count(strings.Join(s.m.text(), ""), "漢"); n != 200 {
		t.Errorf("%d of 200 characters are shown", n)
	}
}

// TestProgram runs the program itself, without a terminal.
func TestProgram(t *testing.T) {
	s := newScreen(t)
	in, out := strings.NewReader(""), &strings.Builder{}
	p := tea.NewProgram(s.m, tea.WithInput(in), tea.WithOutput(out), tea.WithContext(t.Context()), tea.WithoutSignalHandler())
	go func() {
		p.Send(tea.WindowSizeMsg{Width: 80, Height: 24})
		p.Send(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune("q")})
	}()
	if _, err := p.Run(); err != nil {
		t.Fatal(err)
	}
}
