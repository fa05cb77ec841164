// Package tui is the terminal interface of `bottle supervise`: what agents ask for in all
// bottles, what becomes possible, the answer, and the requests that are being denied.
//
// It does no input or output of its own: a [Backend] does, in commands that the program
// runs. What agents wrote reaches the screen escaped. A proposal can only be approved once
// all of it has been on the screen, and as it was on the screen.
package tui

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"

	"github.com/bottle-run/bottle/core/supervise"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
	"github.com/bottle-run/bottle/sidecar/supervise/operator"
	"github.com/bottle-run/bottle/sidecar/supervise/show"

	_ "github.com/bottle-run/bottle/core/supervise/unasked" // no command asks the terminal anything at its start
)

// The smallest terminal, in cells.
const (
	minWidth  = 60
	minHeight = 16
)

// keptOutput is how many lines of what is being done are kept.
const keptOutput = 100

// feed is how many denied requests are kept.
const feed = 200

// Backend is what the interface acts through. Its calls may take time, and run beside each
// other.
type Backend interface {
	// By is who decides: USER@HOST.
	By() string
	Show(ctx context.Context, bottle, id string) (operator.View, error)
	Preview(ctx context.Context, bottle, id string, c change.Change) (operator.View, error)
	Approve(ctx context.Context, bottle string, v operator.View, a ledger.Approval) (ledger.Begun, error)
	Deny(ctx context.Context, bottle string, v operator.View, reason string) error
	// Allow makes a rule of a request that was denied.
	Allow(ctx context.Context, d Denied) error
	// Edit has the operator change a change, and returns a command that ends with an
	// [Edited]: it may take the terminal.
	Edit(v operator.View) tea.Cmd
}

// Listed is a message: the proposals of a bottle, now.
type Listed struct {
	Bottle string
	List   operator.List
}

// Gone is a message: a bottle has ended, or cannot be asked any more.
type Gone struct {
	Bottle string
	Err    error
}

// Denied is a message: a request that was denied. Its texts are the agent's.
type Denied struct {
	Bottle, Host, Method, Path, Reason string
	Port                               uint16
	Time                               time.Time
	// Git is a fetch or a push, for which no host can be allowed.
	Git bool
}

// Engine is a message: whether the engine answers.
type Engine struct{ Err error }

// Output is a message: a line of what an approval does, such as a build. It may be anybody's.
type Output struct{ Text string }

// Edited is a message: what Edit has come to.
type Edited struct {
	Change change.Change
	Err    error
}

type viewed struct {
	bottle string
	view   operator.View
	edited *change.Change
	err    error
}

type decided struct {
	text string
	err  error
}

// entry is a proposal in the list.
type entry struct {
	bottle string
	operator.Summary
}

type mode int

const (
	listing mode = iota
	denials
	viewing
	asking   // for the reason of a denial
	allowing // whether a rule is to be made of a denied request
)

// Model is the interface. Its zero value cannot be used: see [New].
type Model struct {
	ctx     context.Context
	backend Backend

	width, height int
	mode          mode
	bottles       map[string]operator.List
	denied        []Denied // newest first
	chosen        int      // in the list, or among the denied
	status        string
	busy          bool
	engine        error    // why it does not answer; nil if it does
	output        []string // of what is being done

	bottle string
	view   operator.View
	edited *change.Change
	top    int
	seen   bool // all of the view has been on the screen
	reason []rune
	rule   Denied // while allowing
}

// New makes a model. Ctx ends what the backend does.
func New(ctx context.Context, b Backend) Model {
	return Model{ctx: ctx, backend: b, bottles: map[string]operator.List{}}
}

// Init does nothing: messages come from outside.
func (m Model) Init() tea.Cmd { return nil }

// pending are the proposals that wait, oldest first.
func (m Model) pending() []entry {
	var list []entry
	for name, l := range m.bottles {
		for _, s := range l.Proposals {
			if !s.State.Final() {
				list = append(list, entry{name, s})
			}
		}
	}
	slices.SortFunc(list, func(a, b entry) int {
		return strings.Compare(a.Made+" "+a.bottle+" "+a.ID, b.Made+" "+b.bottle+" "+b.ID)
	})
	return list
}

