package core

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/hashicorp/go-multierror"

	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/core/gitgate"
	"github.com/bottle-run/bottle/core/manifest"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/delivery"
	"github.com/bottle-run/bottle/sidecar/secrets"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
)

// SetPolicy puts the sections egress and git of data into force, in the forms that
// [manifest.ParsePolicy] reads; file is its name in errors. One that is not given stays as
// it is. Everything is checked as when a bottle is planned. New tokens are taken from the
// host's variables; those that the bottle has already need not be set if they go to no new
// host. Of git, what may be pushed and fetched can change (see [gitgate.Change]). On an error
// the old policy stays in force.
//
// Between the changes of its sidecars a request needs the leave of both policies.
func (b *Bottle) SetPolicy(ctx context.Context, file string, data []byte, host Host) error {
	section, err := manifest.ParsePolicy(file, data, b.Agent)
	if err != nil {
		return err
	}
	live, err := b.Policy(ctx)
	if err != nil {
		return err
	}
	changes, err := changed(section, live, host)
	if err != nil {
		return err
	}
	var told *config.Supervise // nil if there is no supervise sidecar, or nothing new for it
	if live.Supervise != nil {
		c := *live.Supervise
		if c.Policy = policyAfter(live, changes); change.Revision(c.Policy) != change.Revision(live.Supervise.Policy) {
			told = &c
			// Last: what it calls the policy is in force.
			changes = append(changes, alteration{role: RoleSupervise, before: live.Supervise, after: told})
		}
	}
	if err := b.alter(ctx, changes); err != nil || told == nil {
		return err
	}
	return b.tellAgent(ctx, told)
}

// ErrOtherPolicy is of a policy that was made of another one than is in force.
var ErrOtherPolicy = errors.New("another policy is in force by now")

// ApplyPolicy brings a policy into force that the supervise sidecar has made of the one with
// a revision, on all other sidecars; what is its name in errors. If the revision is not that
// of the policy in force, it fails with [ErrOtherPolicy]. Another Dockerfile is built first: the
// image takes effect with [Bottle.Restart]. For the rest it is as
// [Bottle.SetPolicy].
func (b *Bottle) ApplyPolicy(ctx context.Context, what, revision string, p config.Policy, host Host) error {
	live, err := b.Policy(ctx)
	if err != nil {
		return err
	}
	if live.Supervise == nil {
		return Errorf(KindNotFound, "bottle %s was launched without supervise", b.Name)
	}
	if change.Revision(live.Supervise.Policy) != revision {
		return &Error{Kind: KindInput, Err: ErrOtherPolicy}
	}
	if err := b.applyDockerfile(ctx, live.Supervise, p); err != nil {
		return err
	}
	same := p
	same.Dockerfile = live.Supervise.Policy.Dockerfile
	if change.Revision(same) != revision {
		if err := b.applySection(ctx, what, live, p, host); err != nil {
			return err
		}
	}
	told := *live.Supervise
	told.Policy = p
	return b.tellAgent(ctx, &told)
}

// applySection brings all of a policy but its Dockerfile into force.
func (b *Bottle) applySection(ctx context.Context, what string, live LivePolicy, p config.Policy, host Host) error {
	data, err := live.with(p).Section()
	if err != nil {
		return err
	}
	section, err := manifest.ParsePolicy(what, data, b.Agent)
	if err != nil {
		return err
	}
	changes, err := changed(section, live, host)
	if err != nil {
		return err
	}
	return b.alter(ctx, changes)
}

// with is the policy with what is to come into force. Only what it has can change.
func (p LivePolicy) with(next config.Policy) LivePolicy {
	switch {
	case p.EgressProxy != nil:
		c := *p.EgressProxy
		c.AllowAll, c.Allow, c.Routes = next.AllowAll, next.Allow, next.Routes
		p.EgressProxy = &c
	case p.Firewall != nil:
		c := *p.Firewall
		c.AllowAll, c.Allow = next.AllowAll, next.Allow
		p.Firewall = &c
	}
	if p.GitGate != nil {
		c := *p.GitGate
		c.Repositories = slices.Clone(c.Repositories)
		for i, r := range c.Repositories {
			if j := slices.IndexFunc(next.Git, func(g config.GitRule) bool { return g.Name == r.Name }); j >= 0 {
				c.Repositories[i].Push = next.Git[j].Push
			}
		}
		p.GitGate = &c
	}
	return p
}

// policyAfter is what the agent may do when changes have been made.
func policyAfter(live LivePolicy, changes []alteration) config.Policy {
	for _, c := range changes {
		switch after := c.after.(type) {
		case *config.Firewall:
			live.Firewall = after
		case *config.EgressProxy:
			live.EgressProxy = after
		case *config.GitGate:
			live.GitGate = after
		}
	}
	return live.allowed()
}

// tellAgent replaces the agent's copy of its policy.
func (b *Bottle) tellAgent(ctx context.Context, c *config.Supervise) error {
	if err := sharePolicy(ctx, b.rt, b.agent(), c); err != nil {
		return fmt.Errorf("the policy is in force, but the agent's copy of it is not renewed: %w", err)
	}
	return nil
}

