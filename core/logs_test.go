package core_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/sidecar/delivery"
)

func TestLogsOfAllAreMergedAndFollowed(t *testing.T) {
	b, _ := sealedBench(t)
	bottle, err := b.launchSealed(t.Context(), sealedText)
	if err != nil {
		t.Fatal(err)
	}
	b.says <- "one\r\ntwo\x1b[2J\nunfini"
	got := make(chan core.LogLine)
	done := make(chan error, 1)
	go func() {
		done <- bottle.ReadLogs(t.Context(), core.LogOptions{Follow: true}, func(l core.LogLine) error { got <- l; return nil })
	}()
	var lines []string
	last := time.Time{}
	for range 6 {
		l := <-got
		if l.Time.Before(last) {
			t.Errorf("%s comes after what was written later", l.Text)
		}
		last = l.Time
		if ready, _ := delivery.Answer(l.Text); ready {
			continue // there is one of each sidecar
		}
		lines = append(lines, l.Role+": "+core.Escape(string(l.Text)))
	}
	want := []string{`egress-proxy: {"msg":"started"}\x1b[31m`, `firewall: {"msg":"started"}\x1b[31m`, "agent: one", `agent: two\x1b[2J`}
	slices.Sort(lines[:2])
	if !slices.Equal(lines, want) {
		t.Errorf("got %q, want %q", lines, want)
	}
	// What comes is not given twice, and a line that had not ended comes whole.
	b.says <- "shed\n" + strings.Repeat("x", 100_000) + "\n"
	if l := <-got; string(l.Text) != "unfinished" || l.Role != core.RoleAgent || l.Stderr {
		t.Errorf("got %q", l.Text)
	}
	if l := <-got; !l.Cut || len(l.Text) != 64<<10 {
		t.Errorf("%d bytes, cut: %v", len(l.Text), l.Cut)
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("following a bottle that ends: %v", err)
	}
}

func TestLogsAreChosenByRoleAndTime(t *testing.T) {
	b, _ := sealedBench(t)
	bottle, err := b.launchSealed(t.Context(), sealedText)
	if err != nil {
		t.Fatal(err)
	}
	b.says <- "no end"
	read := func(opts core.LogOptions) (lines []string) {
		t.Helper()
		if err := bottle.ReadLogs(t.Context(), opts, func(l core.LogLine) error {
			lines = append(lines, l.Role+": "+string(l.Text))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return lines
	}
	// The engine has it a moment later.
	for len(read(core.LogOptions{Roles: []string{core.RoleAgent}})) == 0 {
		time.Sleep(time.Millisecond)
	}
	if got := read(core.LogOptions{Roles: []string{core.RoleAgent}}); !slices.Equal(got, []string{"agent: no end"}) {
		t.Errorf("got %q", got)
	}
	if got := read(core.LogOptions{Since: time.Now().Add(time.Hour)}); len(got) != 0 {
		t.Errorf("got %q of the future", got)
	}
	err = bottle.ReadLogs(t.Context(), core.LogOptions{Roles: []string{"git-gate"}}, nil)
	if core.KindOf(err) != core.KindNotFound || !strings.Contains(err.Error(), `has no "git-gate": it has agent, `) {
		t.Errorf("got %v", err)
	}
	stop := errors.New("enough")
	if err := bottle.ReadLogs(t.Context(), core.LogOptions{Follow: true}, func(core.LogLine) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := bottle.ReadLogs(ctx, core.LogOptions{}, func(core.LogLine) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestEscapedLinesCannotControlATerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain žlutý 🐎":      "plain žlutý 🐎",
		"\x1b]0;title\x07":   `\x1b]0;title\a`,
		"a\tb\rc\x00\x7f":    "a\tb" + `\rc\x00\x7f`,
		"\u202eevil\u2028":   `\u202eevil\u2028`,
		"\xff\xc3":           `\xff\xc3`,
		"\u009b31m c1":       `\u009b31m c1`,
		"back\\slash \ufeff": `back\slash \ufeff`,
	} {
		if got := core.Escape(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
