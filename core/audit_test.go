package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// logOf is a log that holds lines and has been read to its end.
func logOf(role string, lines ...string) *feed[AuditLine] {
	l := newFeed[AuditLine]()
	go func() {
		defer close(l.lines)
		l.err = readLines(strings.NewReader(strings.Join(lines, "\n")), func(line []byte) error {
			return l.give(context.Background(), parseAudit(role, line), 0)
		})
	}()
	return l
}

func line(second int, rule string) string {
	return fmt.Sprintf(`{"time":"2026-01-01T00:00:%02dZ","decision":"allow","rule":%q}`, second, rule)
}

func TestAuditLogsAreMergedByTime(t *testing.T) {
	logs := []*feed[AuditLine]{
		logOf("a", line(1, "a1"), line(4, "a4"), "no record", line(5, "a5")),
		logOf("b", line(2, "b2"), line(3, "b3"), line(6, "b6"), `{"time":"2026-01-01T00:00:07Z"}`),
	}
	var got []string
	if err := merge(t.Context(), logs, auditTime, func(l AuditLine) error {
		if l.Foreign {
			got = append(got, l.Role+": "+string(l.Text))
		} else {
			got = append(got, l.Rule)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	want := []string{"a1", "b2", "b3", "a4", "a: no record", "a5", "b6", `b: {"time":"2026-01-01T00:00:07Z"}`}
	if !slices.Equal(got, want) || logs[0].count != 4 || logs[1].count != 4 {
		t.Errorf("got %q, want %q", got, want)
	}
	stop := errors.New("enough")
	if err := merge(t.Context(), []*feed[AuditLine]{logOf("a", line(1, "x"))}, auditTime, func(AuditLine) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
}

func TestAuditLogsAreFollowedTogether(t *testing.T) {
	count := 0
	if err := together(t.Context(), []*feed[AuditLine]{logOf("a", line(1, "x"), line(2, "y")), logOf("b", line(3, "z"))}, func(AuditLine) error {
		count++
		return nil
	}); err != nil || count != 3 {
		t.Errorf("%d lines, %v", count, err)
	}
	stop := errors.New("enough")
	endless := newFeed[AuditLine]()
	if err := together(t.Context(), []*feed[AuditLine]{endless, logOf("b", line(1, "x"))}, func(AuditLine) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := together(ended, []*feed[AuditLine]{endless}, func(AuditLine) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestLinesOfALogAreBounded(t *testing.T) {
	var got []int
	text := strings.Repeat("x", 3*maxAuditLine) + "\n\nshort\r\nlast"
	if err := readLines(strings.NewReader(text), func(line []byte) error { got = append(got, len(line)); return nil }); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []int{maxAuditLine, 5, 4}) {
		t.Errorf("got %v", got)
	}
}
