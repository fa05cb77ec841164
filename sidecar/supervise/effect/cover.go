package effect

import (
	"slices"
	"strings"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
)

// host is a pattern of hosts: "*", "*.name" or a name.
type host struct {
	name          string
	wildcard, all bool
}

// hostOf reads the host of a rule, without the port that it may carry. One that cannot be
// read covers nothing but itself: policies are valid, so there is none.
func hostOf(s string) host {
	if s == "*" {
		return host{all: true}
	}
	if strings.HasPrefix(s, "[") {
		if end := strings.IndexByte(s, ']'); end > 0 {
			s = s[1:end]
		}
	} else if strings.Count(s, ":") == 1 {
		s, _, _ = strings.Cut(s, ":")
	}
	p, err := policy.ParseHostPattern(s)
	if err != nil {
		return host{name: s}
	}
	name, wildcard := strings.CutPrefix(p.String(), "*.")
	return host{name: name, wildcard: wildcard}
}

func (h host) String() string {
	switch {
	case h.all:
		return "*"
	case h.wildcard:
		return "*." + h.name
	}
	return h.name
}

// covers reports whether every host of the other is one of h.
func (h host) covers(o host) bool {
	switch {
	case h.all:
		return true
	case o.all || o.wildcard && !h.wildcard:
		return false
	case !h.wildcard:
		return h.name == o.name
	}
	return o.wildcard && o.name == h.name || strings.HasSuffix(o.name, "."+h.name)
}

func (h host) overlaps(o host) bool { return h.covers(o) || o.covers(h) }

// rule is an entry of the allowlist.
type rule struct {
	host  host
	ports []uint16
}

func (r rule) has(port uint16) bool {
	return slices.Contains(r.ports, everyPort) || slices.Contains(r.ports, port)
}

// rulesOf returns the allowlist, with an entry for allow_all.
func rulesOf(p config.Policy) []rule {
	var rules []rule
	if p.AllowAll {
		rules = append(rules, rule{host{all: true}, []uint16{everyPort}})
	}
	for _, r := range p.Allow {
		ports := portsOf(r.Ports, 80, 443)
		if port := portIn(r.Host); port != 0 {
			ports = []uint16{port}
		}
		rules = append(rules, rule{hostOf(r.Host), ports})
	}
	return rules
}

// routesOf returns routes with the ports that their hosts carry.
func routesOf(list []policy.Route) []policy.Route {
	list = slices.Clone(list)
	for i, r := range list {
		if port := portIn(r.Host); port != 0 {
			list[i].Ports, list[i].Host = []uint16{port}, hostOf(r.Host).String()
		}
	}
	return list
}

func portIn(s string) uint16 {
	if !strings.HasPrefix(s, "[") && strings.Count(s, ":") != 1 {
		return 0
	}
	s = strings.TrimPrefix(s, "*.")
	if !strings.Contains(s, ":") || strings.HasSuffix(s, "]") {
		return 0
	}
	// A name of Unicode is no authority: only its port matters.
	_, port, err := policy.ParseAuthority("x"+s[strings.LastIndex(s, ":"):], 0)
	if err != nil {
		return 0
	}
	return port
}

func portsOf(ports []uint16, defaults ...uint16) []uint16 {
	if len(ports) == 0 {
		return defaults
	}
	ports = slices.Clone(ports)
	slices.Sort(ports)
	return slices.Compact(ports)
}

// governed reports whether routes decide about every host of a pattern on a port.
func governed(routes []policy.Route, h host, port uint16) bool {
	return slices.ContainsFunc(routes, func(r policy.Route) bool {
		return slices.Contains(portsOf(r.Ports, 443), port) && hostOf(r.Host).covers(h)
	})
}

func methodsCover(old, now []string) bool {
	if len(old) == 0 {
		return true
	}
	return len(now) > 0 && !slices.ContainsFunc(now, func(m string) bool {
		return !slices.ContainsFunc(old, func(o string) bool { return strings.EqualFold(o, m) })
	})
}

// pathsCover reports whether one of the old patterns certainly matches all that a pattern
// does.
func pathsCover(old []string, path string) bool {
	return len(old) == 0 || slices.ContainsFunc(old, func(o string) bool { return pathCovers(o, path) })
}

func pathCovers(old, path string) bool {
	if old == path || old == "/**" {
		return true
	}
	prefix, deep := strings.CutSuffix(old, "/**")
	if !deep || strings.ContainsAny(prefix, "*%") {
		return false
	}
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// patternCovers is the same for names of branches and tags, where ** crosses slashes.
func patternCovers(old, now string) bool {
	if old == now || old == "**" {
		return true
	}
	prefix, deep := strings.CutSuffix(old, "**")
	if deep && !strings.Contains(prefix, "*") {
		return strings.HasPrefix(now, prefix)
	}
	return old == "*" && !strings.Contains(now, "/") && !strings.Contains(now, "**")
}
