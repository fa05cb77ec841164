package scan

import (
	"github.com/bottle-run/bottle/sidecar/internal/match"
)

const (
	// overlap is how much of what was read before is looked at again with what is read
	// next, in bytes: no rule's match is to be missed because it was cut, as long as it
	// is no longer.
	overlap = 5 << 10
	// before and after are how far around its keyword a rule looks, in bytes.
	before = 512
	after  = 4 << 10
	// maxFeed is how much is scanned at once, in bytes.
	maxFeed = 32 << 10
	// holdFrom is how many bytes of the beginning of a known value have to stand at
	// the end of a read for them to be held back.
	holdFrom = 6
)

// Stream scans one body on its way to one host.
type Stream struct {
	s       *Scanner
	host    string
	norm    normaliser
	value   match.State
	hex     match.State
	keyword match.State
	window  []byte             // the last overlap bytes, and what is being fed
	total   int                // bytes fed so far
	seen    map[int]keywordsAt // by rule
}

// keywordsAt is where the first and the last keyword of a rule ended.
type keywordsAt struct{ first, last int }

// around returns the part of a text, which begins at an offset, that a rule looks at.
func (k keywordsAt) around(text []byte, offset int) []byte {
	return text[max(0, k.first-before-offset):min(len(text), k.last+after-offset)]
}

// Stream begins a body.
func (s *Scanner) Stream(host string) *Stream { return &Stream{s: s, host: host} }

// Feed scans the next bytes. It returns how many bytes, at the end of all that was fed,
// should not be forwarded before more is known: they may be the beginning of a known
// value. At the end of the body nothing needs to be held back.
func (st *Stream) Feed(p []byte) (hold int, f *Finding) {
	for len(p) > 0 {
		n := min(len(p), maxFeed)
		if f = st.values(p[:n]); f == nil && st.s.rules != nil {
			f = st.rules(p[:n])
		}
		if f != nil {
			return 0, f
		}
		p = p[n:]
	}
	depth := st.s.values.Pending(st.value)
	if d := st.s.hexes.Pending(st.hex) / 2; d > depth {
		depth = d * 2
	}
	if depth < holdFrom {
		return 0, nil
	}
	if st.norm.escaped > 0 {
		depth *= 3 // percent escapes are three bytes for one
	}
	return depth, nil
}

// values searches for known values.
func (st *Stream) values(p []byte) *Finding {
	if len(st.s.known) == 0 {
		return nil
	}
	for _, raw := range p {
		out, n := [3]byte{raw}, 1
		if raw == '%' || raw == '\r' || raw == '\n' || st.norm.n > 0 || st.norm.escaped > 0 {
			out, n = st.norm.step(raw)
		}
		for _, c := range out[:n] {
			st.value = st.s.values.Step(st.value, c)
			for _, id := range st.s.values.Found(st.value) {
				if k := &st.s.known[st.s.owner[id]]; !k.may(st.host) {
					return k.finding(st.host)
				}
			}
			st.hex = st.s.hexes.Step(st.hex, c)
			for _, id := range st.s.hexes.Found(st.hex) {
				if k := &st.s.known[st.s.hexOwner[id]]; !k.may(st.host) {
					return k.finding(st.host)
				}
			}
		}
	}
	return nil
}

// rules searches the window for what rules find.
func (st *Stream) rules(p []byte) *Finding {
	rs := st.s.rules
	for i, c := range p {
		st.keyword = rs.keywords.Step(st.keyword, c)
		for _, needle := range rs.keywords.Found(st.keyword) {
			if st.seen == nil {
				st.seen = map[int]keywordsAt{}
			}
			for _, rule := range rs.byKeyword[needle] {
				k, ok := st.seen[rule]
				if k.last = st.total + i; !ok {
					k.first = k.last
				}
				st.seen[rule] = k
			}
		}
	}
	st.window = append(st.window, p...)
	st.total += len(p)
	for rule, k := range st.seen {
		if f := st.judge(rule, k.around(st.window, st.total-len(st.window))); f != nil {
			return f
		}
		if k.last+after <= st.total {
			delete(st.seen, rule)
		} else {
			k.first = max(k.first, st.total-after)
			st.seen[rule] = k
		}
	}
	if f := st.decoded(st.window, 0); f != nil {
		return f
	}
	if excess := len(st.window) - overlap; excess > 0 {
		st.window = st.window[:copy(st.window, st.window[excess:])]
	}
	return nil
}

// whole searches a text that was decoded out of the window.
func (st *Stream) whole(text []byte, depth int) *Finding {
	rs := st.s.rules
	for rule, k := range rs.seen(text) {
		if f := st.judge(rule, k.around(text, 0)); f != nil {
			return f
		}
	}
	return st.decoded(text, depth)
}

// judge applies one rule.
func (st *Stream) judge(rule int, text []byte) *Finding {
	r := st.s.rules.rules[rule]
	if st.s.exempted(st.host, r.id) {
		return nil
	}
	for _, span := range r.find(st.s.rules, text) {
		if !st.expected(text[span[0]:span[1]]) {
			return &Finding{Rule: "secret:" + r.id, Reason: "the request holds what looks like a secret: " + r.description}
		}
	}
	return nil
}

// normaliser undoes percent encoding, byte by byte, and drops line breaks, which
// encoders put into base64.
type normaliser struct {
	pending [2]byte // of an escape that has begun
	n       int
	escaped int // how many of the last bytes to look back at held an escape
}

func (n *normaliser) step(c byte) (out [3]byte, count int) {
	switch {
	case n.n == 0 && c == '%':
		n.pending[0], n.n = c, 1
		return out, 0
	case n.n == 1 && unhex(c) < 16:
		n.pending[1], n.n = c, 2
		return out, 0
	case n.n == 2 && unhex(c) < 16:
		n.n, n.escaped = 0, 256
		return [3]byte{unhex(n.pending[1])<<4 | unhex(c)}, 1
	case n.n > 0:
		// No escape after all.
		count = copy(out[:], n.pending[:n.n])
		n.n = 0
		next, more := n.step(c)
		return out, count + copy(out[count:], next[:more])
	}
	if n.escaped > 0 {
		n.escaped--
	}
	if c == '\r' || c == '\n' {
		return out, 0
	}
	return [3]byte{c}, 1
}

func (n *normaliser) all(p []byte) []byte {
	var b []byte
	for _, c := range p {
		out, count := n.step(c)
		b = append(b, out[:count]...)
	}
	return append(b, n.pending[:n.n]...)
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 0xff
}
