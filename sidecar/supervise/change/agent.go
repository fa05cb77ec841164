package change

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/netguard"
	"github.com/bottle-run/bottle/sidecar/policy"
)

// own are names of a bottle's sidecars and of the container itself: no rule can be about
// them.
var own = []string{"firewall", "egress-proxy", "git-gate", "supervise", "localhost"}

// CheckReason says whether a reason is one.
func CheckReason(reason string) error {
	switch {
	case strings.TrimSpace(reason) == "":
		return errors.New("the reason is missing: say what the change is needed for, the operator decides by it")
	case len(reason) > MaxReason:
		return fmt.Errorf("the reason has %d bytes, and %d are allowed", len(reason), MaxReason)
	case !utf8.ValidString(reason):
		return errors.New("the reason is no valid UTF-8")
	}
	return nil
}

// CheckAgent refuses what an agent may not propose although an operator may decide it:
// kinds that the configuration leaves out, secrets that it does not name, ids of its own,
// addresses that are not public, and the bottle's own sidecars.
func (c Change) CheckAgent(conf *config.Supervise) error {
	if err := c.check(); err != nil {
		return &Error{err}
	}
	if conf.Kinds != nil && !slices.Contains(conf.Kinds, c.Kind) {
		return failf("changes of kind %s cannot be proposed in this bottle", c.Kind)
	}
	switch c.Kind {
	case config.ProposeAllow:
		for i, r := range slices.Concat(c.Allow.Add, deref(c.Allow.Replace)) {
			if err := agentHost(r.Host, r.Ports, conf.AllowCIDRs); err != nil {
				return &Error{&policy.FieldError{Path: fmt.Sprintf("[%d].host", i), Err: err}}
			}
			if err := agentID(r.ID, conf.Policy.Allow, func(p policy.Rule) string { return p.ID }); err != nil {
				return &Error{&policy.FieldError{Path: fmt.Sprintf("[%d].id", i), Err: err}}
			}
		}
	case config.ProposeRoutes:
		for i, r := range slices.Concat(c.Routes.Add, deref(c.Routes.Replace)) {
			if err := agentHost(r.Host, r.Ports, conf.AllowCIDRs); err != nil {
				return &Error{&policy.FieldError{Path: fmt.Sprintf("[%d].host", i), Err: err}}
			}
			if err := agentID(r.ID, conf.Policy.Routes, func(p policy.Route) string { return p.ID }); err != nil {
				return &Error{&policy.FieldError{Path: fmt.Sprintf("[%d].id", i), Err: err}}
			}
			if cr := r.Credential; cr != nil && !slices.Contains(conf.Secrets, cr.Secret) {
				return &Error{&policy.FieldError{Path: fmt.Sprintf("[%d].credential.secret", i), Err: fmt.Errorf(
					"this bottle has no secret %q: propose the route without a credential and say in the reason which one it needs, the operator can add it", cr.Secret)}}
			}
		}
	}
	return nil
}

// agentID refuses an id that is not one of the policy's: the audit log is not the agent's
// to write.
func agentID[T any](id string, list []T, of func(T) string) error {
	if id != "" && !slices.ContainsFunc(list, func(v T) bool { return of(v) == id }) {
		return errors.New("ids of new entries are given by bottle: leave it out")
	}
	return nil
}

func agentHost(host string, ports []uint16, allowed []netip.Prefix) error {
	name, _, err := rule(host, ports)
	if err != nil {
		return err
	}
	base := strings.TrimPrefix(name, "*.")
	for _, o := range own {
		if base == o || strings.HasSuffix(base, "."+o) {
			return fmt.Errorf("%s is part of the bottle itself: no rule can be about it", base)
		}
	}
	if addr, err := netip.ParseAddr(name); err == nil && !slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Contains(addr) }) {
		if class := netguard.Classify(addr); class != "" {
			return fmt.Errorf("%s is not reached whatever the allowlist says: it is a %s address. Ask the operator to add it to allow_cidrs of the manifest if it is needed", addr, class)
		}
	}
	return nil
}
