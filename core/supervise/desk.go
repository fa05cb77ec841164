// Package supervise is the operator's side of proposals: it asks the supervise sidecars of
// bottles, and brings into force what is approved.
//
// It reaches a sidecar through the engine alone, so that it works the same on every engine.
// Everything it returns to be shown is escaped, but the members of a proposal itself.
package supervise

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
	"github.com/bottle-run/bottle/sidecar/supervise/operator"
)

// Bottle is one whose supervise sidecar can be asked.
type Bottle interface {
	// BottleName is its name.
	BottleName() string
	// Ask runs bottle-sidecar with arguments in the supervise sidecar. A status other than 0
	// is a [*core.AskError].
	Ask(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error
	// Save makes ready to write a change into what the bottle was launched from: nothing is
	// written until commit is called.
	Save(ctx context.Context, id string, c change.Change) (commit func() error, err error)
	// Apply brings what was begun into force, on all other sidecars. What it returns an
	// error for is not in force.
	Apply(ctx context.Context, begun ledger.Begun) error
}

// ErrStale is of a decision about a policy or a proposal that is not what was shown.
var ErrStale = errors.New("something has changed since it was shown")

// ErrNotSaved is of an approval that is in force, and could not be written to the manifest.
var ErrNotSaved = errors.New("it is in force until the bottle ends, but it could not be written to the manifest")

// statusStale is what bottle-sidecar ends with then.
const statusStale = 5

// finishTime bounds telling the sidecar how an approval ended, although the operator has
// gone.
const finishTime = 10 * time.Second

// List returns a bottle's proposals.
func List(ctx context.Context, b Bottle) (operator.List, error) {
	return ask[operator.List](ctx, b, nil, "list")
}

// Show returns one proposal, with what would become possible.
func Show(ctx context.Context, b Bottle, id string) (operator.View, error) {
	return ask[operator.View](ctx, b, nil, "show", "--", id)
}

// Preview returns what another change in place of the proposed one would do.
func Preview(ctx context.Context, b Bottle, id string, c change.Change) (operator.View, error) {
	return ask[operator.View](ctx, b, operator.Edit{Change: c}, "preview", "--", id)
}

// Deny answers no to a proposal as it was shown.
func Deny(ctx context.Context, b Bottle, v operator.View, by, reason string) (ledger.Proposal, error) {
	return ask[ledger.Proposal](ctx, b, operator.Denial{Revision: v.Proposal.Revision, By: by, Reason: reason}, "deny", "--", v.Proposal.ID)
}

// Approve brings a proposal into force, as it was shown. The members of the approval that
// bind it to what was shown are set here. If it does not come into force the proposal
// waits for an answer again. With the scope [ledger.ForManifest] the change is written to what
// the bottle was launched from, once it is in force: [ErrNotSaved] says that this alone failed.
func Approve(ctx context.Context, b Bottle, v operator.View, a ledger.Approval) (ledger.Begun, error) {
	a.Revision, a.PolicyRevision = v.Proposal.Revision, v.PolicyRevision
	id := v.Proposal.ID
	commit := func() error { return nil }
	if a.Scope == ledger.ForManifest {
		c := v.Proposal.Change
		if a.Edited != nil {
			c = *a.Edited
		}
		var err error
		if commit, err = b.Save(ctx, id, c); err != nil {
			return ledger.Begun{}, fmt.Errorf("proposal %s is not approved, since it cannot be written to the manifest: %w", id, err)
		}
	}
	begun, err := ask[ledger.Begun](ctx, b, a, "approve", "--", id)
	if err != nil {
		return begun, err
	}
	finish := operator.Finish{Token: begun.Token, By: a.By}
	applied := b.Apply(ctx, begun)
	if applied != nil {
		finish.Failed = applied.Error()
	}
	// Whoever waits is told, also if the operator has been interrupted.
	told, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTime)
	defer cancel()
	p, err := ask[ledger.Proposal](told, b, finish, "finish", "--", id)
	switch {
	case applied != nil && err != nil:
		return begun, fmt.Errorf("bringing proposal %s into force: %w; and the supervise sidecar could not be told: %w", id, applied, err)
	case applied != nil:
		return begun, fmt.Errorf("bringing proposal %s into force: %w", id, applied)
	case err != nil:
		return begun, fmt.Errorf("proposal %s is in force, but the supervise sidecar could not be told: %w", id, err)
	}
	begun.Proposal = p
	if err := commit(); err != nil {
		return begun, fmt.Errorf("proposal %s: %w: %w", id, ErrNotSaved, err)
	}
	return begun, nil
}

// Watch calls each with the list, now and with every change, until ctx or the sidecar ends.
// The error says which.
func Watch(ctx context.Context, b Bottle, each func(operator.List)) error {
	r, w := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := b.Ask(ctx, []string{"proposals", "watch"}, nil, w)
		if err == nil {
			err = io.EOF
		}
		ended <- err
		w.CloseWithError(err)
	}()
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			_ = r.Close() // it never fails
			return fmt.Errorf("following the proposals of bottle %s: %w", b.BottleName(), <-ended)
		}
		var l operator.List
		if err := json.Unmarshal(line, &l); err != nil {
			_ = r.CloseWithError(err) // it never fails
			return fmt.Errorf("following the proposals of bottle %s: %w", b.BottleName(), err)
		}
		each(l)
	}
}

// ask runs one command. The ID stands behind a double dash: it may be anything.
func ask[T any](ctx context.Context, b Bottle, body any, verb string, args ...string) (T, error) {
	var out T
	var stdin io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return out, err
		}
		stdin = bytes.NewReader(data)
	}
	var said bytes.Buffer
	err := b.Ask(ctx, append([]string{"proposals", verb}, args...), stdin, &said)
	var refused *core.AskError
	if errors.As(err, &refused) && refused.Status == statusStale {
		err = fmt.Errorf("%w: %w", ErrStale, err)
	}
	if err == nil {
		if err = json.Unmarshal(said.Bytes(), &out); err != nil {
			err = fmt.Errorf("the answer of the supervise sidecar cannot be read: %w", err)
		}
	}
	if err != nil {
		return out, fmt.Errorf("bottle %s: %w", b.BottleName(), err)
	}
	return out, nil
}
