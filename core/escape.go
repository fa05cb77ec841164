package core

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Escape makes a line that others wrote safe to show on a terminal: what is not printable is
// written as Go and C write it ("\x1b", "\u202e"), but for tabs. It changes nothing else.
func Escape(s string) string { return escapeUpTo(s, -1, "\t") }

// escaped makes a text safe to show, and not too long; tabs are blanks.
func escaped(s string) string { return escapeUpTo(s, maxLastLine, " ") }

// escapeUpTo escapes the first most characters of a text, all if it is negative.
func escapeUpTo(s string, most int, tab string) string {
	var b strings.Builder
	n := 0
	for i, r := range s {
		if n++; most >= 0 && n > most {
			b.WriteString("…")
			break
		}
		switch {
		case r == '\t':
			b.WriteString(tab)
		case r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD"):
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[i]), 16))
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}
