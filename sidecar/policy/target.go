package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxTarget is the longest request target, in bytes.
const maxTarget = 32 << 10

// maxDecodings bounds how often a path is decoded in search of what an upstream that
// decodes too often would see.
const maxDecodings = 4

// Target is the path and query of a request in canonical form.
type Target struct {
	// Path is the canonical path, percent-encoded.
	Path string
	// Query is what follows the question mark, percent-encoded; HasQuery tells an
	// empty one from none.
	Query    string
	HasQuery bool

	// readings are the paths that upstreams may take Path for, decoded.
	readings []string
}

// String returns the request target in origin form.
func (t Target) String() string {
	if t.HasQuery {
		return t.Path + "?" + t.Query
	}
	return t.Path
}

// Readings returns what upstreams may take the path for, decoded; the first is the
// plain one.
func (t Target) Readings() []string { return slices.Clone(t.readings) }

// CanonicalTarget brings a request target in origin form into its canonical form:
// unreserved characters decoded, everything else encoded with upper case digits, dot
// segments removed.
//
// Refused is what has none: a path that does not begin with a slash, a fragment, a
// malformed or empty escape, control characters, backslashes, dot segments above the
// root or after an empty segment, and dot segments that only some upstreams would
// see (`..;/`, `%2e%2e%2f`, double encodings, overlong UTF-8 as in CVE-2008-2938).
func CanonicalTarget(raw string) (Target, error) {
	if len(raw) > maxTarget {
		return Target{}, fmt.Errorf("the request target is longer than %d bytes", maxTarget)
	}
	rawPath, rawQuery, hasQuery := strings.Cut(raw, "?")
	if !strings.HasPrefix(rawPath, "/") {
		return Target{}, errors.New("the path does not begin with a slash")
	}
	if strings.Contains(raw, "#") {
		return Target{}, errors.New("the request target holds a fragment")
	}
	query, err := encodeQuery(rawQuery)
	if err != nil {
		return Target{}, err
	}
	path, err := normalEscapes(rawPath)
	if err != nil {
		return Target{}, err
	}
	if path, err = removeDots(path); err != nil {
		return Target{}, err
	}
	readings, err := readPath(path)
	if err != nil {
		return Target{}, err
	}
	return Target{Path: path, Query: query, HasQuery: hasQuery, readings: readings}, nil
}

const upperHex = "0123456789ABCDEF"

// normalEscapes decodes what needs no escape, and escapes what does.
func normalEscapes(s string) (string, error) {
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		c, escaped := s[i], false
		if c == '%' {
			v, ok := unhex(s[i+1:])
			if !ok {
				return "", errors.New("the path holds a malformed percent escape")
			}
			c, escaped = v, true
			i += 2
		}
		switch {
		case c < ' ' || c == 0x7f:
			return "", errors.New("the path holds a control character")
		case c == '\\':
			return "", errors.New("the path holds a backslash")
		case c == ' ' && !escaped:
			return "", errors.New("the path holds a space")
		case isUnreserved(c) || !escaped && isPathChar(c):
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		}
	}
	return b.String(), nil
}

