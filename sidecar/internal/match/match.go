// Package match finds many strings in a stream at once (Aho and Corasick), one step a
// byte, with no memory of the stream but a number.
package match

// State is where a search stands. The zero value is the beginning.
type State int32

// Automaton finds needles. It is immutable.
type Automaton struct {
	classes [256]uint8 // bytes that no needle tells apart share a class
	width   int32
	delta   []State
	depth   []int32
	pending []int32
	found   [][]int32 // needles that end at a state, longest first

	// For Next, if no needle is shorter than minSkip: how far after the beginning of a
	// needle a pair of bytes is at least away from the end of its first `head` bytes, by
	// pair. Where the table is nil every byte is looked at.
	head  int
	shift *[1 << 16]uint8
}

// minSkip is the shortest needle with which skipping pays, in bytes.
const minSkip = 6

// New makes an automaton for needles, none of which may be empty. With fold, letters of
// ASCII match in either case.
func New(needles [][]byte, fold bool) *Automaton {
	a := &Automaton{width: 1} // class 0: in no needle
	for _, n := range needles {
		for _, c := range n {
			if fold {
				c = lower(c)
			}
			if a.classes[c] == 0 {
				// 255 classes and the one for the rest: more than the values of a byte if
				// every value occurs, when class 0 is never used and may be shared.
				a.classes[c] = uint8(a.width)
				if a.width < 256 {
					a.width++
				}
			}
		}
	}
	if a.width == 256 {
		for i := range a.classes {
			a.classes[i] = uint8(i)
		}
	}
	if fold {
		for c := byte('A'); c <= 'Z'; c++ {
			a.classes[c] = a.classes[lower(c)]
		}
	}
	a.grow()
	for i, n := range needles {
		a.insert(n, int32(i))
	}
	a.link()
	if !fold {
		a.makeShift(needles)
	}
	return a
}

func (a *Automaton) makeShift(needles [][]byte) {
	for _, n := range needles {
		if a.head == 0 || len(n) < a.head {
			a.head = len(n)
		}
	}
	if a.head = min(a.head, 255); a.head < minSkip {
		return
	}
	a.shift = new([1 << 16]uint8)
	for i := range a.shift {
		a.shift[i] = uint8(a.head - 1)
	}
	for _, n := range needles {
		for i := range a.head - 1 {
			pair, away := uint16(n[i])<<8|uint16(n[i+1]), uint8(a.head-2-i)
			a.shift[pair] = min(a.shift[pair], away)
		}
	}
}

func (a *Automaton) grow() State {
	a.delta = append(a.delta, make([]State, a.width)...)
	a.depth = append(a.depth, 0)
	a.found = append(a.found, nil)
	return State(len(a.depth) - 1)
}

func (a *Automaton) insert(needle []byte, id int32) {
	var s State
	for _, c := range needle {
		at := int32(s)*a.width + int32(a.classes[c])
		if a.delta[at] == 0 {
			next := a.grow()
			a.depth[next] = a.depth[s] + 1
			a.delta[at] = next
		}
		s = a.delta[at]
	}
	a.found[s] = append(a.found[s], id)
}

// link completes the transitions: where a needle does not go on, the longest of its
// ends that begins another does.
func (a *Automaton) link() {
	fail := make([]State, len(a.depth))
	a.pending = make([]int32, len(a.depth))
	var queue []State
	for c := range a.width {
		if s := a.delta[c]; s != 0 {
			queue = append(queue, s)
		}
	}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		// Where a needle ends, only what may begin another is still open.
		if a.pending[s] = a.depth[s]; len(a.found[s]) > 0 {
			a.pending[s] = a.pending[fail[s]]
		}
		a.found[s] = append(a.found[s], a.found[fail[s]]...)
		for c := range a.width {
			at, other := int32(s)*a.width+c, a.delta[int32(fail[s])*a.width+c]
			if next := a.delta[at]; next != 0 {
				fail[next] = other
				queue = append(queue, next)
			} else {
				a.delta[at] = other
			}
		}
	}
}

// Step takes one byte.
func (a *Automaton) Step(s State, c byte) State {
	return a.delta[int32(s)*a.width+int32(a.classes[c])]
}

// Next takes bytes of a text up to one where needles end, or all of it. It returns how
// many it took. The state is the one that Step leads to byte by byte; where no needle can
// begin, most bytes are not looked at (Wu and Manber).
func (a *Automaton) Next(s State, text []byte) (int, State) {
	i := 0
	for i < len(text) {
		if s == 0 && a.shift != nil {
			// A needle that begins at i has its first bytes up to i+head here.
			for i+a.head <= len(text) {
				d := a.shift[uint16(text[i+a.head-2])<<8|uint16(text[i+a.head-1])]
				if d == 0 {
					break
				}
				i += int(d)
			}
			if i >= len(text) {
				break
			}
		}
		s = a.delta[int32(s)*a.width+int32(a.classes[text[i]])]
		i++
		if len(a.found[s]) > 0 {
			return i, s
		}
	}
	return i, s
}

// Found returns the numbers of the needles that end here, the longest first.
func (a *Automaton) Found(s State) []int32 { return a.found[s] }

// Pending returns how many of the last bytes are the beginning of a needle that may
// still come.
func (a *Automaton) Pending(s State) int { return int(a.pending[s]) }

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}
