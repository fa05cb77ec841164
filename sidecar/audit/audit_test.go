package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
)

func TestRecordsAreLines(t *testing.T) {
	var out bytes.Buffer
	l := New(&out, "firewall", "coder")
	var wg sync.WaitGroup
	for range 2 * queue {
		wg.Go(func() {
			l.Record(Record{Host: "x.com", Path: "/a?secret=1", Decision: Deny, Rule: "default-deny", Reason: "line\nbreak"})
		})
	}
	wg.Wait()
	l.Record(Record{Path: "/" + strings.Repeat("\xff", 2*maxPath), Decision: Allow})
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l.Record(Record{})
	n := 0
	for sc := bufio.NewScanner(&out); sc.Scan(); n++ {
		var r Record
		if err := json.Unmarshal(sc.Bytes(), &r); err != nil {
			t.Fatalf("%s: %v", sc.Text(), err)
		}
		if r.Sidecar != "firewall" || r.Agent != "coder" || r.Time.IsZero() || strings.Contains(r.Path, "?") {
			t.Fatalf("%+v", r)
		}
	}
	if n != 2*queue+1 {
		t.Errorf("%d lines", n)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestCloseTellsOfErrors(t *testing.T) {
	l := New(broken{}, "firewall", "coder")
	l.Record(Record{})
	if err := l.Close(); err == nil {
		t.Error("a write that failed was not told")
	}
}
