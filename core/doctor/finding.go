package doctor

import (
	"slices"
	"strings"
)

// Severity says how bad something is.
type Severity string

// The severities, from the least.
const (
	// Note is a fact that explains something.
	Note Severity = "note"
	// Warning is something that works with less speed, comfort or protection than
	// it could.
	Warning Severity = "warning"
	// Problem is something that keeps bottle from working, or its walls from holding.
	Problem Severity = "problem"
)

var severities = []Severity{Note, Warning, Problem}

// Finding is one thing that was found.
type Finding struct {
	Severity Severity `json:"severity"`
	// Check names what was looked at, and stays the same between versions.
	Check string `json:"check"`
	// Engine is the engine it is about; empty for the host.
	Engine string `json:"engine,omitempty"`
	Text   string `json:"text"`
	// Fix says what to do; empty for a note that needs nothing.
	Fix string `json:"fix,omitempty"`
	// Source is where more can be read.
	Source string `json:"source,omitempty"`
}

// Worst is the worst severity among findings, or empty.
func Worst(findings []Finding) Severity {
	worst := Severity("")
	for _, f := range findings {
		if slices.Index(severities, f.Severity) > slices.Index(severities, worst) {
			worst = f.Severity
		}
	}
	return worst
}

// sortFindings puts the worst first, then by engine and check.
func sortFindings(list []Finding) {
	slices.SortStableFunc(list, func(a, b Finding) int {
		if d := slices.Index(severities, b.Severity) - slices.Index(severities, a.Severity); d != 0 {
			return d
		}
		return strings.Compare(a.Engine+"\x00"+a.Check, b.Engine+"\x00"+b.Check)
	})
}
