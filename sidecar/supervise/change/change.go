// Package change is what may be proposed: a change of a policy, relative to the one that is
// in force, so that it still means the same when another was made before it.
//
// It is pure. [Change.Apply] gives the policy that would be in force, checked by the code
// that enforces it; [Change.CheckAgent] refuses what an agent may not ask for. Errors say
// what to do, since an agent reads them, and their texts hold what the agent wrote: escape
// them before they are shown.
package change

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
)

// Bounds of a proposal.
const (
	// MaxBytes bounds a change, as JSON.
	MaxBytes = 128 << 10
	// MaxDockerfile bounds a Dockerfile, in bytes.
	MaxDockerfile = 64 << 10
	// MaxEntries bounds a list of entries, patterns or edits.
	MaxEntries = 100
	// MaxWhole bounds a whole new list.
	MaxWhole = 200
	// MaxName bounds a host, a name or one member of a credential, in bytes.
	MaxName = 512
	// MaxPaths bounds the paths and methods of all routes of a change together, in bytes:
	// whether routes overlap takes the product of their lengths to find out.
	MaxPaths = 4096
	// MaxReason bounds a reason, in bytes.
	MaxReason = 2000
)

// Change is one change. Exactly the member that Kind names is set.
type Change struct {
	// Kind is one of the kinds of package config.
	Kind       string      `json:"kind"`
	Allow      *Allow      `json:"egress_allow,omitempty"`
	Routes     *Routes     `json:"routes,omitempty"`
	GitPush    *GitPush    `json:"git_push,omitempty"`
	Dockerfile *Dockerfile `json:"dockerfile,omitempty"`
}

// Allow changes the allowlist: Replace stands alone, or Add and Remove do.
type Allow struct {
	Add []policy.Rule `json:"add,omitempty"`
	// Remove names rules by id or by host, as the policy has them.
	Remove []string `json:"remove,omitempty"`
	// Replace is the whole new list. Rules that are there keep their ids.
	Replace *[]policy.Rule `json:"replace,omitempty"`
}

// Routes changes the routes, as [Allow] does the allowlist.
type Routes struct {
	Add     []policy.Route  `json:"add,omitempty"`
	Remove  []string        `json:"remove,omitempty"`
	Replace *[]policy.Route `json:"replace,omitempty"`
}

// GitPush changes what may be pushed to a repository: Replace stands alone, or Add and
// Remove do.
type GitPush struct {
	Repository string `json:"repository"`
	// Add are patterns to add; a flag that is set is set in the rule.
	Add *config.GitPush `json:"add,omitempty"`
	// Remove are patterns to remove; a flag that is set is cleared in the rule.
	Remove  *config.GitPush `json:"remove,omitempty"`
	Replace *config.GitPush `json:"replace,omitempty"`
}

// Dockerfile changes the Dockerfile: Content stands alone, or Edits do.
type Dockerfile struct {
	Content string `json:"content,omitempty"`
	Edits   []Edit `json:"edits,omitempty"`
}

// Edit replaces a text that stands exactly once.
type Edit struct {
	Old string `json:"old_text"`
	New string `json:"new_text"`
}