// encodeQuery keeps a query as it is, since its syntax is the upstream's own, except
// for bytes that may not stand in a request target.
func encodeQuery(s string) (string, error) {
	var b strings.Builder
	b.Grow(len(s))
	for i := range len(s) {
		c := s[i]
		switch {
		case c < ' ' || c == 0x7f:
			return "", errors.New("the query holds a control character")
		case c == ' ':
			return "", errors.New("the query holds a space")
		case c >= 0x80:
			b.WriteByte('%')
			b.WriteByte(upperHex[c>>4])
			b.WriteByte(upperHex[c&15])
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), nil
}

// removeDots resolves dot segments.
func removeDots(path string) (string, error) {
	in := strings.Split(path[1:], "/")
	out := make([]string, 0, len(in))
	for i, seg := range in {
		last := i == len(in)-1
		switch seg {
		case ".":
			if last {
				out = append(out, "")
			}
		case "..":
			if len(out) == 0 {
				return "", errors.New("the path leads above the root")
			}
			if out[len(out)-1] == "" {
				return "", errors.New("the path holds dot segments after an empty segment")
			}
			out = out[:len(out)-1]
			if last {
				out = append(out, "")
			}
		default:
			out = append(out, seg)
		}
	}
	return "/" + strings.Join(out, "/"), nil
}

// readPath lists what upstreams may take a path for: decoded once and more often,
// with encoded slashes taken for slashes, without path parameters, with runs of
// slashes taken for one. In none of them may there be a dot segment.
func readPath(path string) ([]string, error) {
	plain, encodedSlash := decodeSegments(path)
	readings := []string{plain}
	add := func(s string) {
		if !slices.Contains(readings, s) {
			readings = append(readings, s)
		}
	}
	if encodedSlash {
		add(decodeAll(path))
	}
	for cur, n := decodeAll(path), 0; strings.Contains(cur, "%"); n++ {
		next := decodeAll(cur)
		if next == cur {
			break
		}
		if n == maxDecodings {
			return nil, errors.New("the path is encoded too many times")
		}
		add(next)
		cur = next
	}
	for _, r := range slices.Clone(readings) {
		if strings.Contains(r, ";") {
			add(dropParameters(r))
		}
	}
	for _, r := range slices.Clone(readings) {
		if strings.Contains(r, "//") {
			add(mergeSlashes(r))
		}
	}
	for _, r := range readings {
		for i := range len(r) {
			if r[i] < ' ' || r[i] == 0x7f || r[i] == '\\' {
				return nil, errors.New("the path hides a control character or a backslash in an encoding")
			}
			if hidesASCII(r[i:]) {
				return nil, errors.New("the path hides a character of its syntax in overlong UTF-8")
			}
		}
		for seg := range strings.SplitSeq(r, "/") {
			if seg == "." || seg == ".." {
				return nil, errors.New("the path hides a dot segment in an encoding or before a path parameter")
			}
		}
	}
	return readings, nil
}

// decodeSegments decodes once and keeps encoded slashes apart from real ones.
func decodeSegments(path string) (string, bool) {
	const escape = "%2F"
	if !strings.Contains(path, escape) {
		return decodeAll(path), false
	}
	parts := strings.Split(path, escape)
	for i := range parts {
		parts[i] = decodeAll(parts[i])
	}
	return strings.Join(parts, escape), true
}

// decodeAll decodes every well-formed escape, once.
func decodeAll(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			if v, ok := unhex(s[i+1:]); ok {
				b = append(b, v)
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// hidesASCII reports whether s begins with UTF-8 that is longer than it may be (RFC 3629, 3)
// and that a careless decoder takes for a character which has a meaning in a path.
func hidesASCII(s string) bool {
	length, bits := 0, 0
	switch s[0] {
	case 0xc0, 0xc1:
		length, bits = 2, int(s[0]&1)
	case 0xe0:
		length = 3
	case 0xf0:
		length = 4
	}
	if length == 0 || len(s) < length {
		return false
	}
	for i := 1; i < length; i++ {
		if s[i]&0xc0 != 0x80 {
			return false
		}
		bits = bits<<6 | int(s[i]&0x3f)
	}
	return bits < ' ' || bits < 0x80 && strings.IndexByte("./\\%;?#", byte(bits)) >= 0
}

func dropParameters(path string) string {
	segs := strings.Split(path, "/")
	for i, seg := range segs {
		segs[i], _, _ = strings.Cut(seg, ";")
	}
	return strings.Join(segs, "/")
}

func mergeSlashes(path string) string {
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	return path
}

func unhex(s string) (byte, bool) {
	if len(s) < 2 {
		return 0, false
	}
	hi, lo := hexValue(s[0]), hexValue(s[1])
	return hi<<4 | lo, hi < 16 && lo < 16
}

func hexValue(c byte) byte {
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

func isUnreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '-' || c == '.' || c == '_' || c == '~'
}

// isPathChar reports whether a byte may stand in a path as it is.
func isPathChar(c byte) bool { return isUnreserved(c) || strings.IndexByte("/!$&'()*+,;=:@", c) >= 0 }
