package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// Position is a place in a file. Line and Column count from 1; 0 means unknown.
type Position struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

// Error is one thing that is wrong with a file.
type Error struct {
	File string
	Position
	Msg string
}

// Error gives "file:line:column: what is wrong".
func (e *Error) Error() string {
	switch {
	case e.Line == 0:
		return fmt.Sprintf("%s: %s", e.File, e.Msg)
	case e.Column == 0:
		return fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Msg)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Msg)
}

// errorList collects the errors of one file.
type errorList struct {
	file string
	errs []*Error
}

// add records an error. A second one at the same place is a consequence of the
// first and left out.
func (l *errorList) add(pos Position, format string, args ...any) {
	for _, e := range l.errs {
		if e.Position == pos && pos.Line != 0 {
			return
		}
	}
	l.errs = append(l.errs, &Error{File: l.file, Position: pos, Msg: fmt.Sprintf(format, args...)})
}

// err joins what was collected in the file's order, or is nil.
func (l *errorList) err() error {
	if len(l.errs) == 0 {
		return nil
	}
	slices.SortStableFunc(l.errs, func(a, b *Error) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Column - b.Column
	})
	var joined *multierror.Error
	for _, e := range l.errs {
		joined = multierror.Append(joined, e)
	}
	joined.ErrorFormat = func(errs []error) string {
		lines := make([]string, len(errs))
		for i, e := range errs {
			lines[i] = e.Error()
		}
		return strings.Join(lines, "\n")
	}
	return joined
}

// Nearest returns the word of valid that word was most likely meant to be, or ""
// if none comes close.
func Nearest(word string, valid []string) string {
	best, bestDistance := "", len(word)/2+1
	norm := normalise(word)
	for _, v := range valid {
		n := normalise(v)
		d := distance(norm, n)
		if len(norm) >= 3 && len(n) >= 3 && (abbreviates(norm, n) || abbreviates(n, norm)) {
			d = min(d, 1)
		}
		if d < bestDistance {
			best, bestDistance = v, d
		}
	}
	return best
}

func normalise(s string) string {
	return strings.ToLower(strings.NewReplacer("-", "_", " ", "_").Replace(s))
}

// abbreviates reports that short is long with letters left out ("cmd" and
// "command") or a part of it ("args" and "build_args").
func abbreviates(short, long string) bool {
	if strings.Contains(long, short) {
		return true
	}
	if short[0] != long[0] {
		return false
	}
	for _, c := range short {
		i := strings.IndexRune(long, c)
		if i < 0 {
			return false
		}
		long = long[i+1:]
	}
	return true
}

// distance is the optimal string alignment distance: insertions, deletions,
// substitutions and swaps of neighbours.
func distance(a, b string) int {
	x, y := []rune(a), []rune(b)
	prev2, prev, cur := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(x); i++ {
		cur[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(y)]
}

// choice words a list of valid values for an error: the nearest if one comes
// close to got, otherwise all of them.
func choice(got string, valid []string) string {
	if n := Nearest(got, valid); n != "" {
		return fmt.Sprintf("did you mean %q?", n)
	}
	if len(valid) == 0 {
		return "there are none"
	}
	sorted := slices.Sorted(slices.Values(valid))
	return "valid are " + strings.Join(sorted, ", ")
}
