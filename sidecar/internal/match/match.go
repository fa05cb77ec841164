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
}

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
	return a
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