// Decode reads a change strictly: unknown and repeated members, and what follows it, are
// errors.
func Decode(data []byte) (Change, error) {
	var c Change
	if len(data) > MaxBytes {
		return c, fmt.Errorf("the change has %d bytes, and %d are allowed", len(data), MaxBytes)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		return Change{}, fmt.Errorf("the change cannot be read: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Change{}, errors.New("the change cannot be read: something follows it")
	}
	return c, c.check()
}

// check says whether the change is well formed.
func (c Change) check() error {
	members := map[string]bool{
		config.ProposeAllow: c.Allow != nil, config.ProposeRoutes: c.Routes != nil,
		config.ProposeGitPush: c.GitPush != nil, config.ProposeDockerfile: c.Dockerfile != nil,
	}
	if _, ok := members[c.Kind]; !ok {
		return fmt.Errorf("kind %q is none of %s", c.Kind, strings.Join(config.ProposalKinds(), ", "))
	}
	for kind, set := range members {
		if set != (kind == c.Kind) {
			return fmt.Errorf("a change of kind %s has the member %s and no other", c.Kind, c.Kind)
		}
	}
	whole := func(replace bool, parts int, name string) error {
		switch {
		case replace == (parts > 0):
			return fmt.Errorf("give either the whole new %s or a change of it, not both and not neither", name)
		case parts > MaxEntries:
			return fmt.Errorf("at most %d entries may be changed at a time", MaxEntries)
		}
		return nil
	}
	switch c.Kind {
	case config.ProposeAllow:
		for _, r := range slices.Concat(c.Allow.Add, deref(c.Allow.Replace)) {
			if err := short(len(r.Ports), r.ID, r.Host); err != nil {
				return err
			}
		}
		if len(deref(c.Allow.Replace)) > MaxWhole {
			return fmt.Errorf("a whole new allowlist has at most %d entries", MaxWhole)
		}
		return whole(c.Allow.Replace != nil, len(c.Allow.Add)+len(c.Allow.Remove), "allowlist")
	case config.ProposeRoutes:
		bytes := 0
		for _, r := range slices.Concat(c.Routes.Add, deref(c.Routes.Replace)) {
			words := []string{r.ID, r.Host}
			if cr := r.Credential; cr != nil {
				words = append(words, cr.Secret, string(cr.Kind), cr.Header, cr.Scheme, cr.Username, cr.Parameter)
			}
			if err := short(len(r.Ports), words...); err != nil {
				return err
			}
			for _, s := range slices.Concat(r.Paths, r.Methods) {
				bytes += len(s) + 1
			}
		}
		if bytes > MaxPaths {
			return fmt.Errorf("the paths and methods of the routes have %d bytes together, and %d are allowed", bytes, MaxPaths)
		}
		if len(deref(c.Routes.Replace)) > MaxWhole {
			return fmt.Errorf("a whole new list of routes has at most %d", MaxWhole)
		}
		return whole(c.Routes.Replace != nil, len(c.Routes.Add)+len(c.Routes.Remove), "list of routes")
	case config.ProposeGitPush:
		for _, p := range []*config.GitPush{c.GitPush.Add, c.GitPush.Remove, c.GitPush.Replace} {
			if p != nil && len(p.Branches)+len(p.Tags)+len(p.Notes) > MaxEntries {
				return fmt.Errorf("at most %d patterns may be changed at a time", MaxEntries)
			}
		}
		n := 0
		if c.GitPush.Add != nil {
			n++
		}
		if c.GitPush.Remove != nil {
			n++
		}
		return whole(c.GitPush.Replace != nil, n, "push rule")
	}
	return whole(c.Dockerfile.Content != "", len(c.Dockerfile.Edits), "Dockerfile")
}

// short refuses an entry that is too long to be looked at.
func short(ports int, words ...string) error {
	if ports > MaxEntries {
		return fmt.Errorf("an entry has at most %d ports", MaxEntries)
	}
	for _, w := range words {
		if len(w) > MaxName {
			return fmt.Errorf("%.40q… has %d bytes, and %d are allowed", w, len(w), MaxName)
		}
	}
	return nil
}

func deref[T any](p *[]T) []T {
	if p == nil {
		return nil
	}
	return *p
}

// Revision names a policy, or another value, by its content: nobody can make two that
// have the same one.
func Revision(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // these types can be written
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Error is a change that cannot be made to a policy as it is.
type Error struct{ Err error }

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }

// ErrNothing is of a change that changes nothing.
var ErrNothing = errors.New("nothing would change: the policy has this already")

func failf(format string, args ...any) error { return &Error{fmt.Errorf(format, args...)} }

// Apply returns the policy as it would be. New rules without an id get the given one, so
// that the audit log says which proposal let a request through. The policy that is given
// is not changed. What changes nothing is an error.
func (c Change) Apply(p config.Policy, id string) (config.Policy, error) {
	if err := c.check(); err != nil {
		return p, &Error{err}
	}
	var err error
	q := p
	switch c.Kind {
	case config.ProposeAllow:
		q.Allow, err = c.Allow.apply(p.Allow, id)
	case config.ProposeRoutes:
		q.Routes, err = c.Routes.apply(p.Routes, id)
	case config.ProposeGitPush:
		q.Git, err = c.GitPush.apply(p.Git)
	default:
		q.Dockerfile, err = c.Dockerfile.apply(p.Dockerfile)
	}
	if err != nil {
		return p, &Error{err}
	}
	if err := q.Validate(); err != nil {
		return p, &Error{err}
	}
	if Revision(p) == Revision(q) {
		return p, &Error{ErrNothing}
	}
	return q, nil
}

// rule brings a host and its ports into the form that the policy keeps: canonical, with
// the port apart.
func rule(host string, ports []uint16) (string, []uint16, error) {
	if name, number, ok := cutPort(host); ok {
		if len(ports) > 0 {
			return "", nil, errors.New("the host carries a port as well: say it once")
		}
		port, err := strconv.ParseUint(number, 10, 16)
		if err != nil || port == 0 {
			return "", nil, fmt.Errorf("port %q is not a number between 1 and 65535", number)
		}
		host, ports = name, []uint16{uint16(port)}
	}
	pattern, err := policy.ParseHostPattern(host)
	if err != nil {
		return "", nil, err
	}
	ports = slices.Clone(ports)
	slices.Sort(ports)
	return pattern.String(), slices.Compact(ports), nil
}

func cutPort(host string) (name, port string, ok bool) {
	if strings.HasPrefix(host, "[") {
		if end := strings.LastIndex(host, "]:"); end >= 0 {
			return host[:end+1], host[end+2:], true
		}
		return host, "", false
	}
	if strings.Count(host, ":") != 1 || strings.Contains(host, "://") {
		return host, "", false
	}
	return strings.Cut(host, ":")
}

func (c *Allow) apply(before []policy.Rule, id string) ([]policy.Rule, error) {
	fresh := func(list []policy.Rule, name string) ([]policy.Rule, error) {
		out := make([]policy.Rule, len(list))
		for i, r := range list {
			host, ports, err := rule(r.Host, r.Ports)
			if err != nil {
				return nil, &policy.FieldError{Path: fmt.Sprintf("%s[%d].host", name, i), Err: err}
			}
			out[i] = policy.Rule{ID: r.ID, Host: host, Ports: ports}
		}
		return out, nil
	}
	same := func(a, b policy.Rule) bool {
		host, ports, err := rule(a.Host, a.Ports)
		return err == nil && host == b.Host && slices.Equal(orPorts(ports, 80, 443), orPorts(b.Ports, 80, 443))
	}
	return list(before, c.Add, c.Remove, c.Replace, fresh, same,
		func(r policy.Rule) (string, string) { return r.ID, r.Host },
		func(r *policy.Rule) *string { return &r.ID }, id)
}

func (c *Routes) apply(before []policy.Route, id string) ([]policy.Route, error) {
	fresh := func(list []policy.Route, name string) ([]policy.Route, error) {
		out := make([]policy.Route, len(list))
		for i, r := range list {
			host, ports, err := rule(r.Host, r.Ports)
			if err != nil {
				return nil, &policy.FieldError{Path: fmt.Sprintf("%s[%d].host", name, i), Err: err}
			}
			r.Host, r.Ports = host, ports
			r.Methods = slices.Clone(r.Methods)
			for j, m := range r.Methods {
				r.Methods[j] = strings.ToUpper(m)
			}
			out[i] = r
		}
		return out, nil
	}
	same := func(a, b policy.Route) bool {
		host, ports, err := rule(a.Host, a.Ports)
		a.Host, a.Ports, a.ID, b.ID = host, orPorts(ports, 443), "", ""
		b.Ports = orPorts(b.Ports, 443)
		return err == nil && Revision(a) == Revision(b)
	}
	return list(before, c.Add, c.Remove, c.Replace, fresh, same,
		func(r policy.Route) (string, string) { return r.ID, r.Host },
		func(r *policy.Route) *string { return &r.ID }, id)
}

func orPorts(ports []uint16, defaults ...uint16) []uint16 {
	if len(ports) == 0 {
		return defaults
	}
	return ports
}

// list changes a list of rules or routes.
func list[T any](before, add []T, remove []string, replace *[]T, fresh func([]T, string) ([]T, error), same func(a, b T) bool,
	names func(T) (id, host string), idOf func(*T) *string, id string,
) ([]T, error) {
	after := slices.Clone(before)
	if replace != nil {
		whole, err := fresh(*replace, "replace")
		if err != nil {
			return nil, err
		}
		after = nil
		for _, r := range whole {
			if i := slices.IndexFunc(before, func(b T) bool { return same(b, r) }); i >= 0 {
				r = before[i]
			} else if p := idOf(&r); *p == "" {
				*p = id
			}
			after = append(after, r)
		}
	}
	for _, name := range remove {
		n := len(after)
		after = slices.DeleteFunc(after, func(r T) bool {
			rid, host := names(r)
			return rid == name || host == name
		})
		if len(after) == n {
			return nil, fmt.Errorf("there is no entry %q to remove: give its id or its host as the policy has it", name)
		}
	}
	more, err := fresh(add, "add")
	if err != nil {
		return nil, err
	}
	for _, r := range more {
		if slices.ContainsFunc(after, func(b T) bool { return same(b, r) }) {
			continue
		}
		if p := idOf(&r); *p == "" {
			*p = id
		}
		after = append(after, r)
	}
	return after, nil
}

func (c *GitPush) apply(before []config.GitRule) ([]config.GitRule, error) {
	i := slices.IndexFunc(before, func(r config.GitRule) bool { return r.Name == c.Repository })
	if i < 0 {
		var names []string
		for _, r := range before {
			names = append(names, r.Name)
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("there is no repository %q: this bottle has none", c.Repository)
		}
		return nil, fmt.Errorf("there is no repository %q: it is one of %s", c.Repository, strings.Join(names, ", "))
	}
	after := slices.Clone(before)
	var p config.GitPush
	if old := before[i].Push; old != nil {
		p = *old
	}
	switch {
	case c.Replace != nil:
		p = *c.Replace
	default:
		if r := c.Remove; r != nil {
			for _, l := range []struct {
				from   *[]string
				remove []string
			}{{&p.Branches, r.Branches}, {&p.Tags, r.Tags}, {&p.Notes, r.Notes}} {
				for _, s := range l.remove {
					if !slices.Contains(*l.from, s) {
						return nil, fmt.Errorf("there is no pattern %q to remove", s)
					}
				}
				*l.from = slices.DeleteFunc(slices.Clone(*l.from), func(s string) bool { return slices.Contains(l.remove, s) })
			}
			p.Force, p.Delete = p.Force && !r.Force, p.Delete && !r.Delete
		}
		if a := c.Add; a != nil {
			p.Branches, p.Tags, p.Notes = union(p.Branches, a.Branches), union(p.Tags, a.Tags), union(p.Notes, a.Notes)
			p.Force, p.Delete = p.Force || a.Force, p.Delete || a.Delete
		}
	}
	after[i].Push = &p
	if before[i].Push == nil && Revision(p) == Revision(config.GitPush{}) {
		after[i].Push = nil
	}
	return after, nil
}

func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

func (c *Dockerfile) apply(before string) (string, error) {
	if before == "" {
		return "", errors.New("the image of this bottle is not built from a Dockerfile")
	}
	after := c.Content
	if after == "" {
		after = before
		for i, e := range c.Edits {
			switch n := strings.Count(after, e.Old); {
			case e.Old == "":
				return "", fmt.Errorf("edits[%d].old_text is empty: give the text to replace", i)
			case n == 0:
				return "", fmt.Errorf("edits[%d].old_text is not in the Dockerfile", i)
			case n > 1:
				return "", fmt.Errorf("edits[%d].old_text is in the Dockerfile %d times: give more of what stands around it", i, n)
			}
			after = strings.Replace(after, e.Old, e.New, 1)
			if len(after) > MaxDockerfile {
				break
			}
		}
	}
	_, err := CanonicalDockerfile(before, after)
	return after, err
}
