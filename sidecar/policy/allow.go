package policy

import (
	"fmt"
	"slices"
)

// Rule ids of decisions that no rule of the operator's made.
const (
	RuleAllowAll = "allow-all"
	RuleDefault  = "default-deny"
	RuleNoRoute  = "no-route"
	RulePath     = "ambiguous-path"
	RuleMethod   = "ambiguous-method"
)

// Decision says what is to be done with a request, and which rule says so.
type Decision struct {
	Allow bool
	// Rule is the id of the rule that decided.
	Rule string
	// Reason is a sentence for the reader of a denial.
	Reason string
	// Route is the route that allowed, if routes were asked.
	Route *Route
}

// Rule allows a host on some ports.
type Rule struct {
	// ID names the rule in audit logs and denials. Default: "allow:" and the host.
	ID string `json:"id,omitempty"`
	// Host is a name, an address or *.NAME. It may carry a port.
	Host string `json:"host"`
	// Ports are the ports that may be dialled. Default: 443 and 80.
	Ports []uint16 `json:"ports,omitempty"`
}

// Allowlist is a set of compiled rules. The zero value denies everything.
type Allowlist struct {
	all   bool
	exact map[string][]*allowed
	wild  []*allowed
}

type allowed struct {
	id    string
	host  HostPattern
	ports []uint16
}

// NewAllowlist compiles rules. With allowAll, what no rule matches is allowed too.
// Errors are of type [*FieldError].
func NewAllowlist(allowAll bool, rules []Rule) (*Allowlist, error) {
	l := &Allowlist{all: allowAll, exact: map[string][]*allowed{}}
	for i, r := range rules {
		host, ports, field, err := hostPort(r.Host, r.Ports, []uint16{80, 443})
		if err != nil {
			return nil, fieldError(i, field, err)
		}
		a := &allowed{id: r.ID, host: host, ports: ports}
		if a.id == "" {
			a.id = "allow:" + host.String()
		}
		if name, ok := host.Exact(); ok {
			l.exact[name] = append(l.exact[name], a)
		} else {
			l.wild = append(l.wild, a)
		}
	}
	return l, nil
}

// Decide says whether a host, in canonical form, may be reached on a port.
func (l *Allowlist) Decide(host string, port uint16) Decision {
	if l == nil {
		l = &Allowlist{}
	}
	known := false
	for _, a := range l.exact[host] {
		if slices.Contains(a.ports, port) {
			return Decision{Allow: true, Rule: a.id}
		}
		known = true
	}
	for _, a := range l.wild {
		if !a.host.Match(host) {
			continue
		}
		if slices.Contains(a.ports, port) {
			return Decision{Allow: true, Rule: a.id}
		}
		known = true
	}
	switch {
	case l.all:
		return Decision{Allow: true, Rule: RuleAllowAll}
	case known:
		return Decision{Rule: RuleDefault, Reason: fmt.Sprintf("%s is allowed, but not on port %d", host, port)}
	}
	return Decision{Rule: RuleDefault, Reason: fmt.Sprintf("%s is not in the allowlist", host)}
}

// Hosts returns the names that are allowed exactly, for certificates to be minted
// ahead.
func (l *Allowlist) Hosts() []string {
	var hosts []string
	for name := range l.exact {
		hosts = append(hosts, name)
	}
	slices.Sort(hosts)
	return hosts
}
