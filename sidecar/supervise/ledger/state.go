package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/bottle-run/bottle/internal/atomicfile"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
)

// keptBytes bounds what answered proposals take, as JSON.
const keptBytes = 2 << 20

// maxFile bounds the file that is read, in bytes.
const maxFile = 32 << 20

// FileName is the name of the ledger's file in its directory.
const FileName = "proposals.json"

// state is what is written.
type state struct {
	// Version is 1.
	Version   int               `json:"version"`
	Config    *config.Supervise `json:"config,omitempty"`
	Next      int               `json:"next"`
	Proposals []Proposal        `json:"proposals"`
}

// Open reads the ledger that is kept in a directory, or makes an empty one. Without a
// directory nothing is written, and nothing survives. A file that cannot be read is an
// error: what the operator decided is not forgotten in silence.
func Open(dir string, now func() time.Time) (*Ledger, error) {
	l := &Ledger{now: now, changed: make(chan struct{})}
	if dir == "" {
		return l, nil
	}
	l.file = filepath.Join(dir, FileName)
	info, err := os.Stat(l.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if info, err := os.Stat(dir); err != nil || !info.IsDir() {
			return nil, fmt.Errorf("keeping the proposals: %s is no directory", dir)
		}
		return l, nil
	case err != nil:
		return nil, fmt.Errorf("reading the proposals: %w", err)
	case !info.Mode().IsRegular() || info.Size() > maxFile:
		return nil, fmt.Errorf("reading the proposals: %s is no file of at most %d bytes", l.file, maxFile)
	}
	data, err := os.ReadFile(l.file)
	if err != nil {
		return nil, fmt.Errorf("reading the proposals: %w", err)
	}
	var s state
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&s); err != nil {
		return nil, fmt.Errorf("reading the proposals: %s: %w", l.file, err)
	}
	if s.Version != 1 {
		return nil, fmt.Errorf("reading the proposals: %s is of version %d, and this program knows 1", l.file, s.Version)
	}
	if s.Config != nil {
		if err := s.Config.Validate(); err != nil {
			return nil, fmt.Errorf("reading the proposals: %s: config.%w", l.file, err)
		}
	}
	l.conf, l.next, l.list = s.Config, s.Next, s.Proposals
	return l, nil
}

// update changes the state, and writes it before anybody sees it. On an error nothing has
// changed.
func (l *Ledger) update(do func(*state) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := &state{Version: 1, Config: l.conf, Next: l.next, Proposals: slices.Clone(l.list)}
	if err := do(s); err != nil {
		return err
	}
	if s.Proposals == nil {
		s.Proposals = []Proposal{}
	}
	s.trim()
	if err := l.write(s); err != nil {
		return fmt.Errorf("%w: %w", ErrKept, err)
	}
	l.conf, l.next, l.list = s.Config, s.Next, s.Proposals
	l.seq++
	close(l.changed)
	l.changed = make(chan struct{})
	return nil
}

// trim forgets the oldest answered proposals that are too many.
func (s *state) trim() {
	most := config.SuperviseLimits{}.WithDefaults().Kept
	if s.Config != nil {
		most = s.Config.Limits.WithDefaults().Kept
	}
	count, bytes := 0, 0
	for i := len(s.Proposals) - 1; i >= 0; i-- {
		p := s.Proposals[i]
		if !p.State.Final() {
			continue
		}
		count++
		bytes += size(p)
		if count > most || bytes > keptBytes {
			s.Proposals = slices.Delete(s.Proposals, i, i+1)
		}
	}
}

// size is about what a proposal takes, in bytes.
func size(p Proposal) int {
	n := 512 + len(p.Reason) + changeSize(&p.Change)
	if p.Decision != nil {
		n += len(p.Decision.Reason) + changeSize(p.Decision.Edited)
	}
	return n
}

func changeSize(c *change.Change) int {
	if c == nil {
		return 0
	}
	if c.Dockerfile == nil {
		data, err := json.Marshal(c)
		if err != nil {
			panic(err) // these types can be written
		}
		return len(data)
	}
	n := len(c.Dockerfile.Content)
	for _, e := range c.Dockerfile.Edits {
		n += len(e.Old) + len(e.New)
	}
	return n
}

func (l *Ledger) write(s *state) error {
	if l.file == "" {
		return nil
	}
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return atomicfile.Write(l.file, data, 0o600)
}
