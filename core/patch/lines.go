package patch

import (
	"bytes"
	"fmt"
	"sort"
)

// around is how many unchanged lines are shown before and after a change.
const around = 3

// pair is a run of lines that are in both texts: size lines from a in the old one and from b in
// the new one.
type pair struct{ a, b, size int }

// diff writes the hunks that make one text of another.
func diff(before, after []byte) ([]byte, Stat) {
	a, b := lines(before), lines(after)
	var out bytes.Buffer
	var stat Stat
	runs := match(a, b)
	// One run of nothing at the end, so that what precedes it is written.
	runs = append(runs, pair{len(a), len(b), 0})
	var body bytes.Buffer
	write := func(sign byte, line []byte) {
		body.WriteByte(sign)
		body.Write(line)
		if !bytes.HasSuffix(line, []byte("\n")) {
			body.WriteString("\n\\ No newline at end of file\n")
		}
	}
	startA, startB, countA, countB := 0, 0, 0, 0
	flush := func() {
		if body.Len() > 0 {
			fmt.Fprintf(&out, "@@ -%s +%s @@\n", extent(startA, countA), extent(startB, countB))
			_, _ = body.WriteTo(&out)
		}
		countA, countB = 0, 0
	}
	same := func(from int, n int) {
		for i := range n {
			write(' ', a[from+i])
		}
		countA, countB = countA+n, countB+n
	}
	atA, atB := 0, 0
	for i, r := range runs {
		if r.a > atA || r.b > atB {
			if body.Len() == 0 {
				// The end of the run before is its context.
				n := 0
				if i > 0 {
					n = min(around, runs[i-1].size)
				}
				startA, startB = atA-n, atB-n
				same(startA, n)
			}
			for ; atA < r.a; atA++ {
				write('-', a[atA])
				countA++
				stat.Removed++
			}
			for ; atB < r.b; atB++ {
				write('+', b[atB])
				countB++
				stat.Added++
			}
		}
		last := i == len(runs)-1 || i == len(runs)-2 && atEnd(runs[i+1], r)
		switch {
		case body.Len() == 0:
		case !last && r.size <= 2*around:
			same(r.a, r.size) // the next change is near
		default:
			same(r.a, min(around, r.size))
			flush()
		}
		atA, atB = r.a+r.size, r.b+r.size
	}
	flush()
	return out.Bytes(), stat
}

// atEnd reports whether nothing is between a run and the end.
func atEnd(end, r pair) bool { return r.a+r.size == end.a && r.b+r.size == end.b }

func extent(start, count int) string {
	if count > 0 {
		start++ // lines count from 1; of no lines, the one before is named
	}
	if count == 1 {
		return fmt.Sprint(start)
	}
	return fmt.Sprintf("%d,%d", start, count)
}

// lines cuts a text, each with its end.
func lines(text []byte) [][]byte {
	var list [][]byte
	for line := range bytes.Lines(text) {
		list = append(list, line)
	}
	return list
}

// match finds runs of lines that both texts have, in order. Lines that each has once are the
// anchors; what is between two of them is searched by the table of all pairs, as long as the
// effort that is left suffices.
func match(a, b [][]byte) []pair {
	ids := map[string]int32{}
	number := func(list [][]byte) []int32 {
		out := make([]int32, len(list))
		for i, line := range list {
			id, ok := ids[string(line)]
			if !ok {
				id = int32(len(ids)) //nolint:gosec // a text has fewer lines than bytes
				ids[string(line)] = id
			}
			out[i] = id
		}
		return out
	}
	m := &matcher{a: number(a), b: number(b), effort: maxEffort}
	m.between(0, len(a), 0, len(b), len(ids))
	return m.runs
}

// maxEffort bounds the pairs of lines that are compared beyond the anchors.
const maxEffort = 4 << 20

type matcher struct {
	a, b   []int32
	effort int
	runs   []pair
}

