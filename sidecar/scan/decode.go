package scan

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

const (
	// maxDepth is how often what was decoded is decoded again.
	maxDepth = 2
	// minRun is the shortest run of characters that is decoded.
	minRun = 20
)

// decoded searches what a text holds in percent encoding, base64 and hexadecimal.
func (st *Stream) decoded(text []byte, depth int) *Finding {
	if depth == maxDepth {
		return nil
	}
	if bytes.IndexByte(text, '%') >= 0 {
		n := &normaliser{}
		if plain := n.all(text); len(plain) < len(text) {
			if f := st.whole(plain, depth+1); f != nil {
				return f
			}
		}
	}
	for run := range runs(text) {
		if raw, ok := decode(run); ok {
			if f := st.whole(raw, depth+1); f != nil {
				return f
			}
		}
	}
	return nil
}

// runs yields the runs of characters that may be base64 or hexadecimal.
func runs(text []byte) func(func([]byte) bool) {
	return func(yield func([]byte) bool) {
		start := -1
		for i := 0; i <= len(text); i++ {
			if i < len(text) && encodes[text[i]] {
				if start < 0 {
					start = i
				}
				continue
			}
			if start >= 0 && i-start >= minRun && !yield(text[start:i]) {
				return
			}
			start = -1
		}
	}
}

var encodes = func() (set [256]bool) {
	for _, c := range "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_" {
		set[c] = true
	}
	return set
}()

// decode returns what a run encodes, if that is a text.
func decode(run []byte) ([]byte, bool) {
	if len(run)%2 == 0 && len(bytes.Trim(run, "0123456789abcdefABCDEF")) == 0 {
		raw := make([]byte, len(run)/2)
		if _, err := hex.Decode(raw, run); err == nil && printable(raw) {
			return raw, true
		}
	}
	s := strings.Map(func(r rune) rune {
		switch r {
		case '-':
			return '+'
		case '_':
			return '/'
		}
		return r
	}, string(run))
	// A path or a word before it may have shifted it.
	for shift := range 4 {
		part := s[shift:]
		if len(part)%4 == 1 {
			part = part[:len(part)-1]
		}
		raw, err := base64.RawStdEncoding.DecodeString(part)
		if err == nil && printable(raw) {
			return raw, true
		}
	}
	return nil, false
}

// printable reports whether bytes are most likely a text.
func printable(b []byte) bool {
	odd := 0
	for i, c := range b {
		if (c < ' ' || c > '~') && c != '\n' && c != '\r' && c != '\t' {
			odd++
		}
		if i == 31 && odd > 8 {
			return false
		}
	}
	return odd*10 <= len(b)
}

// expected reports whether what a rule found is, or holds, or is within, a known value
// that may go where it is going; in base64 too, as in basic authentication.
func (st *Stream) expected(found []byte) bool {
	for i := range st.s.known {
		k := &st.s.known[i]
		if !k.may(st.host) {
			continue
		}
		if bytes.Contains(found, []byte(k.value)) || len(found) >= minRun && strings.Contains(k.value, string(found)) {
			return true
		}
		if raw, ok := decode(bytes.TrimRight(found, "=")); ok && bytes.Contains(raw, []byte(k.value)) {
			return true
		}
	}
	return false
}
