package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"
	"time"
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

// FuzzLine holds lines against encoding/json.
func FuzzLine(f *testing.F) {
	f.Add("a", "/x\"<&\x7f\x00\xff\u2028é", 200, int64(5), 1.25)
	f.Add("", "", 0, int64(0), 0.0)
	f.Fuzz(func(t *testing.T, host, path string, status int, n int64, duration float64) {
		duration = math.Abs(math.Round(duration*1000) / 1000) // as they are made
		if math.IsNaN(duration) || duration > 1e15 || duration != 0 && duration < 1e-3 {
			return
		}
		r := Record{Time: time.Unix(status64(status), n&0xfffff).UTC(), Host: host, Path: path, Decision: Allow, Rule: host, Status: status, Port: uint16(n), BytesIn: n, Duration: duration}
		want, err := appendJSON(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := appendLine([]byte("x"), &r)
		if err != nil || string(got) != "x"+string(want) {
			t.Fatalf("%s, %v; want %s", got, err, want)
		}
	})
}

// status64 is some second of this era.
func status64(n int) int64 { return int64(uint32(n)) }

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("full") }

func TestCloseTellsOfErrors(t *testing.T) {
	l := New(broken{}, "firewall", "coder")
	l.Record(Record{})
	if err := l.Close(); err == nil {
		t.Error("a write that failed was not told")
	}
}