// Update takes a message.
func (m Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
		m.top = 0
		m.look()
	case Listed:
		bottles := map[string]operator.List{msg.Bottle: msg.List}
		for name, l := range m.bottles {
			if name != msg.Bottle {
				bottles[name] = l
			}
		}
		m.bottles = bottles
		m.clamp()
	case Gone:
		bottles := map[string]operator.List{}
		for name, l := range m.bottles {
			if name != msg.Bottle {
				bottles[name] = l
			}
		}
		m.bottles = bottles
		m.status = fmt.Sprintf("bottle %s is gone", show.Line(msg.Bottle))
		if msg.Err != nil {
			m.status = fmt.Sprintf("bottle %s cannot be asked any more: %s", show.Line(msg.Bottle), show.Line(msg.Err.Error()))
		}
		if m.bottle == msg.Bottle && (m.mode == viewing || m.mode == asking) {
			m.mode = listing
		}
		m.clamp()
	case Denied:
		m.denied = append([]Denied{msg}, m.denied[:min(len(m.denied), feed-1)]...)
		if m.mode == denials && len(m.denied) > 1 {
			m.chosen++ // the same one stays chosen
		}
		m.clamp()
	case Engine:
		m.engine = msg.Err
	case Output:
		m.output = append(m.output[max(0, len(m.output)-keptOutput):], show.Line(msg.Text))
	case viewed:
		m.busy = false
		if msg.err != nil {
			m.status = show.Line(msg.err.Error())
			break
		}
		m.mode, m.bottle, m.view, m.edited, m.top, m.seen = viewing, msg.bottle, msg.view, msg.edited, 0, false
		m.look()
	case Edited:
		m.busy = false
		if msg.Err != nil {
			m.status = show.Line(msg.Err.Error())
			break
		}
		return m.preview(msg.Change)
	case decided:
		m.busy = false
		m.status = msg.text
		if msg.err != nil {
			m.status = show.Line(msg.err.Error())
		}
		switch {
		case errors.Is(msg.err, supervise.ErrStale) && m.mode == viewing:
			m.status = "NOT DONE: something has changed since it was shown. This is how it is now"
			return m.open(m.bottle, m.view.Proposal.ID)
		case (msg.err == nil || errors.Is(msg.err, supervise.ErrNotSaved)) && m.mode == viewing:
			m.mode = listing
			m.clamp()
		}
	case tea.KeyMsg:
		return m.key(msg)
	}
	return m, nil
}

// clamp keeps the choice within what there is.
func (m *Model) clamp() {
	n := len(m.pending())
	if m.mode == denials {
		n = len(m.denied)
	}
	m.chosen = max(0, min(m.chosen, n-1))
}

// look notes whether all of the view is, or was, on the screen.
func (m *Model) look() {
	if m.mode != viewing || m.small() {
		return
	}
	m.top = max(0, min(m.top, len(m.text())-m.body()))
	m.seen = m.seen || m.top+m.body() >= len(m.text())
}

func (m Model) small() bool { return m.width < minWidth || m.height < minHeight }

// body is how many lines there are between head and foot.
func (m Model) body() int { return max(1, m.height-5) }

