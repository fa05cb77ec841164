// Command picture draws a terminal's screen, as text on its standard input, as an SVG on its standard
// output. What begins with an exclamation mark after its indent is drawn as a warning.
//
//	go run ./hack/picture <cmd/bottle/testdata/screens/proposal.txt >docs/supervise.svg
package main

import (
	"bufio"
	"fmt"
	"html"
	"os"
	"strings"
)

// The cells of the font, in pixels.
const (
	cellWidth  = 8.4
	cellHeight = 18
	margin     = 14
	columns    = 80
)

func main() {
	var lines []string
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		lines = append(lines, strings.TrimRight(in.Text(), " "))
	}
	out := bufio.NewWriter(os.Stdout)
	width, height := 2*margin+columns*cellWidth, 2*margin+len(lines)*cellHeight
	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%d" viewBox="0 0 %.0f %d">`+"\n", width, height, width, height)
	fmt.Fprintf(out, `<rect width="100%%" height="100%%" rx="8" fill="#1d1f27"/>`+"\n")
	fmt.Fprintf(out, `<g font-family="ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace" font-size="14" fill="#d7dae0" xml:space="preserve">`+"\n")
	for i, line := range lines {
		if line == "" {
			continue
		}
		fill := ""
		switch bare := strings.TrimLeft(line, " │"); {
		case strings.HasPrefix(bare, "! "):
			fill = ` fill="#f0a45d"`
		case strings.HasPrefix(line, "─"):
			fill = ` fill="#5a6070"`
		case strings.HasPrefix(line, "  │"):
			fill = ` fill="#9fb4d8"`
		}
		fmt.Fprintf(out, `<text x="%d" y="%d" textLength="%.1f"%s>%s</text>`+"\n", margin, margin+(i+1)*cellHeight-5, float64(len([]rune(line)))*cellWidth, fill, html.EscapeString(line))
	}
	fmt.Fprintln(out, "</g>\n</svg>")
	if err := out.Flush(); err != nil {
		fmt.Fprintln(os.Stderr, "picture:", err)
		os.Exit(1)
	}
}
