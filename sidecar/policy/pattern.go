package policy

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// HostPattern is a name, an address, or *.NAME, which matches every name below NAME
// at any depth but not NAME itself.
type HostPattern struct {
	name     string // canonical; without the "*."
	wildcard bool
	all      bool
}

// privateTLDs may stand alone after "*.": nobody on the internet can register below
// them.
var privateTLDs = []string{"corp", "example", "home", "internal", "intranet", "lan", "local", "localhost", "private", "test"}

// ParseHostPattern reads a pattern. Unicode names are converted to their A-labels. A
// wildcard with nothing, or only a public top level domain, below it is refused: it
// would match everything, and allow_all says that more plainly.
func ParseHostPattern(s string) (HostPattern, error) {
	base, wildcard := strings.CutPrefix(s, "*.")
	if wildcard && base == "" || s != "" && strings.Trim(s, "*.") == "" {
		return HostPattern{}, fmt.Errorf("pattern %q matches every host: set allow_all: true if that is meant", s)
	}
	if strings.Contains(base, "*") {
		return HostPattern{}, fmt.Errorf("pattern %q: a wildcard can only be the whole first label, as in *.example.com", s)
	}
	if strings.ContainsAny(base, "/@?#") || strings.Contains(base, "://") {
		return HostPattern{}, fmt.Errorf("pattern %q is no host: give the name alone, without a scheme, user or path", s)
	}
	name, err := canonicalConfigHost(base)
	if err != nil {
		return HostPattern{}, err
	}
	if !wildcard {
		return HostPattern{name: name}, nil
	}
	if _, err := netip.ParseAddr(name); err == nil {
		return HostPattern{}, fmt.Errorf("pattern %q: an address has no names below it", s)
	}
	if !strings.Contains(name, ".") && !slices.Contains(privateTLDs, name) {
		return HostPattern{}, fmt.Errorf("pattern %q matches a whole top level domain: name the domains that are meant, or set allow_all: true", s)
	}
	return HostPattern{name: name, wildcard: true}, nil
}

// Match reports whether a host in canonical form is meant.
func (p HostPattern) Match(host string) bool {
	if p.all {
		return true
	}
	if !p.wildcard {
		return host == p.name
	}
	return len(host) > len(p.name)+1 && strings.HasSuffix(host, p.name) && host[len(host)-len(p.name)-1] == '.'
}

// Exact returns the host that the pattern is, if it is no wildcard.
func (p HostPattern) Exact() (string, bool) { return p.name, !p.wildcard && !p.all }

// String returns the pattern in canonical form.
func (p HostPattern) String() string {
	switch {
	case p.all:
		return "*"
	case p.wildcard:
		return "*." + p.name
	}
	return p.name
}

// overlaps reports whether some host matches both.
func (p HostPattern) overlaps(q HostPattern) bool {
	switch {
	case p.all || q.all:
		return true
	case !p.wildcard:
		return q.Match(p.name)
	case !q.wildcard:
		return p.Match(q.name)
	}
	return p.name == q.name || p.Match(q.name) || q.Match(p.name)
}

// FieldError is a mistake in a rule, and where it is.
type FieldError struct {
	// Path leads to the value from the list that was compiled, such as
	// "[2].credential.secret".
	Path string
	Err  error
}

func (e *FieldError) Error() string { return e.Path + ": " + e.Err.Error() }

// Unwrap returns the mistake.
func (e *FieldError) Unwrap() error { return e.Err }

func fieldError(index int, field string, err error) error {
	if field != "" {
		field = "." + field
	}
	return &FieldError{Path: fmt.Sprintf("[%d]%s", index, field), Err: err}
}

// hostPort reads the host of a rule, which may carry a port, and its list of ports.
func hostPort(host string, ports []uint16, defaults []uint16) (HostPattern, []uint16, string, error) {
	if name, number, ok := cutPort(host); ok {
		if len(ports) > 0 {
			return HostPattern{}, nil, "ports", errors.New("the host carries a port as well: say it once")
		}
		port, err := parsePort(number)
		if err != nil {
			return HostPattern{}, nil, "host", err
		}
		host, ports = name, []uint16{port}
	}
	pattern, err := ParseHostPattern(host)
	if err != nil {
		return HostPattern{}, nil, "host", err
	}
	if slices.Contains(ports, 0) {
		return HostPattern{}, nil, "ports", errors.New("0 is no port")
	}
	if len(ports) == 0 {
		ports = defaults
	}
	ports = slices.Clone(ports)
	slices.Sort(ports)
	return pattern, slices.Compact(ports), "", nil
}

// Address returns what a route leads to: the host, without the port that it may carry, and
// the ports.
func (r Route) Address() (HostPattern, []uint16, error) {
	host, ports, _, err := hostPort(r.Host, r.Ports, []uint16{443})
	return host, ports, err
}

func cutPort(host string) (name, port string, ok bool) {
	if strings.HasPrefix(host, "[") {
		end := strings.LastIndex(host, "]:")
		if end < 0 {
			return host, "", false
		}
		return host[:end+1], host[end+2:], true
	}
	if strings.Count(host, ":") != 1 || strings.Contains(host, "://") {
		return host, "", false
	}
	return strings.Cut(host, ":")
}