func (m Model) key(k tea.KeyMsg) (tea.Model, tea.Cmd) {
	if k.String() == "ctrl+c" {
		return m, tea.Quit
	}
	if m.small() || m.busy {
		return m, nil
	}
	m.status = ""
	if m.mode == asking {
		return m.ask(k)
	}
	if m.mode == viewing {
		return m.decide(k)
	}
	if m.mode == allowing {
		m.mode = denials
		if k.String() != "y" {
			return m, nil
		}
		d := m.rule
		return m.run(func() tea.Msg {
			return decided{fmt.Sprintf("%s may be reached on port %d from bottle %s now", show.Line(d.Host), d.Port, show.Line(d.Bottle)), m.backend.Allow(m.ctx, d)}
		})
	}
	switch k.String() {
	case "q":
		return m, tea.Quit
	case "tab":
		m.mode, m.chosen = listing+denials-m.mode, 0
	case "up", "k":
		m.chosen--
	case "down", "j":
		m.chosen++
	case "enter":
		if list := m.pending(); m.mode == listing && m.chosen < len(list) {
			return m.open(list[m.chosen].bottle, list[m.chosen].ID)
		}
	case "r":
		if m.mode == denials && m.chosen < len(m.denied) {
			// The list moves while it is looked at: what is allowed is what is shown next.
			m.rule, m.mode = m.denied[m.chosen], allowing
			return m, nil
		}
	}
	m.clamp()
	return m, nil
}

// run runs a command; until it ends no key but ctrl+c does anything.
func (m Model) run(cmd tea.Cmd) (tea.Model, tea.Cmd) {
	m.busy, m.output = true, nil
	return m, cmd
}

func (m Model) open(bottle, id string) (tea.Model, tea.Cmd) {
	return m.run(func() tea.Msg {
		v, err := m.backend.Show(m.ctx, bottle, id)
		return viewed{bottle, v, nil, err}
	})
}

func (m Model) preview(c change.Change) (tea.Model, tea.Cmd) {
	bottle, id := m.bottle, m.view.Proposal.ID
	return m.run(func() tea.Msg {
		v, err := m.backend.Preview(m.ctx, bottle, id, c)
		return viewed{bottle, v, &c, err}
	})
}

// decide takes a key while a proposal is shown.
func (m Model) decide(k tea.KeyMsg) (tea.Model, tea.Cmd) {
	switch k.String() {
	case "esc", "q":
		m.mode = listing
		m.clamp()
		return m, nil
	case "up", "k":
		m.top--
	case "down", "j":
		m.top++
	case "pgup":
		m.top -= m.body()
	case "pgdown", " ":
		m.top += m.body()
	case "a":
		return m.approve(ledger.ForBottle)
	case "m":
		return m.approve(ledger.ForManifest)
	case "d":
		m.mode, m.reason = asking, nil
		return m, nil
	case "e":
		return m.run(m.backend.Edit(m.view))
	}
	m.look()
	return m, nil
}

func (m Model) approve(scope string) (tea.Model, tea.Cmd) {
	switch {
	case m.view.Conflict != "":
		m.status = "it cannot be applied: deny it, or edit it"
		return m, nil
	case !m.seen:
		m.status = "read on to the end first: there is more below"
		return m, nil
	}
	bottle, view := m.bottle, m.view
	a := ledger.Approval{By: m.backend.By(), Scope: scope, Edited: m.edited, TakeOver: view.Proposal.State == ledger.Applying}
	return m.run(func() tea.Msg {
		_, err := m.backend.Approve(m.ctx, bottle, view, a)
		text := fmt.Sprintf("%s of bottle %s is approved until the bottle ends", view.Proposal.ID, show.Line(bottle))
		if scope == ledger.ForManifest {
			text = fmt.Sprintf("%s of bottle %s is approved and in the manifest", view.Proposal.ID, show.Line(bottle))
		}
		return decided{text, err}
	})
}

// ask takes a key while the reason of a denial is being written.
func (m Model) ask(k tea.KeyMsg) (tea.Model, tea.Cmd) {
	switch k.Type {
	case tea.KeyEsc:
		m.mode = viewing
	case tea.KeyEnter:
		m.mode = viewing
		bottle, view, reason := m.bottle, m.view, string(m.reason)
		return m.run(func() tea.Msg {
			return decided{fmt.Sprintf("%s of bottle %s is denied", view.Proposal.ID, show.Line(bottle)), m.backend.Deny(m.ctx, bottle, view, reason)}
		})
	case tea.KeyBackspace:
		m.reason = m.reason[:max(0, len(m.reason)-1)]
	case tea.KeyRunes, tea.KeySpace:
		m.reason = append(slices.Clone(m.reason), k.Runes...)
	}
	return m, nil
}
