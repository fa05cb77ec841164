// Package operator is what passes between an operator and the supervise sidecar: the JSON of
// `bottle-sidecar proposals`. Bodies are of these types, and of [ledger.Approval]; answers
// too, and [ledger.Begun] and [ledger.Proposal].
//
// What is said to be escaped holds no control character, bidirectional mark or anything
// invisible, and can be shown as it is. The members of a [ledger.Proposal] are as the agent
// sent them: escape them with package show.
package operator

import (
	"github.com/bottle-run/bottle/sidecar/supervise/change"
	"github.com/bottle-run/bottle/sidecar/supervise/effect"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
)

// List is what the operator is shown of all proposals.
type List struct {
	// Sequence grows with every change of the list or the policy.
	Sequence       uint64    `json:"sequence"`
	Agent          string    `json:"agent"`
	PolicyRevision string    `json:"policy_revision"`
	Proposals      []Summary `json:"proposals"`
}

// Summary is a proposal in a list. Title and Reason are escaped and shortened.
type Summary struct {
	ID       string       `json:"id"`
	State    ledger.State `json:"state"`
	Kind     string       `json:"kind"`
	Made     string       `json:"made"` // RFC 3339
	Title    string       `json:"title"`
	Reason   string       `json:"reason"`
	Revision string       `json:"revision"`
	By       string       `json:"by,omitempty"`
}

// View is what the operator is shown of one proposal, and decides by. All but Proposal is
// escaped.
type View struct {
	Proposal ledger.Proposal `json:"proposal"`
	// PolicyRevision and Proposal.Revision are what a decision is bound to.
	PolicyRevision string `json:"policy_revision"`
	Title          string `json:"title"`
	Reason         string `json:"reason"`
	// Effect is what changes, in words, Diff the same as a unified diff. They are of the
	// change against the policy as it is now.
	Effect effect.Effect `json:"effect"`
	Diff   string        `json:"diff"`
	// Conflict says why the change cannot be made to the policy as it is now.
	Conflict string `json:"conflict,omitempty"`
}

// Denial is the operator's no.
type Denial struct {
	Revision string `json:"revision"`
	By       string `json:"by"`
	Reason   string `json:"reason"`
}

// Finish says how an approval that was begun ended.
type Finish struct {
	Token string `json:"token"`
	By    string `json:"by"`
	// Failed is why the policy is not in force. Empty: it is.
	Failed string `json:"failed,omitempty"`
}

// Edit is a change that the operator would make in place of the proposed one.
type Edit struct {
	Change change.Change `json:"change"`
}
