// Package audit writes what a bottle's sidecars decided: one line of JSON a decision.
//
// A line holds no secret and no body: paths are given without their query and with
// known secrets masked by whoever records them. Lines are never dropped: a reader that
// does not keep up slows the requests down.
package audit

import (
	"errors"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Decisions.
const (
	Allow = "allow"
	Deny  = "deny"
	Error = "error" // allowed, but it failed
	Ask   = "ask"   // proposed, or withdrawn: nothing is decided
)

// maxPath bounds the path in a record, in bytes.
const maxPath = 2 << 10

// Record is one decision.
type Record struct {
	Time     time.Time `json:"time"`
	Sidecar  string    `json:"sidecar"`
	Agent    string    `json:"agent,omitempty"`
	Scheme   string    `json:"scheme,omitempty"`
	Host     string    `json:"host,omitempty"`
	Port     uint16    `json:"port,omitempty"`
	Method   string    `json:"method,omitempty"`
	Path     string    `json:"path,omitempty"`
	Decision string    `json:"decision"`
	Rule     string    `json:"rule"`
	Reason   string    `json:"reason,omitempty"`
	Status   int       `json:"status,omitempty"`
	// Refs are what a push was to do: "OLD NEW NAME" each.
	Refs []string `json:"refs,omitempty"`
	// Proposal is what was proposed or decided; the host and what follows it are empty then.
	Proposal *Proposal `json:"proposal,omitempty"`
	// BytesOut left the bottle, BytesIn came in: bodies only.
	BytesOut int64 `json:"bytes_out"`
	BytesIn  int64 `json:"bytes_in"`
	// Duration is in milliseconds.
	Duration float64 `json:"duration_ms"`
}

// Proposal is something that happened to a proposal of the agent's.
type Proposal struct {
	// ID is empty if it was refused.
	ID string `json:"id,omitempty"`
	// Event is one of proposed, refused, withdrawn, denied, applying, approved, failed.
	Event string `json:"event"`
	// By is who did it: "agent", or the operator by name.
	By   string `json:"by"`
	Kind string `json:"kind,omitempty"`
	// Reason is the agent's when it proposes; a decision's is the record's.
	Reason string `json:"reason,omitempty"`
	// Permits are what becomes possible, in words.
	Permits []string `json:"permits,omitempty"`
	// Edited is whether the operator applies another change than was proposed.
	Edited bool   `json:"edited,omitempty"`
	Scope  string `json:"scope,omitempty"`
	// Revision is the proposal's, the others are the policy's.
	Revision     string `json:"revision,omitempty"`
	PolicyBefore string `json:"policy_before,omitempty"`
	PolicyAfter  string `json:"policy_after,omitempty"`
}

// Log writes records. It is safe for concurrent use.
type Log struct {
	sidecar, agent string
	records        chan Record
	closed         chan struct{}
	mu             sync.RWMutex
	ended          bool
	err            error
}

// queue is how many records may wait for the writer.
const queue = 1024

// batch is how much is written at once, in bytes.
const batch = 16 << 10

// linger is how long the writer rests after it has written: what is recorded meanwhile is
// written at once, and does not wake it for every line.
const linger = 2 * time.Millisecond

// New makes a log of a sidecar that serves an agent. Close ends it.
func New(w io.Writer, sidecar, agent string) *Log {
	l := &Log{sidecar: sidecar, agent: agent, records: make(chan Record, queue), closed: make(chan struct{})}
	go l.run(w)
	return l
}

func (l *Log) run(w io.Writer) {
	defer close(l.closed)
	buf := make([]byte, 0, batch)
	for r := range l.records {
		line, err := appendLine(buf, &r)
		if err == nil {
			buf = line
		}
		if len(l.records) == 0 || len(buf) >= batch-maxPath {
			_, werr := w.Write(buf)
			err = errors.Join(err, werr)
			buf = buf[:0]
			if cap(buf) > 2*batch {
				buf = make([]byte, 0, batch)
			}
			if len(l.records) == 0 && werr == nil {
				time.Sleep(linger)
			}
		}
		if err != nil && l.err == nil {
			l.err = err
		}
	}
	if len(buf) == 0 {
		return
	}
	if _, err := w.Write(buf); err != nil && l.err == nil {
		l.err = err
	}
}

// Record writes a record. Its sidecar and agent are set, and its time if it has none.
func (l *Log) Record(r Record) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.ended {
		return
	}
	r.Sidecar, r.Agent = l.sidecar, l.agent
	if r.Time.IsZero() {
		r.Time = time.Now()
	}
	r.Time = r.Time.UTC()
	r.Path, _, _ = strings.Cut(r.Path, "?")
	if len(r.Path) > maxPath {
		r.Path = r.Path[:maxPath] + "…"
	}
	if !utf8.ValidString(r.Path) {
		r.Path = strings.ToValidUTF8(r.Path, "�")
	}
	l.records <- r
}

// Close writes what is left and returns the first error of writing.
func (l *Log) Close() error {
	l.mu.Lock()
	if !l.ended {
		l.ended = true
		close(l.records)
	}
	l.mu.Unlock()
	<-l.closed
	return l.err
}
