package supervise

import (
	"context"
	"io"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/sidecar/supervise/ledger"
)

// Of is a bottle on an engine. Tokens that it does not have yet are taken from the host's
// variables. A manifest is written to in place of the one that the bottle was launched from, if
// it is not empty.
func Of(b *core.Bottle, host core.Host, manifest string) Bottle { return box{b, host, manifest} }

type box struct {
	*core.Bottle
	host     core.Host
	manifest string
}

func (b box) BottleName() string { return b.Name }

func (b box) Ask(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	return b.AskSidecar(ctx, core.RoleSupervise, args, stdin, stdout)
}

func (b box) Apply(ctx context.Context, begun ledger.Begun) error {
	return b.ApplyPolicy(ctx, "proposal "+begun.Proposal.ID, begun.PolicyBefore, begun.Policy, b.host)
}
