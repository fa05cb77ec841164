package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

func TestLinesOfSeveralAreWholeAndSayWhoseTheyAre(t *testing.T) {
	var out bytes.Buffer
	shared := &sharedWriter{out: &out}
	var writing sync.WaitGroup
	for i := range 4 {
		writing.Go(func() {
			p := &prefixed{shared: shared, prefix: fmt.Sprintf("b%d | ", i)}
			for n := range 50 {
				// In pieces, as programs write.
				for _, piece := range []string{"li", fmt.Sprintf("ne %d", n), "\n"} {
					if k, err := p.Write([]byte(piece)); k != len(piece) || err != nil {
						t.Errorf("%d, %v", k, err)
					}
				}
			}
			_, _ = p.Write([]byte("no end"))
			p.flush()
			p.flush()
		})
	}
	writing.Wait()
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 4*51 {
		t.Fatalf("%d lines", len(lines))
	}
	for i := range 4 {
		var mine []string
		for _, line := range lines {
			if rest, ok := strings.CutPrefix(line, fmt.Sprintf("b%d | ", i)); ok {
				mine = append(mine, rest)
			}
		}
		if len(mine) != 51 || mine[0] != "line 0" || mine[49] != "line 49" || mine[50] != "no end" {
			t.Errorf("b%d: %q", i, mine)
		}
	}
}

func TestALineWithoutAnEndIsCut(t *testing.T) {
	var out bytes.Buffer
	p := &prefixed{shared: &sharedWriter{out: &out}, prefix: "| "}
	long := bytes.Repeat([]byte("x"), maxPrefixed)
	for range 2 {
		if n, err := p.Write(append(slices.Clone(long), 'y')); n != maxPrefixed+1 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	p.flush()
	for _, line := range strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n") {
		if !strings.HasPrefix(line, "| ") || len(line) > maxPrefixed+2 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
	if got := strings.Count(out.String(), "x"); got != 2*maxPrefixed {
		t.Errorf("%d characters arrive", got)
	}
}