// alter makes changes, all or none.
func (b *Bottle) alter(ctx context.Context, changes []alteration) error {
	for i, c := range changes {
		err := b.putConfig(ctx, c.role, c.after, c.secrets)
		if err == nil {
			continue
		}
		back, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTime)
		defer cancel()
		for _, done := range slices.Backward(changes[:i]) {
			if undone := b.putConfig(back, done.role, done.before, nil); undone != nil {
				err = fmt.Errorf("%w\nand the %s has the new policy already: %w", err, roleText(done.role), undone)
			}
		}
		return err
	}
	return nil
}

// alteration is of one sidecar's configuration.
type alteration struct {
	role          string
	before, after any
	secrets       []secrets.Secret
}

// changed makes the changes that put a section into force in a bottle that runs.
func changed(section *manifest.Section, live LivePolicy, host Host) ([]alteration, error) {
	var errs *multierror.Error
	fail := func(keys []string, format string, args ...any) {
		errs = multierror.Append(errs, section.Errorf(keys, format, args...))
	}
	var changes []alteration
	var tokens map[string]string
	switch {
	case section.Egress == nil:
	case live.Firewall == nil:
		fail([]string{"egress"}, "egress: the bottle was launched without egress, so no firewall runs in it: launch it again")
	default:
		changes, tokens = changedEgress(section.Egress, live, host, fail)
	}
	switch {
	case section.Git != nil && live.GitGate == nil:
		fail([]string{"git"}, "git: the bottle was launched without git, so no git gate runs in it: launch it again")
	case live.GitGate != nil:
		after := live.GitGate
		if section.Git != nil {
			after = gitgate.Change(live.GitGate, section.Git, fail)
		}
		if section.Git == nil && len(tokens) == 0 {
			break
		}
		// What is new must not be pushed either.
		c := alteration{role: RoleGitGate, before: live.GitGate, after: after}
		for _, name := range slices.Sorted(maps.Keys(tokens)) {
			c.secrets = append(c.secrets, secrets.Secret{Name: name, Value: secrets.Value(tokens[name])})
		}
		changes = append(changes, c)
	}
	if err := errs.ErrorOrNil(); err != nil {
		errs.ErrorFormat = joinLines
		return nil, &Error{Kind: KindInput, Err: err}
	}
	return changes, nil
}

// changedEgress makes the changes of the firewall and of the egress proxy, and finds the
// tokens that the bottle does not have yet.
func changedEgress(section *manifest.Egress, live LivePolicy, host Host, fail func(keys []string, format string, args ...any)) ([]alteration, map[string]string) {
	before := map[string][]string{} // token to hosts
	if live.EgressProxy != nil {
		before = egress.TokenHosts(live.EgressProxy.Routes)
	} else if len(section.Routes) > 0 {
		fail([]string{"egress", "routes"}, "routes: the bottle was launched without routes, so no egress proxy runs in it: launch it again")
	}
	kept := map[string]bool{}
	good := true
	p, tokens := egress.New(egress.Source{
		Egress: section,
		LookupEnv: func(name string) (string, bool) {
			if value, ok := host.LookupEnv(name); ok {
				return value, true
			}
			_, known := before[name]
			kept[name] = known
			return "kept", known // it is not delivered again
		},
		Fail: func(keys []string, format string, args ...any) {
			good = false
			fail(keys, format, args...)
		},
	})
	if good && live.GitGate != nil {
		for _, r := range live.GitGate.Repositories {
			if _, err := gitgate.Bypass(r.Name, r.URL, p); err != nil {
				fail([]string{"egress", "routes"}, "routes: %v", err)
			}
		}
	}
	after := egress.TokenHosts(p.Routes)
	for i, r := range p.Routes {
		if r.Credential == nil || !kept[r.Credential.Secret] {
			continue
		}
		name := r.Credential.Secret
		delete(tokens, name)
		for _, h := range after[name] {
			if !slices.Contains(before[name], h) {
				fail([]string{"egress", "routes", fmt.Sprint(i), "credential", "token"}, "token: %s may not go to %s yet, and to change that its value is needed: export it", name, h)
				break
			}
		}
	}
	values := egress.Values{Tokens: tokens}
	firewall := *live.Firewall
	p.ApplyFirewall(&firewall)
	changes := []alteration{{RoleFirewall, live.Firewall, &firewall, p.FirewallSecrets(values)}}
	if live.EgressProxy != nil {
		proxy := *live.EgressProxy
		p.ApplyEgressProxy(&proxy)
		changes = append(changes, alteration{RoleEgressProxy, live.EgressProxy, &proxy, p.EgressProxySecrets(values)})
	}
	return changes, tokens
}

// putConfig puts a configuration, and secrets that have values, into force in a sidecar.
func (b *Bottle) putConfig(ctx context.Context, role string, c any, list []secrets.Secret) error {
	encoded, err := json.Marshal(c)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(s secrets.Secret) bool { return s.Value == "" })
	doc, err := delivery.Document{Config: encoded, Secrets: list}.Encode()
	if err != nil {
		return err
	}
	if err := b.AskSidecar(ctx, role, []string{"put", "--wait"}, bytes.NewReader(doc), io.Discard); err != nil {
		var refused *AskError
		if errors.As(err, &refused) {
			return Errorf(KindInput, "the old policy stays in force: %w", err)
		}
		return err
	}
	return nil
}
