// Package effect says in words what one policy permits that another does not.
//
// It is pure, and errs on one side only: what is not certainly permitted by the old policy
// is said to be new. It speaks of what the sidecars decide, not of what an upstream does.
package effect

import (
	"fmt"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/supervise/show"
)

// Effect is the difference of two policies.
type Effect struct {
	// Permits is what becomes possible, Revokes what no longer is.
	Permits []Item `json:"permits"`
	Revokes []Item `json:"revokes"`
}

// Item is one thing that is permitted. Its texts are escaped.
type Item struct {
	// Text is a sentence without a full stop, such as "requests of every method and path
	// to example.com on port 443".
	Text string `json:"text"`
	// Warnings are what a hurried reader would miss.
	Warnings []string `json:"warnings,omitempty"`

	Host    string   `json:"host,omitempty"`
	Ports   []uint16 `json:"ports,omitempty"`
	Methods []string `json:"methods,omitempty"`
	Paths   []string `json:"paths,omitempty"`
	// Secret is the name of the secret that is attached to what is sent.
	Secret string `json:"secret,omitempty"`
	// Wildcard is whether it is about more than one host or every branch.
	Wildcard bool `json:"wildcard,omitempty"`
	// Repository is the git gate's name of a repository.
	Repository string `json:"repository,omitempty"`
}

// Compare says what changes from one policy to another. Both have to be valid.
func Compare(before, after config.Policy) Effect {
	before.Routes, after.Routes = routesOf(before.Routes), routesOf(after.Routes)
	e := Effect{Permits: permits(before, after), Revokes: permits(after, before)}
	if before.Dockerfile != after.Dockerfile {
		e.Permits = append(e.Permits, dockerfile(before.Dockerfile, after.Dockerfile))
	}
	return e
}

func permits(before, after config.Policy) []Item {
	c := comparison{before: before, after: after}
	for _, p := range []config.Policy{before, after} {
		for _, r := range p.Allow {
			c.known = append(c.known, hostOf(r.Host).String())
		}
		for _, r := range p.Routes {
			c.known = append(c.known, hostOf(r.Host).String())
		}
	}
	c.allow()
	c.routes()
	c.git()
	if c.items == nil {
		return []Item{}
	}
	return c.items
}

type comparison struct {
	before, after config.Policy
	known         []string
	items         []Item
}

func (c *comparison) add(i Item, pattern string) {
	if pattern != "" {
		i.Host = pattern
		i.Wildcard = i.Wildcard || strings.HasPrefix(pattern, "*")
		i.Warnings = append(show.NewHost(pattern, c.known).Warnings, i.Warnings...)
	}
	c.items = append(c.items, i)
}

// everyPort stands for all ports in the comparison.
const everyPort = 0

// allow finds what the allowlist newly permits: it decides about what no route is about.
func (c *comparison) allow() {
	old := rulesOf(c.before)
	for _, r := range rulesOf(c.after) {
		var ports []uint16
		for _, p := range r.ports {
			if governed(c.after.Routes, r.host, p) {
				continue
			}
			covered := slices.ContainsFunc(old, func(o rule) bool { return o.host.covers(r.host) && o.has(p) })
			if covered {
				c.ungoverned(r, p)
				continue
			}
			ports = append(ports, p)
		}
		if len(ports) == 0 {
			continue
		}
		name := r.host.String()
		item := Item{Ports: ports, Text: fmt.Sprintf("requests of every method and path to %s on %s, with the credentials that the agent itself sends", hostText(name), portsText(ports))}
		if ports[0] == everyPort {
			item.Ports = nil
		}
		if slices.Contains(ports, 80) {
			item.Warnings = append(item.Warnings, "port 80 is not encrypted: everybody on the way can read and change what is sent")
		}
		c.add(item, name)
	}
}

// ungoverned finds what an allowlist that is the same permits because routes are gone that
// decided about it.
func (c *comparison) ungoverned(r rule, port uint16) {
	for _, o := range c.before.Routes {
		host := hostOf(o.Host)
		if !host.overlaps(r.host) {
			continue
		}
		part := host
		if host.covers(r.host) {
			part = r.host
		}
		for _, p := range portsOf(o.Ports, 443) {
			if port != everyPort && p != port || governed(c.after.Routes, part, p) {
				continue
			}
			name := part.String()
			c.add(Item{Ports: []uint16{p}, Text: fmt.Sprintf("requests of every method and path to %s on %s: the allowlist names it, and routes decided about it so far", hostText(name), portsText([]uint16{p}))}, name)
		}
	}
}

// fresh is how a route's requests are new.
type fresh int

const (
	not      fresh = iota
	request        // they were not possible
	attached       // they were, without this credential
	passed         // they were, without the agent's own credentials
)

