package tui

import (
	"fmt"
	"strings"

	"github.com/bottle-run/bottle/sidecar/supervise/effect"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
	"github.com/bottle-run/bottle/sidecar/supervise/show"
)

// View draws the screen: two lines of head, the body, three lines of foot.
func (m Model) View() string {
	if m.width == 0 {
		return ""
	}
	if m.small() {
		return fmt.Sprintf("The terminal has %d by %d cells.\nbottle supervise needs %d by %d.\nMake it larger, or use bottle proposals.", m.width, m.height, minWidth, minHeight)
	}
	var head, keys string
	var body []string
	switch m.mode {
	case listing:
		head, body, keys = m.listing()
	case denials:
		head, body, keys = m.denials()
	case allowing:
		head, body, keys = m.allowing()
	default:
		head = fmt.Sprintf("%s of bottle %s, agent %s", m.view.Proposal.ID, show.Line(m.bottle), show.Line(m.bottles[m.bottle].Agent))
		text := m.text()
		body = text[min(m.top, len(text)):min(m.top+m.body(), len(text))]
		keys = "a approve until the bottle ends  m and in the manifest  d deny  e edit  esc back"
		if more := len(text) - m.top - m.body(); more > 0 {
			head += fmt.Sprintf(" (%d more lines below: space)", more)
		}
	}
	if m.busy && len(m.output) > 0 {
		body = m.output[max(0, len(m.output)-m.body()):]
	}
	status := m.status
	if m.engine != nil {
		head = "THE ENGINE DOES NOT ANSWER, it is asked again: " + show.Line(m.engine.Error())
	}
	switch {
	case m.mode == asking:
		status, keys = "why not? "+show.Line(string(m.reason))+"_", "enter deny  esc back"
	case m.busy:
		status = "…"
	}
	lines := append([]string{head, rule(m.width)}, body...)
	for len(lines) < m.height-3 {
		lines = append(lines, "")
	}
	lines = append(lines[:m.height-3], rule(m.width), status, keys)
	for i, l := range lines {
		lines[i] = cut(l, m.width)
	}
	return strings.Join(lines, "\n")
}

func rule(width int) string { return strings.Repeat("─", width) }

// cells is how wide a character is at most: terminals do not agree about those that are
// not of ASCII, and what would reach beyond the edge is lost.
func cells(r rune) int {
	if r < 0x80 || r == '─' || r == '…' || r == '│' {
		return 1
	}
	return 2
}

// fit is how many characters fit into a width.
func fit(r []rune, width int) int {
	for i, c := range r {
		if width -= cells(c); width < 0 {
			return i
		}
	}
	return len(r)
}

// cut shortens a line to a width.
func cut(s string, width int) string {
	if r := []rune(s); fit(r, width) < len(r) {
		return string(r[:fit(r, width-1)]) + "…"
	}
	return s
}

func (m Model) listing() (head string, body []string, keys string) {
	list := m.pending()
	head = fmt.Sprintf("bottle supervise: %d waiting in %d bottles, %d requests denied", len(list), len(m.bottles), len(m.denied))
	keys = "enter look  tab denied requests  q quit"
	switch {
	case len(m.bottles) == 0:
		return head, []string{"", "  No bottle with supervise runs. Launch one whose manifest says supervise: true."}, keys
	case len(list) == 0:
		return head, []string{"", "  Nothing waits for an answer."}, keys
	}
	from := window(m.chosen, m.body())
	for i, e := range list[from:min(from+m.body(), len(list))] {
		made := e.Made
		if len(made) >= 16 {
			made = made[11:16]
		}
		line := fmt.Sprintf("%s %-16s %-5s %-12s %s", made, cut(show.Line(e.bottle), 16), e.ID, e.Kind, e.Title)
		if e.State == ledger.Applying {
			line += " (being applied by " + show.Line(e.By) + ")"
		}
		body = append(body, mark(from+i == m.chosen)+line)
	}
	return head, body, keys
}

func (m Model) denials() (head string, body []string, keys string) {
	head = fmt.Sprintf("denied requests, newest first: %d", len(m.denied))
	keys = "r allow the host on this port until the bottle ends  tab proposals  q quit"
	if len(m.denied) == 0 {
		return head, []string{"", "  None so far."}, keys
	}
	from := window(m.chosen, m.body())
	for i, d := range m.denied[from:min(from+m.body(), len(m.denied))] {
		body = append(body, mark(from+i == m.chosen)+fmt.Sprintf("%s %-16s %s %s:%d%s  %s", d.Time.UTC().Format("15:04:05"), cut(show.Line(d.Bottle), 16),
			show.Line(d.Method), show.NewHost(d.Host, nil).Text, d.Port, show.Line(d.Path), show.Line(d.Reason)))
	}
	return head, body, keys
}

func (m Model) allowing() (head string, body []string, keys string) {
	h := show.NewHost(m.rule.Host, nil)
	head = fmt.Sprintf("allow a host for bottle %s, until it ends?", show.Line(m.rule.Bottle))
	body = append(body, "")
	body = append(body, wrap("  ", fmt.Sprintf("requests of every method and path to %s on port %d become possible", h.Text, m.rule.Port), m.width)...)
	for _, w := range h.Warnings {
		body = append(body, wrap("    ! ", w, m.width)...)
	}
	return head, body, "y allow  any other key back"
}

// window is the first entry to show so that the chosen one is on the screen.
func window(chosen, lines int) int { return max(0, chosen-lines+1) }

func mark(chosen bool) string {
	if chosen {
		return "> "
	}
	return "  "
}

// text is all that is shown of a proposal, wrapped.
func (m Model) text() []string {
	v := m.view
	var lines []string
	add := func(indent, text string) {
		for l := range strings.SplitSeq(text, "\n") {
			lines = append(lines, wrap(indent, l, m.width)...)
		}
	}
	add("", "The agent asks for:")
	add("  │ ", v.Title)
	add("", "Its reason:")
	add("  │ ", v.Reason)
	if m.edited != nil {
		add("", "As you have edited it:")
	}
	if v.Conflict != "" {
		add("", "")
		add("", "It cannot be applied to the policy as it is now: "+v.Conflict)
		return lines
	}
	section := func(title string, items []effect.Item) {
		if len(items) == 0 {
			return
		}
		add("", "")
		add("", title)
		for _, i := range items {
			add("  * ", i.Text)
			for _, w := range i.Warnings {
				add("    ! ", w)
			}
		}
	}
	section("What becomes possible:", v.Effect.Permits)
	if len(v.Effect.Permits) == 0 {
		add("", "")
		add("", "Nothing becomes possible that is not already.")
	}
	section("What is no longer possible:", v.Effect.Revokes)
	add("", "")
	add("  │ ", strings.TrimSuffix(v.Diff, "\n"))
	return lines
}

// wrap breaks a line into lines of at most a width: nothing is cut off. Each begins with the
// indent, so that what an agent wrote never stands where the interface speaks.
func wrap(indent, text string, width int) []string {
	room := width - fit([]rune(indent), width)
	r := []rune(text)
	var lines []string
	for {
		n := fit(r, room)
		if n == len(r) {
			return append(lines, indent+string(r))
		}
		at := n
		for i := n; i > n/2; i-- {
			if r[i-1] == ' ' {
				at = i
				break
			}
		}
		lines = append(lines, indent+string(r[:at]))
		r = r[at:]
		if own, ok := strings.CutSuffix(indent, "* "); ok {
			indent = own + "  "
		}
	}
}