// add appends a match, which may continue the last run.
func (m *matcher) add(a, b, size int) {
	if size == 0 {
		return
	}
	if n := len(m.runs) - 1; n >= 0 && m.runs[n].a+m.runs[n].size == a && m.runs[n].b+m.runs[n].size == b {
		m.runs[n].size += size
		return
	}
	m.runs = append(m.runs, pair{a, b, size})
}

// between finds matches in two ranges.
func (m *matcher) between(a0, a1, b0, b1, ids int) {
	front := 0
	for a0+front < a1 && b0+front < b1 && m.a[a0+front] == m.b[b0+front] {
		front++
	}
	m.add(a0, b0, front)
	a0, b0 = a0+front, b0+front
	back := 0
	for a1-back > a0 && b1-back > b0 && m.a[a1-back-1] == m.b[b1-back-1] {
		back++
	}
	a1, b1 = a1-back, b1-back
	if a0 < a1 && b0 < b1 {
		var anchors []pair
		if ids > 0 {
			anchors = m.anchors(a0, a1, b0, b1, ids)
		}
		if len(anchors) == 0 {
			m.table(a0, a1, b0, b1)
		} else {
			for _, p := range append(anchors, pair{a1, b1, 0}) {
				// Without anchors of its own: the depth is one.
				m.between(a0, p.a, b0, p.b, 0)
				m.add(p.a, p.b, p.size)
				a0, b0 = p.a+p.size, p.b+p.size
			}
		}
	}
	m.add(a1, b1, back)
}

// anchors are lines that each range has exactly once, as many as can be had in order.
func (m *matcher) anchors(a0, a1, b0, b1, ids int) []pair {
	type seen struct{ countA, countB, atA int }
	table := make([]seen, ids)
	for i := a0; i < a1; i++ {
		s := &table[m.a[i]]
		s.countA, s.atA = s.countA+1, i
	}
	for j := b0; j < b1; j++ {
		table[m.b[j]].countB++
	}
	// The longest increasing sequence, by piles: each keeps its last card, and each card the
	// one that was on top of the pile before.
	type card struct{ a, b, before int }
	var cards []card
	var piles []int
	for j := b0; j < b1; j++ {
		s := table[m.b[j]]
		if s.countA != 1 || s.countB != 1 {
			continue
		}
		at := sort.Search(len(piles), func(i int) bool { return cards[piles[i]].a >= s.atA })
		c := card{s.atA, j, -1}
		if at > 0 {
			c.before = piles[at-1]
		}
		cards = append(cards, c)
		if at == len(piles) {
			piles = append(piles, len(cards)-1)
		} else {
			piles[at] = len(cards) - 1
		}
	}
	if len(piles) == 0 {
		return nil
	}
	list := make([]pair, len(piles))
	for i, c := len(piles)-1, piles[len(piles)-1]; i >= 0; i, c = i-1, cards[c].before {
		list[i] = pair{cards[c].a, cards[c].b, 1}
	}
	return list
}

// table finds the longest common sequence of two ranges, if the effort suffices.
func (m *matcher) table(a0, a1, b0, b1 int) {
	rows, cols := a1-a0, b1-b0
	cells := (rows + 1) * (cols + 1)
	if rows > maxEffort || cols > maxEffort || cells > m.effort {
		return
	}
	m.effort -= cells
	best := make([]int32, cells) // of what follows each pair
	at := func(i, j int) int { return i*(cols+1) + j }
	for i := rows - 1; i >= 0; i-- {
		for j := cols - 1; j >= 0; j-- {
			if m.a[a0+i] == m.b[b0+j] {
				best[at(i, j)] = best[at(i+1, j+1)] + 1
			} else {
				best[at(i, j)] = max(best[at(i+1, j)], best[at(i, j+1)])
			}
		}
	}
	for i, j := 0, 0; i < rows && j < cols; {
		switch {
		case m.a[a0+i] == m.b[b0+j]:
			m.add(a0+i, b0+j, 1)
			i, j = i+1, j+1
		case best[at(i+1, j)] >= best[at(i, j+1)]:
			i++
		default:
			j++
		}
	}
}
