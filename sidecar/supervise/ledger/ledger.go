// Package ledger keeps what an agent proposed and what the operator decided.
//
// # Promises
//
//   - A proposal is never changed once it is made: the operator may apply another change in
//     its place, which is kept beside it.
//   - A decision is bound to the revisions that were shown. If the policy or the proposal is
//     another one by then, it fails with [ErrStale].
//   - Of several decisions at a time one is made. Applying is in two steps, so that a
//     decision whose change did not take effect is never told as an approval: [Ledger.Begin]
//     reserves the proposal, [Ledger.Finish] says how it went.
//   - What was acknowledged has been written to a file, if there is one, and is there again
//     after a restart.
//   - What is kept is bounded in number and in bytes.
package ledger

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
)

// State is what has become of a proposal.
type State string

// The states. Approved, denied and withdrawn are final.
const (
	Pending   State = "pending"
	Applying  State = "applying"
	Approved  State = "approved"
	Denied    State = "denied"
	Withdrawn State = "withdrawn"
)

// Final reports whether there is an answer.
func (s State) Final() bool { return s == Approved || s == Denied || s == Withdrawn }

// The scopes of an approval.
const (
	// ForBottle lasts until the bottle ends.
	ForBottle = "bottle"
	// ForManifest is written to the manifest as well.
	ForManifest = "manifest"
)

// Proposal is one proposal. Reason, Change and what they hold are the agent's: hostile.
type Proposal struct {
	ID     string        `json:"id"`
	State  State         `json:"state"`
	Made   time.Time     `json:"made"`
	Reason string        `json:"reason"`
	Change change.Change `json:"change"`
	// Revision names the proposal by its content.
	Revision string `json:"revision"`
	// MadeAgainst is the revision of the policy that it was made against.
	MadeAgainst string    `json:"made_against"`
	Decision    *Decision `json:"decision,omitempty"`
}

