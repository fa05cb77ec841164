package match

import (
	"bytes"
	"maps"
	"testing"
)

func find(a *Automaton, text []byte) map[int32]int {
	got := map[int32]int{}
	var s State
	for _, c := range text {
		s = a.Step(s, c)
		for _, id := range a.Found(s) {
			got[id]++
		}
	}
	return got
}

func TestAutomaton(t *testing.T) {
	needles := [][]byte{[]byte("he"), []byte("she"), []byte("his"), []byte("hers"), []byte("HERS")}
	a := New(needles, false)
	got := find(a, []byte("ushers and HERS"))
	if got[0] != 1 || got[1] != 1 || got[2] != 0 || got[3] != 1 || got[4] != 1 {
		t.Errorf("found %v", got)
	}
	if got := find(New(needles[:4], true), []byte("uSHeRs")); got[0] != 1 || got[1] != 1 || got[3] != 1 {
		t.Errorf("folded: found %v", got)
	}
	if got := find(New(nil, false), []byte("anything")); len(got) != 0 {
		t.Errorf("without needles: found %v", got)
	}
	s := State(0)
	for _, c := range []byte("xxher") {
		s = a.Step(s, c)
	}
	if a.Pending(s) != 3 {
		t.Errorf("pending is %d", a.Pending(s))
	}
	if s = a.Step(s, 's'); a.Pending(s) != 1 { // of "she"
		t.Errorf("pending is %d after the end of a needle", a.Pending(s))
	}
}

func TestEveryByteValue(t *testing.T) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	a := New([][]byte{all}, false)
	if got := find(a, append([]byte("\x00\x01"), all...)); got[0] != 1 {
		t.Errorf("found %v", got)
	}
	if got := find(a, bytes.Repeat([]byte{0}, 300)); len(got) != 0 {
		t.Errorf("found %v in zeros", got)
	}
}

func FuzzAutomaton(f *testing.F) {
	f.Add([]byte("abc"), []byte("bc"), []byte("xabcx"))
	f.Add([]byte("abcabcabd"), []byte("cabcabda"), []byte("xabcabcabcabdabcabcabdab"))
	f.Add([]byte("aaaaaaaa"), []byte("aaaaaaab"), []byte("aaaaaaaaabaaaaaaabbbbbbbbbbbbbbbbbbbbbbbb"))
	f.Fuzz(func(t *testing.T, n1, n2, text []byte) {
		if len(n1) == 0 || len(n2) == 0 {
			return
		}
		a := New([][]byte{n1, n2}, false)
		got := find(a, text)
		// Next ends where Step does, and stops at every needle, wherever the text is cut.
		for cut := range len(text) + 1 {
			var s, stepped State
			skipped := map[int32]int{}
			for _, part := range [][]byte{text[:cut], text[cut:]} {
				for len(part) > 0 {
					n, next := a.Next(s, part)
					for _, c := range part[:n] {
						stepped = a.Step(stepped, c)
					}
					if part, s = part[n:], next; s != stepped {
						t.Fatalf("%q and %q in %q, cut at %d: state %d, byte by byte %d", n1, n2, text, cut, s, stepped)
					}
					for _, id := range a.Found(s) {
						skipped[id]++
					}
				}
			}
			if !maps.Equal(skipped, got) {
				t.Fatalf("%q and %q in %q, cut at %d: found %v, byte by byte %v", n1, n2, text, cut, skipped, got)
			}
		}
		for i, n := range [][]byte{n1, n2} {
			want := 0
			for j := range text {
				if bytes.HasPrefix(text[j:], n) {
					want++
				}
			}
			if got[int32(i)] != want {
				t.Fatalf("%q in %q: %d, want %d", n, text, got[int32(i)], want)
			}
		}
	})
}
