package policy

import (
	"errors"
	"fmt"
	"strings"
)

// Glob is a pattern of paths: * stands for any characters within a segment, at least
// one if it is the whole segment; ** as a whole segment stands for any number of
// segments, none too. It is matched against decoded paths.
type Glob struct {
	text string
	segs []string
}

// ParseGlob reads a pattern. Percent escapes in it are decoded.
func ParseGlob(s string) (Glob, error) {
	switch {
	case !strings.HasPrefix(s, "/"):
		return Glob{}, fmt.Errorf("path pattern %q does not begin with a slash", s)
	case strings.ContainsAny(s, "?#\\"):
		return Glob{}, fmt.Errorf("path pattern %q holds a character that no canonical path has: patterns match paths, without the query", s)
	}
	segs := strings.Split(s[1:], "/")
	for i, seg := range segs {
		if seg == "**" {
			continue
		}
		if strings.Contains(seg, "**") {
			return Glob{}, fmt.Errorf("path pattern %q: ** has to be a whole segment", s)
		}
		if err := checkGlobSegment(seg); err != nil {
			return Glob{}, fmt.Errorf("path pattern %q: %w", s, err)
		}
		segs[i], _ = decodeSegments(upperEscapes(seg))
		if segs[i] == "." || segs[i] == ".." {
			return Glob{}, fmt.Errorf("path pattern %q holds a dot segment, which no canonical path has", s)
		}
		if segs[i] == "" && i < len(segs)-1 {
			return Glob{}, fmt.Errorf("path pattern %q holds an empty segment", s)
		}
	}
	return Glob{text: s, segs: segs}, nil
}

func checkGlobSegment(seg string) error {
	for i := 0; i < len(seg); i++ {
		switch c := seg[i]; {
		case c <= ' ' || c == 0x7f:
			return errors.New("it holds a space or a control character")
		case c == '%':
			v, ok := unhex(seg[i+1:])
			if !ok {
				return errors.New("it holds a malformed percent escape")
			}
			if v < ' ' || v == 0x7f || v == '\\' || v == '*' {
				return fmt.Errorf("it holds %q escaped, which cannot be matched", v)
			}
		}
	}
	return nil
}

func upperEscapes(s string) string {
	b := []byte(s)
	for i := 0; i+2 < len(b); i++ {
		if b[i] == '%' {
			v, _ := unhex(s[i+1:])
			b[i+1], b[i+2] = upperHex[v>>4], upperHex[v&15]
		}
	}
	return string(b)
}

// String returns the pattern as it was written.
func (g Glob) String() string { return g.text }

// Match reports whether a decoded path is meant.
func (g Glob) Match(path string) bool {
	if !strings.HasPrefix(path, "/") {
		return false
	}
	return matchSegments(g.segs, path[1:], false)
}

// matchSegments matches pattern segments against the rest of a path. It goes back to
// the last ** only, which is enough, and keeps the time within the product of both
// lengths. ended says that the path has no segment left (an empty rest is still one).
func matchSegments(segs []string, rest string, ended bool) bool {
	type point struct {
		seg   int
		rest  string
		ended bool
	}
	var back *point
	next := func(s string) (string, bool) {
		if _, after, ok := strings.Cut(s, "/"); ok {
			return after, false
		}
		return "", true
	}
	for i := 0; ; {
		switch {
		case i < len(segs) && segs[i] == "**":
			back = &point{seg: i, rest: rest, ended: ended}
			i++
			continue
		case i == len(segs) && ended:
			return true
		case i < len(segs) && !ended:
			seg, _, _ := strings.Cut(rest, "/")
			if matchSegment(segs[i], seg) {
				rest, ended = next(rest)
				i++
				continue
			}
		}
		if back == nil || back.ended {
			return false
		}
		back.rest, back.ended = next(back.rest)
		rest, ended, i = back.rest, back.ended, back.seg+1
	}
}

func matchSegment(pattern, s string) bool {
	if pattern == "*" {
		return s != ""
	}
	star, mark, i := -1, 0, 0
	for j := 0; j < len(s); {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case i < len(pattern) && pattern[i] == s[j]:
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "*") == ""
}

// overlaps reports whether some path may match both. It may err on the side of yes.
func (g Glob) overlaps(h Glob) bool {
	return overlap(len(g.segs), len(h.segs),
		func(i int) bool { return g.segs[i] == "**" },
		func(j int) bool { return h.segs[j] == "**" },
		func(i, j int) bool { return segmentsOverlap(g.segs[i], h.segs[j]) })
}

func segmentsOverlap(a, b string) bool {
	return overlap(len(a), len(b),
		func(i int) bool { return a[i] == '*' },
		func(j int) bool { return b[j] == '*' },
		func(i, j int) bool { return a[i] == b[j] })
}

// overlap decides whether two sequences with elements that match any run have a
// common match: a walk over the product of their positions.
func overlap(n, m int, anyA, anyB func(int) bool, same func(i, j int) bool) bool {
	reach := make([][]bool, n+1)
	for i := range reach {
		reach[i] = make([]bool, m+1)
	}
	reach[0][0] = true
	for i := 0; i <= n; i++ {
		for j := 0; j <= m; j++ {
			if !reach[i][j] {
				continue
			}
			a, b := i < n && anyA(i), j < m && anyB(j)
			if a {
				reach[i+1][j] = true
				if j < m {
					reach[i][j+1] = true
				}
			}
			if b {
				reach[i][j+1] = true
				if i < n {
					reach[i+1][j] = true
				}
			}
			if i < n && j < m && !a && !b && same(i, j) {
				reach[i+1][j+1] = true
			}
		}
	}
	return reach[n][m]
}
