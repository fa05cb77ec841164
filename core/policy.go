package core

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/core/gitgate"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/delivery"
)

// maxAnswer bounds what is read of a sidecar's answer, in bytes.
const maxAnswer = delivery.MaxDocument

// LivePolicy is what a bottle's sidecars have in force. It holds no secret.
type LivePolicy struct {
	// Firewall is nil if the bottle was launched without egress.
	Firewall *config.Firewall `json:"firewall,omitempty"`
	// EgressProxy is nil if the bottle was launched without routes.
	EgressProxy *config.EgressProxy `json:"egress_proxy,omitempty"`
	// GitGate is nil if the bottle was launched without git.
	GitGate *config.GitGate `json:"git_gate,omitempty"`
	// Supervise is nil if the bottle was launched without supervise.
	Supervise *config.Supervise `json:"supervise,omitempty"`
}

// Section writes the policy as the manifest's sections egress and git, which
// [Bottle.SetPolicy] reads.
func (p LivePolicy) Section() ([]byte, error) {
	var text, git []byte
	var err error
	if p.Firewall != nil {
		allowed := p.allowed()
		text, err = egress.Section(allowed.AllowAll, allowed.Allow, allowed.Routes)
	}
	if err == nil && p.GitGate != nil {
		git, err = gitgate.Section(p.GitGate)
	}
	return append(text, git...), err
}

// allowed is what the agent may do, as the supervise sidecar calls it.
func (p LivePolicy) allowed() config.Policy {
	var c config.Policy
	switch {
	// The firewall's own list holds the routes' hosts, too.
	case p.EgressProxy != nil:
		c.AllowAll, c.Allow, c.Routes = p.EgressProxy.AllowAll, p.EgressProxy.Allow, p.EgressProxy.Routes
	case p.Firewall != nil:
		c.AllowAll, c.Allow = p.Firewall.AllowAll, p.Firewall.Allow
	}
	if p.Supervise != nil {
		c.Dockerfile = p.Supervise.Policy.Dockerfile
	}
	return withGit(c, p.GitGate)
}

// Policy asks the bottle's sidecars what they have in force. A bottle without sidecars is
// of KindNotFound.
func (b *Bottle) Policy(ctx context.Context) (LivePolicy, error) {
	var p LivePolicy
	has, err := b.hasSidecars(ctx, "policy")
	if err != nil {
		return p, err
	}
	if p.Firewall, err = askPolicy[config.Firewall](ctx, b, has, RoleFirewall); err != nil {
		return p, err
	}
	if p.EgressProxy, err = askPolicy[config.EgressProxy](ctx, b, has, RoleEgressProxy); err != nil {
		return p, err
	}
	if p.GitGate, err = askPolicy[config.GitGate](ctx, b, has, RoleGitGate); err != nil {
		return p, err
	}
	p.Supervise, err = askPolicy[config.Supervise](ctx, b, has, RoleSupervise)
	return p, err
}

// needSidecars returns the bottle's sidecars. A bottle without any is of KindNotFound: it
// has not what is asked for.
func (b *Bottle) needSidecars(ctx context.Context, what string) ([]Sidecar, error) {
	list, err := b.Sidecars(ctx)
	if err == nil && len(list) == 0 {
		err = Errorf(KindNotFound, "bottle %s has no way out: it was launched without egress and without git, so there is no %s", b.Name, what)
	}
	return list, err
}

// hasSidecars returns the same by role.
func (b *Bottle) hasSidecars(ctx context.Context, what string) (map[string]Sidecar, error) {
	list, err := b.needSidecars(ctx, what)
	has := map[string]Sidecar{}
	for _, s := range list {
		has[s.Role] = s
	}
	return has, err
}

// askPolicy asks a sidecar, if there is one of the role, for what it has in force.
func askPolicy[T any](ctx context.Context, b *Bottle, has map[string]Sidecar, role string) (*T, error) {
	s, ok := has[role]
	if !ok {
		return nil, nil
	}
	out := &cappedBuffer{max: maxAnswer}
	if err := b.ask(ctx, s, []string{"policy", "show"}, nil, out); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(out.Bytes()))
	d.DisallowUnknownFields() // what is not known here would be lost when it is put back
	into := new(T)
	if err := d.Decode(into); err != nil {
		return nil, fmt.Errorf("the %s of bottle %s was not launched by this version of bottle: %w", roleText(role), b.Name, err)
	}
	return into, nil
}

// Verdict is what a bottle's policy says about a request.
type Verdict struct {
	// Decision is "allow" or "deny".
	Decision string `json:"decision"`
	// Sidecar is the role of the one that decides: with an egress proxy that allows it,
	// the firewall has the last word.
	Sidecar string `json:"sidecar"`
	// Rule is the id of the rule that decides.
	Rule   string `json:"rule"`
	Reason string `json:"reason,omitempty"`
	Host   string `json:"host,omitempty"`
	Port   uint16 `json:"port,omitempty"`
	Path   string `json:"path,omitempty"`
	// Inject is the name of the token that would be injected.
	Inject string `json:"inject,omitempty"`
}

// Allowed reports whether the request would be sent.
func (v Verdict) Allowed() bool { return v.Decision == "allow" }

// statusDenied is the sidecar program's exit status for a request that would be denied.
const statusDenied = 4

// TestPolicy says which rule decides about a request, without sending it. What a scan
// of it would find, and where its name leads, is not known. The methods FETCH and PUSH are
// git's: the URL is a repository's, for PUSH with the full name of a reference after #.
func (b *Bottle) TestPolicy(ctx context.Context, method, url string) (Verdict, error) {
	has, err := b.hasSidecars(ctx, "policy")
	if err != nil {
		return Verdict{}, err
	}
	gate, hasGate := has[RoleGitGate]
	firewall, hasFirewall := has[RoleFirewall]
	proxy, hasProxy := has[RoleEgressProxy]
	switch method = strings.ToUpper(method); {
	case method == "FETCH" || method == "PUSH":
		if !hasGate {
			return Verdict{}, Errorf(KindNotFound, "bottle %s has no git gate: it was launched without git", b.Name)
		}
		return b.testIn(ctx, gate, method, url)
	case !hasFirewall:
		return Verdict{}, Errorf(KindNotFound, "bottle %s has no way out but git: FETCH and PUSH can be tried", b.Name)
	case !hasProxy:
		return b.testIn(ctx, firewall, method, url)
	}
	v, err := b.testIn(ctx, proxy, method, url)
	if err != nil || !v.Allowed() {
		return v, err
	}
	last, err := b.testIn(ctx, firewall, method, url)
	if err != nil || !last.Allowed() {
		return last, err
	}
	return v, nil
}

func (b *Bottle) testIn(ctx context.Context, s Sidecar, method, url string) (Verdict, error) {
	v := Verdict{}
	out := &cappedBuffer{max: maxAnswer}
	err := b.ask(ctx, s, []string{"policy", "test", "--", method, url}, nil, out)
	var refused *AskError
	if err != nil && (!errors.As(err, &refused) || refused.Status != statusDenied) {
		return v, err
	}
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		return v, fmt.Errorf("the %s gave no verdict: %w", roleText(s.Role), err)
	}
	v.Sidecar = s.Role
	return v, nil
}

// cappedBuffer keeps what is written up to a size, and refuses more.
type cappedBuffer struct {
	bytes.Buffer
	max int
}

func (b *cappedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > b.max {
		return 0, fmt.Errorf("it is longer than %d bytes", b.max)
	}
	return b.Buffer.Write(p)
}
