package audit

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"
	"unicode/utf8"
)

// appendLine appends a record as a line of JSON, the same that encoding/json makes, with
// no reflection for what nearly all records are made of.
func appendLine(b []byte, r *Record) ([]byte, error) {
	if y := r.Time.Year(); y < 0 || y > 9999 || r.Refs != nil || r.Proposal != nil {
		return appendJSON(b, r)
	}
	b = r.Time.AppendFormat(append(b, `{"time":"`...), time.RFC3339Nano)
	b = appendString(append(b, `","sidecar":`...), r.Sidecar)
	b = appendField(b, `,"agent":`, r.Agent)
	b = appendField(b, `,"scheme":`, r.Scheme)
	b = appendField(b, `,"host":`, r.Host)
	if r.Port != 0 {
		b = strconv.AppendUint(append(b, `,"port":`...), uint64(r.Port), 10)
	}
	b = appendField(b, `,"method":`, r.Method)
	b = appendField(b, `,"path":`, r.Path)
	b = appendString(append(b, `,"decision":`...), r.Decision)
	b = appendString(append(b, `,"rule":`...), r.Rule)
	b = appendField(b, `,"reason":`, r.Reason)
	if r.Status != 0 {
		b = strconv.AppendInt(append(b, `,"status":`...), int64(r.Status), 10)
	}
	b = strconv.AppendInt(append(b, `,"bytes_out":`...), r.BytesOut, 10)
	b = strconv.AppendInt(append(b, `,"bytes_in":`...), r.BytesIn, 10)
	// A duration is neither so small nor so large that JSON would write it otherwise.
	b = strconv.AppendFloat(append(b, `,"duration_ms":`...), r.Duration, 'f', -1, 64)
	return append(b, '}', '\n'), nil
}

func appendField(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	return appendString(append(b, name...), value)
}

// appendString appends a string as JSON. What is not plain is left to encoding/json.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			line, _ := appendJSON(b, s) // strings are always encoded
			return bytes.TrimSuffix(line, []byte{'\n'})
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

func appendJSON(b []byte, v any) ([]byte, error) {
	var line bytes.Buffer
	enc := json.NewEncoder(&line)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return append(b, line.Bytes()...), err
}
