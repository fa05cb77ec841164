// Package show makes what an agent wrote fit for an operator's eyes: nothing that is shown
// moves the cursor, reorders what stands around it or cannot be seen, and names of hosts
// that are made to be taken for others are marked.
//
// It promises that what [Line], [Block] and [JSON] return holds no control character (but
// line feeds in a block), no bidirectional mark and nothing invisible. The marks on names
// are help for a reader and no proof: a name without one may still be a lie.
package show

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Line escapes a text that is shown in one line.
func Line(s string) string { return escape(s, false) }

// Block escapes a text of several lines. Tabs become four spaces.
func Block(s string) string { return escape(s, true) }

func escape(s string, block bool) string {
	var b strings.Builder
	marks := 0
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if unicode.Is(unicode.M, r) {
			marks++
		} else {
			marks = 0
		}
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case block && r == '\n':
			b.WriteByte('\n')
		case block && r == '\t':
			b.WriteString("    ")
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case visible(r) && marks <= maxMarks:
			b.WriteRune(r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
		i += n
	}
	return b.String()
}

// maxMarks is how many combining marks may follow one character: more of them reach into
// other lines.
const maxMarks = 4

// blank are characters that are shown as nothing, or as space that no reader expects,
// although Unicode does not class them as control, format or space.
var blank = map[rune]bool{
	0x034f: true, 0x115f: true, 0x1160: true, 0x17b4: true, 0x17b5: true, 0x2800: true, 0x3164: true, 0xffa0: true,
	0xfffc: true, 0x1d159: true,
}

// visible reports whether a character may be shown as it is. [escape] also counts
// combining marks.
func visible(r rune) bool {
	switch {
	case r >= ' ' && r < 0x7f:
		return true
	case r < 0xa1:
		return false
	case blank[r], r >= 0xfe00 && r <= 0xfe0f, r >= 0xe0000 && r <= 0xe0fff, r&0xfffe == 0xfffe:
		return false // variation selectors, tags, no characters
	}
	return unicode.IsGraphic(r) && !unicode.Is(unicode.Zs, r)
}

// JSON rewrites a JSON text so that it holds nothing but printable ASCII, tabs and line
// feeds: what is not becomes an escape, which every reader of JSON takes for the same.
func JSON(text []byte) []byte {
	var b strings.Builder
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case r < 0x7f:
			b.WriteRune(r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return []byte(b.String())
}
