package logstamp

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestATimestampIsTakenOffEachFrame(t *testing.T) {
	for frame, want := range map[string]struct{ text, stamp string }{
		"2026-01-31T12:00:00.5Z text with 2026-01-31T12:00:00.5Z\n": {"text with 2026-01-31T12:00:00.5Z\n", "2026-01-31T12:00:00.5Z"},
		"2026-01-31T12:00:00.123456789+02:00 x":                     {"x", "2026-01-31T10:00:00.123456789Z"},
		"2026-01-31T12:00:00Z \n":                                   {"\n", "2026-01-31T12:00:00Z"},
		"no stamp here\n":                                           {"no stamp here\n", ""},
		" \n":                                                       {" \n", ""},
		strings.Repeat("x", 100) + " y":                             {strings.Repeat("x", 100) + " y", ""},
		"":                                                          {"", ""},
	} {
		var out strings.Builder
		stamp := ""
		n, err := Writer(&out, func(at time.Time) { stamp = at.UTC().Format(time.RFC3339Nano) }).Write([]byte(frame))
		if err != nil || n != len(frame) || out.String() != want.text || stamp != want.stamp {
			t.Errorf("%q: %q at %q, %d, %v", frame, out.String(), stamp, n, err)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestTheWritersErrorIsPassedOn(t *testing.T) {
	if _, err := Writer(full{}, func(time.Time) {}).Write([]byte("x")); err == nil {
		t.Error("no error")
	}
	if n, err := Writer(nil, func(time.Time) {}).Write([]byte("x")); n != 1 || err != nil {
		t.Errorf("without a writer: %d, %v", n, err)
	}
}
