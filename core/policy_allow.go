package core

import (
	"context"
	"fmt"
	"slices"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
)

// AllowHost adds a host on a port to the allowlist that is in force, until the bottle ends,
// as [Bottle.SetPolicy] does. A host that routes decide about is an error: an entry would
// change nothing there.
func (b *Bottle) AllowHost(ctx context.Context, host string, port uint16, from Host) error {
	live, err := b.Policy(ctx)
	if err != nil {
		return err
	}
	if live.Firewall == nil {
		return Errorf(KindNotFound, "bottle %s has no firewall: it was launched without egress", b.Name)
	}
	before := live.allowed()
	for _, r := range before.Routes {
		if p, err := policy.ParseHostPattern(r.Host); err == nil && p.Match(host) && (len(r.Ports) == 0 && port == 443 || slices.Contains(r.Ports, port)) {
			return Errorf(KindInput, "the route %s decides about %s: change it with bottle policy set %s", orDefault(r.ID, r.Host), host, b.Name)
		}
	}
	next, err := change.Change{Kind: config.ProposeAllow, Allow: &change.Allow{Add: []policy.Rule{{Host: host, Ports: []uint16{port}}}}}.Apply(before, fmt.Sprintf("operator:%s:%d", host, port))
	if err != nil {
		return withKind(KindInput, err)
	}
	section, err := live.with(next).Section()
	if err != nil {
		return err
	}
	return b.SetPolicy(ctx, "the allowlist", section, from)
}