// Decision is the operator's.
type Decision struct {
	By     string    `json:"by"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
	Scope  string    `json:"scope,omitempty"`
	// Edited is the change that is made in place of the proposed one.
	Edited *change.Change `json:"edited,omitempty"`
	// Before and After are revisions of the policy.
	Before string `json:"policy_before,omitempty"`
	After  string `json:"policy_after,omitempty"`

	// Token is known to who began, Policy is what is to come into force.
	Token  string         `json:"token,omitempty"`
	Policy *config.Policy `json:"policy,omitempty"`
}

// public leaves out what is nobody's business but the ledger's.
func (p Proposal) public() Proposal {
	if p.Decision != nil {
		d := *p.Decision
		d.Token, d.Policy = "", nil
		p.Decision = &d
	}
	return p
}

// Errors that callers tell apart.
var (
	// ErrNotFound is of a proposal that there is not, or not any more.
	ErrNotFound = errors.New("there is no such proposal, or it was answered so long ago that it is not kept any more")
	// ErrStale is of a decision about something that is not so any more.
	ErrStale = errors.New("stale")
	// ErrState is of something that the state of the proposal does not allow.
	ErrState = errors.New("not now")
	// ErrLimit is of one proposal, or one call, too many.
	ErrLimit = errors.New("limit")
	// ErrKept is of a ledger that could not be written: nothing has changed.
	ErrKept = errors.New("the proposals cannot be written")
)

func stalef(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrStale}, args...)...)
}

func statef(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrState}, args...)...)
}

// Ledger is safe for concurrent use.
type Ledger struct {
	now  func() time.Time
	file string // empty: nothing is written

	mu      sync.Mutex
	conf    *config.Supervise // nil until there is one
	next    int
	list    []Proposal // oldest first
	made    []time.Time
	changed chan struct{} // closed with every change
	seq     uint64
}

// Configure sets the configuration, with the policy that is in force.
func (l *Ledger) Configure(conf *config.Supervise) error {
	return l.update(func(s *state) error {
		s.Config = conf
		return nil
	})
}

// Config returns the configuration, nil if there is none yet. It is not to be changed.
func (l *Ledger) Config() *config.Supervise {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conf
}

// Sequence grows with every change; the channel is closed with the next one.
func (l *Ledger) Sequence() (uint64, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq, l.changed
}

// List returns the proposals, oldest first.
func (l *Ledger) List() []Proposal {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]Proposal, len(l.list))
	for i, p := range l.list {
		out[i] = p.public()
	}
	return out
}

// Get returns one.
func (l *Ledger) Get(id string) (Proposal, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := find(l.list, id)
	if i < 0 {
		return Proposal{}, ErrNotFound
	}
	return l.list[i].public(), nil
}

func find(list []Proposal, id string) int {
	return slices.IndexFunc(list, func(p Proposal) bool { return p.ID == id })
}

// Wait returns a proposal when it has an answer, or ctx ends: then as it is.
func (l *Ledger) Wait(ctx context.Context, id string) (Proposal, error) {
	for {
		_, changed := l.Sequence()
		p, err := l.Get(id)
		if err != nil || p.State.Final() {
			return p, err
		}
		select {
		case <-ctx.Done():
			return p, nil
		case <-changed:
		}
	}
}

// Charge counts an attempt to propose. It is ErrLimit if there were too many.
func (l *Ledger) Charge() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conf == nil {
		return statef("there is no configuration yet")
	}
	now := l.now()
	l.made = slices.DeleteFunc(l.made, func(t time.Time) bool { return now.Sub(t) >= time.Minute || t.After(now) })
	if most := l.conf.Limits.WithDefaults().PerMinute; len(l.made) >= most {
		return fmt.Errorf("%w: %d proposals may be made in a minute: try again in %d seconds", ErrLimit, most, 1+int((time.Minute-now.Sub(l.made[0])).Seconds()))
	}
	l.made = append(l.made, now)
	return nil
}

// Propose adds a proposal of the agent's, which has been charged. Invalid ones are refused
// with what is wrong.
func (l *Ledger) Propose(c change.Change, reason string) (Proposal, error) {
	var p Proposal
	err := l.update(func(s *state) error {
		if s.Config == nil {
			return statef("there is no configuration yet")
		}
		if err := change.CheckReason(reason); err != nil {
			return &change.Error{Err: err}
		}
		if err := c.CheckAgent(s.Config); err != nil {
			return err
		}
		if _, err := c.Apply(s.Config.Policy, "proposal"); err != nil {
			return err
		}
		open := 0
		for _, o := range s.Proposals {
			if o.State.Final() {
				continue
			}
			open++
			if change.Revision(o.Change) == change.Revision(c) {
				return statef("proposal %s asks for the same and waits for an answer: wait for that one", o.ID)
			}
		}
		if most := s.Config.Limits.WithDefaults().Pending; open >= most {
			return fmt.Errorf("%w: %d proposals wait for an answer, and no more may: withdraw one or wait", ErrLimit, open)
		}
		s.Next++
		p = Proposal{
			ID: fmt.Sprintf("p%d", s.Next), State: Pending, Made: l.now().UTC(), Reason: reason, Change: c,
			MadeAgainst: change.Revision(s.Config.Policy),
		}
		p.Revision = change.Revision([]any{p.ID, p.Made, p.Reason, p.Change})
		s.Proposals = append(s.Proposals, p)
		return nil
	})
	return p, err
}

// Withdraw takes a proposal back, for the agent.
func (l *Ledger) Withdraw(id string) (Proposal, error) {
	return l.decide(id, func(_ *state, p *Proposal) error {
		if p.State != Pending {
			return statef("proposal %s cannot be withdrawn: it is %s", id, p.State)
		}
		p.State = Withdrawn
		return nil
	})
}

// Deny answers no. Revision is the one that was shown.
func (l *Ledger) Deny(id, revision, by, reason string) (Proposal, error) {
	return l.decide(id, func(s *state, p *Proposal) error {
		if err := p.shown(revision); err != nil {
			return err
		}
		if p.State != Pending {
			return statef("proposal %s cannot be denied: it is %s", id, p.State)
		}
		now := change.Revision(s.Config.Policy)
		p.State, p.Decision = Denied, &Decision{By: by, At: l.now().UTC(), Reason: reason, Before: now, After: now}
		return nil
	})
}

func (p *Proposal) shown(revision string) error {
	if revision != p.Revision {
		return stalef("proposal %s has the revision %s, and another one was shown (%s): look at it again", p.ID, p.Revision, revision)
	}
	return nil
}

// Approval is a decision to apply a proposal.
type Approval struct {
	// Revision and PolicyRevision are those that were shown.
	Revision       string `json:"revision"`
	PolicyRevision string `json:"policy_revision"`
	By             string `json:"by"`
	Reason         string `json:"reason,omitempty"`
	// Scope is ForBottle, which is the default, or ForManifest.
	Scope string `json:"scope,omitempty"`
	// Edited is the change to make instead.
	Edited *change.Change `json:"edited,omitempty"`
	// TakeOver begins anew what somebody else has begun and not finished.
	TakeOver bool `json:"take_over,omitempty"`
}

// Begun is what an approval is to bring into force.
type Begun struct {
	Proposal Proposal `json:"proposal"`
	// Token finishes what was begun.
	Token string `json:"token"`
	// Policy is the whole policy as it is to be, PolicyAfter its revision.
	Policy       config.Policy `json:"policy"`
	PolicyBefore string        `json:"policy_before"`
	PolicyAfter  string        `json:"policy_after"`
}

// Begin reserves a proposal for its approval and says what is to come into force. While one
// is reserved, no other is.
func (l *Ledger) Begin(id string, a Approval) (Begun, error) {
	var b Begun
	p, err := l.decide(id, func(s *state, p *Proposal) error {
		if err := p.shown(a.Revision); err != nil {
			return err
		}
		now := change.Revision(s.Config.Policy)
		if a.PolicyRevision != now {
			return stalef("the policy has the revision %s, and another one was shown (%s): look at the proposal again", now, a.PolicyRevision)
		}
		if a.Scope == "" {
			a.Scope = ForBottle
		}
		if a.Scope != ForBottle && a.Scope != ForManifest {
			return &change.Error{Err: fmt.Errorf("scope %q is none of %s, %s", a.Scope, ForBottle, ForManifest)}
		}
		if p.State != Pending && (p.State != Applying || !a.TakeOver) {
			return statef("proposal %s cannot be approved: it is %s", id, p.State)
		}
		for _, o := range s.Proposals {
			if o.State == Applying && o.ID != id {
				return statef("proposal %s is being applied by %s since %s: finish that first", o.ID, o.Decision.By, o.Decision.At.Format(time.RFC3339))
			}
		}
		c := p.Change
		if a.Edited != nil {
			c = *a.Edited
		}
		after, err := c.Apply(s.Config.Policy, "proposal:"+id)
		if err != nil {
			return err
		}
		b = Begun{Token: rand.Text(), Policy: after, PolicyBefore: now, PolicyAfter: change.Revision(after)}
		p.State = Applying
		p.Decision = &Decision{
			By: a.By, At: l.now().UTC(), Reason: a.Reason, Scope: a.Scope, Edited: a.Edited, Before: now, After: b.PolicyAfter,
			Token: b.Token, Policy: &after,
		}
		return nil
	})
	b.Proposal = p
	return b, err
}

// Finish says how what was begun ended: with failed empty, its policy is in force, and the
// proposal approved. Else the proposal waits for an answer again.
func (l *Ledger) Finish(id, token, failed string) (Proposal, error) {
	return l.decide(id, func(s *state, p *Proposal) error {
		d := p.Decision
		switch {
		case p.State != Applying:
			return statef("proposal %s is not being applied: it is %s", id, p.State)
		case d.Token != token:
			return stalef("somebody else has begun to apply proposal %s", id)
		case failed != "":
			p.State, p.Decision = Pending, nil
			return nil
		case change.Revision(s.Config.Policy) != d.Before:
			p.State, p.Decision = Pending, nil
			return errChanged
		}
		conf := *s.Config
		conf.Policy = *d.Policy
		s.Config = &conf
		final := *d
		final.Token, final.Policy = "", nil
		p.State, p.Decision = Approved, &final
		return nil
	})
}

// errChanged is returned for a change that is made all the same: the proposal is pending.
var errChanged = stalef("the policy was changed while the proposal was being applied: what is in force may be either. Put the policy again")

// decide changes one proposal.
func (l *Ledger) decide(id string, do func(*state, *Proposal) error) (Proposal, error) {
	var out Proposal
	var told error
	err := l.update(func(s *state) error {
		if s.Config == nil {
			return statef("there is no configuration yet")
		}
		i := find(s.Proposals, id)
		if i < 0 {
			return ErrNotFound
		}
		p := s.Proposals[i]
		if err := do(s, &p); err != nil && !errors.Is(err, errChanged) {
			return err
		} else if err != nil {
			told = err
		}
		s.Proposals[i], out = p, p.public()
		return nil
	})
	if err == nil {
		err = told
	}
	return out, err
}
