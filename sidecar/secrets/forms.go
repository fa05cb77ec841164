package secrets

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// Forms returns the ways in which a value may stand in a text: as it is, as JSON writes
// it, percent-encoded, in base64 of both alphabets wherever the value begins in what was
// encoded, and in hexadecimal. Values shorter than [MinLength] have none.
func Forms(v Value) [][]byte {
	s := string(v)
	if len(s) < MinLength {
		return nil
	}
	var forms [][]byte
	add := func(b []byte) {
		if !slices.ContainsFunc(forms, func(f []byte) bool { return bytes.Equal(f, b) }) {
			forms = append(forms, b)
		}
	}
	add([]byte(s))
	if quoted, err := json.Marshal(s); err == nil {
		add(quoted[1 : len(quoted)-1])
	}
	add([]byte(url.QueryEscape(s)))
	add([]byte(url.PathEscape(s)))
	hexed := hex.EncodeToString([]byte(s))
	var percent strings.Builder
	for i := 0; i < len(hexed); i += 2 {
		percent.WriteString("%" + hexed[i:i+2])
	}
	add([]byte(percent.String()))
	add([]byte(strings.ToUpper(percent.String())))
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for offset := range 3 {
			add(aligned(enc, s, offset))
		}
	}
	add([]byte(hexed))
	add([]byte(strings.ToUpper(hexed)))
	return forms
}

// aligned returns the characters of base64 that depend on the value alone if it begins
// at an offset, modulo three, of what is encoded.
func aligned(enc *base64.Encoding, s string, offset int) []byte {
	data := append(make([]byte, offset), s...)
	text := []byte(enc.EncodeToString(data))
	return text[(offset*8+5)/6 : len(data)*8/6]
}