// routes finds what routes newly permit.
func (c *comparison) routes() {
	for _, r := range c.after.Routes {
		paths := r.Paths
		if len(paths) == 0 {
			paths = []string{"/**"}
		}
		type found struct {
			ports []uint16
			paths []string
			how   fresh
		}
		var groups []found
		for _, p := range portsOf(r.Ports, 443) {
			by := map[fresh][]string{}
			for _, path := range paths {
				how := c.routed(r, p, path)
				by[how] = append(by[how], path)
			}
			for _, how := range []fresh{request, attached, passed} {
				if len(by[how]) == 0 {
					continue
				}
				i := slices.IndexFunc(groups, func(f found) bool { return f.how == how && slices.Equal(f.paths, by[how]) })
				if i < 0 {
					groups, i = append(groups, found{nil, by[how], how}), len(groups)
				}
				groups[i].ports = append(groups[i].ports, p)
			}
		}
		name := hostOf(r.Host).String()
		for _, g := range groups {
			item := Item{Ports: g.ports, Methods: r.Methods, Paths: g.paths}
			what := fmt.Sprintf("%s to %s on %s, paths %s", methodsText(r.Methods), hostText(name), portsText(g.ports), pathsText(g.paths))
			if cr := r.Credential; cr != nil {
				item.Secret = cr.Secret
				item.Warnings = append(item.Warnings, c.secretWarnings(cr.Secret, name)...)
				if slices.ContainsFunc(g.ports, func(p uint16) bool { return p == 80 }) {
					item.Warnings = append(item.Warnings, "the secret travels unencrypted on port 80")
				}
				with := fmt.Sprintf("the secret %s attached %s", show.Line(cr.Secret), credentialText(*cr))
				if g.how == attached {
					item.Text = fmt.Sprintf("%s: they were possible, and now have %s", what, with)
				} else {
					item.Text = what + ", with " + with
				}
			} else {
				switch {
				case g.how == passed:
					item.Text = what + ": they were possible, and now keep the credentials that the agent itself sends"
				case r.PassCredentials:
					item.Text = what + ", with the credentials that the agent itself sends"
				default:
					item.Text = what + ", without any credential"
				}
			}
			c.add(item, name)
		}
	}
}

// routed says how the requests of a route, to one port and along one pattern of paths, are
// new.
func (c *comparison) routed(r policy.Route, port uint16, path string) fresh {
	host := hostOf(r.Host)
	before, about := false, false
	for _, o := range c.before.Routes {
		oh := hostOf(o.Host)
		if !slices.Contains(portsOf(o.Ports, 443), port) || !oh.overlaps(host) {
			continue
		}
		about = true
		if !oh.covers(host) || !methodsCover(o.Methods, r.Methods) || !pathsCover(o.Paths, path) {
			continue
		}
		if sameCredential(o, r) {
			return not
		}
		before = true
	}
	if !about {
		before = slices.ContainsFunc(rulesOf(c.before), func(o rule) bool { return o.host.covers(host) && o.has(port) })
	}
	switch {
	case !before:
		return request
	case r.Credential != nil:
		return attached
	case r.PassCredentials && about:
		return passed
	}
	return not
}

// secretWarnings says where a secret goes that it did not go before.
func (c *comparison) secretWarnings(secret, host string) []string {
	var hosts []string
	for _, r := range c.before.Routes {
		if r.Credential == nil || r.Credential.Secret != secret {
			continue
		}
		name := hostOf(r.Host)
		if name.covers(hostOf(host)) {
			return nil
		}
		hosts = append(hosts, show.Line(name.String()))
	}
	if len(hosts) == 0 {
		return []string{fmt.Sprintf("SECRET: %s goes to %s, and was not attached to anything so far", show.Line(secret), host)}
	}
	slices.Sort(hosts)
	return []string{fmt.Sprintf("SECRET: %s goes to %s, and went to %s alone so far", show.Line(secret), host, strings.Join(slices.Compact(hosts), ", "))}
}

func sameCredential(a, b policy.Route) bool {
	if a.Credential == nil || b.Credential == nil {
		return a.Credential == b.Credential && (a.PassCredentials || !b.PassCredentials)
	}
	return normal(*a.Credential) == normal(*b.Credential)
}

// normal fills in the defaults, as package policy has them.
func normal(c policy.Credential) policy.Credential {
	if c.Kind == policy.CredentialHeader {
		if c.Header == "" {
			c.Header = "Authorization"
		}
		if c.Scheme == "" && strings.EqualFold(c.Header, "Authorization") {
			c.Scheme = "Bearer"
		}
	}
	return c
}
