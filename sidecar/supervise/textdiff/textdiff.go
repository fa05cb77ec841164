// Package textdiff writes the difference of two texts as diff -u does.
//
// The difference is not always the shortest: for texts that differ in very many lines it
// falls back to all the old and then all the new ones, so that its cost is bounded.
package textdiff

import (
	"fmt"
	"slices"
	"strings"
)

// context is how many lines are shown around a change.
const context = 3

// maxCells bounds the table of the comparison: lines that differ, multiplied.
const maxCells = 4 << 20

type edit struct {
	op   byte // ' ', '-', '+'
	line string
}

// Unified returns the difference, empty if there is none. The names stand in its head.
func Unified(oldName, newName, before, after string) string {
	if before == after {
		return ""
	}
	edits := compare(lines(before), lines(after))
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", oldName, newName)
	oldLine, newLine := 1, 1
	for start := 0; start < len(edits); {
		if edits[start].op == ' ' {
			start, oldLine, newLine = start+1, oldLine+1, newLine+1
			continue
		}
		end, quiet := start, 0
		for i := start; i < len(edits) && quiet <= 2*context; i++ {
			if edits[i].op == ' ' {
				quiet++
			} else {
				end, quiet = i+1, 0
			}
		}
		from, to := max(start-context, 0), min(end+context, len(edits))
		// What stands before the first change of a hunk is never of the hunk before it.
		oldStart, newStart := oldLine-(start-from), newLine-(start-from)
		oldCount, newCount := 0, 0
		for _, e := range edits[from:to] {
			if e.op != '+' {
				oldCount++
			}
			if e.op != '-' {
				newCount++
			}
		}
		fmt.Fprintf(&b, "@@ -%s +%s @@\n", span(oldStart, oldCount), span(newStart, newCount))
		for i, e := range edits[from:to] {
			text, ended := strings.CutSuffix(e.line, "\n")
			b.WriteString(string(e.op) + text + "\n")
			if !ended {
				b.WriteString("\\ No newline at end of file\n")
			}
			if from+i >= start {
				if e.op != '+' {
					oldLine++
				}
				if e.op != '-' {
					newLine++
				}
			}
		}
		start = to
	}
	return b.String()
}

func span(start, count int) string {
	if count == 0 {
		start-- // the line before, as diff has it
	}
	if count == 1 {
		return fmt.Sprint(start)
	}
	return fmt.Sprintf("%d,%d", start, count)
}

func lines(s string) []string { return slices.Collect(strings.Lines(s)) }

func compare(a, b []string) []edit {
	var head, tail []edit
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		head = append(head, edit{' ', a[0]})
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		tail = append(tail, edit{' ', a[len(a)-1]})
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	slices.Reverse(tail)
	middle := head
	if len(a)*len(b) > maxCells {
		for _, l := range a {
			middle = append(middle, edit{'-', l})
		}
		for _, l := range b {
			middle = append(middle, edit{'+', l})
		}
		return append(middle, tail...)
	}
	// common[i][j] is the length of the longest common subsequence of a[i:] and b[j:].
	common := make([][]int32, len(a)+1)
	for i := range common {
		common[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			middle = append(middle, edit{' ', a[i]})
			i, j = i+1, j+1
		case i < len(a) && (j == len(b) || common[i+1][j] >= common[i][j+1]):
			middle = append(middle, edit{'-', a[i]})
			i++
		default:
			middle = append(middle, edit{'+', b[j]})
			j++
		}
	}
	return append(middle, tail...)
}
