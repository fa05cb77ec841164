package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// CredentialKind says how a credential travels.
type CredentialKind string

// The kinds of credential.
const (
	CredentialHeader CredentialKind = "header" // in a header, after a scheme if there is one
	CredentialBasic  CredentialKind = "basic"  // as the password of basic authentication
	CredentialQuery  CredentialKind = "query"  // as a query parameter
)

// Credential says which secret a route injects, and how. It holds no secret.
type Credential struct {
	// Secret is the name of the secret.
	Secret string         `json:"secret"`
	Kind   CredentialKind `json:"kind"`
	// Header is the header of kind header. Default: Authorization.
	Header string `json:"header,omitempty"`
	// Scheme stands before the secret in the header: Bearer, token. Default for
	// Authorization: Bearer; for other headers: none.
	Scheme string `json:"scheme,omitempty"`
	// Username is the user name of kind basic.
	Username string `json:"username,omitempty"`
	// Parameter is the query parameter of kind query.
	Parameter string `json:"parameter,omitempty"`
}

// Route allows requests to a host by port, method and path, and may inject a
// credential into them.
type Route struct {
	// ID names the route in audit logs and denials. Default: "route:" and the host.
	ID string `json:"id,omitempty"`
	// Host is a name, an address or *.NAME. It may carry a port.
	Host string `json:"host"`
	// Ports default to 443, so that no credential travels in the clear unless the
	// operator says so.
	Ports []uint16 `json:"ports,omitempty"`
	// Methods default to all.
	Methods []string `json:"methods,omitempty"`
	// Paths are patterns as [ParseGlob] reads them. Default: all.
	Paths      []string    `json:"paths,omitempty"`
	Credential *Credential `json:"credential,omitempty"`
	// PassCredentials lets what the agent sends as a credential through. It is of use
	// only without Credential.
	PassCredentials bool `json:"pass_credentials,omitempty"`
}

// Routes is a set of compiled routes. The zero value denies everything.
type Routes struct {
	routes []*compiled
}

type compiled struct {
	Route
	host  HostPattern
	paths []Glob
}

// NewRoutes compiles routes. Errors are of type [*FieldError]. Routes of which some
// request would match two, and that inject different credentials, are refused.
func NewRoutes(routes []Route) (*Routes, error) {
	rs := &Routes{}
	for i, r := range routes {
		c, err := compileRoute(i, r)
		if err != nil {
			return nil, err
		}
		for j, other := range rs.routes {
			if !sameCredential(&c.Route, &other.Route) && c.overlaps(other) {
				return nil, fieldError(i, "", fmt.Errorf("route %s overlaps %s (number %d), which injects a different credential: narrow the host, methods or paths of one", c.ID, other.ID, j+1))
			}
		}
		rs.routes = append(rs.routes, c)
	}
	return rs, nil
}

func compileRoute(i int, r Route) (*compiled, error) {
	host, ports, field, err := hostPort(r.Host, r.Ports, []uint16{443})
	if err != nil {
		return nil, fieldError(i, field, err)
	}
	c := &compiled{Route: r, host: host}
	c.Ports = ports
	if c.ID == "" {
		c.ID = "route:" + host.String()
	}
	c.Methods = slices.Clone(r.Methods)
	for j, m := range c.Methods {
		if m == "" || strings.Trim(strings.ToUpper(m), "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
			return nil, fieldError(i, fmt.Sprintf("methods[%d]", j), fmt.Errorf("%q is no HTTP method", m))
		}
		if c.Methods[j] = strings.ToUpper(m); c.Methods[j] == "CONNECT" {
			return nil, fieldError(i, fmt.Sprintf("methods[%d]", j), errors.New("CONNECT cannot be routed: tunnels are always opened up"))
		}
	}
	paths := r.Paths
	if len(paths) == 0 {
		paths = []string{"/**"}
	}
	for j, p := range paths {
		g, err := ParseGlob(p)
		if err != nil {
			return nil, fieldError(i, fmt.Sprintf("paths[%d]", j), err)
		}
		c.paths = append(c.paths, g)
	}
	if r.Credential != nil {
		if r.PassCredentials {
			return nil, fieldError(i, "pass_credentials", errors.New("the route injects a credential, so the agent's own is never passed"))
		}
		cred, field, err := checkCredential(*r.Credential)
		if err != nil {
			return nil, fieldError(i, "credential."+field, err)
		}
		c.Credential = &cred
	}
	return c, nil
}

func checkCredential(c Credential) (Credential, string, error) {
	if c.Secret == "" {
		return c, "secret", errors.New("the name of the secret is missing")
	}
	unused := map[string]string{"header": c.Header, "scheme": c.Scheme, "username": c.Username, "parameter": c.Parameter}
	switch c.Kind {
	case CredentialHeader:
		delete(unused, "header")
		delete(unused, "scheme")
		if c.Header == "" {
			c.Header = "Authorization"
		}
		if !isToken(c.Header) {
			return c, "header", fmt.Errorf("%q is no header name", c.Header)
		}
		if slices.Contains([]string{"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "expect", "proxy-authorization"}, strings.ToLower(c.Header)) {
			return c, "header", fmt.Errorf("%s belongs to the connection and cannot carry a credential", c.Header)
		}
		if c.Scheme == "" && strings.EqualFold(c.Header, "Authorization") {
			c.Scheme = "Bearer"
		}
		if c.Scheme != "" && !isToken(c.Scheme) {
			return c, "scheme", fmt.Errorf("%q is no authentication scheme", c.Scheme)
		}
	case CredentialBasic:
		delete(unused, "username")
		if strings.ContainsFunc(c.Username, func(r rune) bool { return r == ':' || r < ' ' || r == 0x7f }) {
			return c, "username", errors.New("a user name of basic authentication holds no colon and no control character")
		}
	case CredentialQuery:
		delete(unused, "parameter")
		if c.Parameter == "" {
			return c, "parameter", errors.New("the name of the query parameter is missing")
		}
	default:
		return c, "kind", fmt.Errorf("%q is none of header, basic, query", c.Kind)
	}
	for field, v := range unused {
		if v != "" {
			return c, field, fmt.Errorf("a credential of kind %s has no %s", c.Kind, field)
		}
	}
	return c, "", nil
}

func isToken(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return true
}

func sameCredential(a, b *Route) bool {
	if a.Credential == nil || b.Credential == nil {
		return a.Credential == b.Credential && a.PassCredentials == b.PassCredentials
	}
	return *a.Credential == *b.Credential
}

func (c *compiled) overlaps(d *compiled) bool {
	if !c.host.overlaps(d.host) {
		return false
	}
	if !slices.ContainsFunc(c.Ports, func(p uint16) bool { return slices.Contains(d.Ports, p) }) {
		return false
	}
	if len(c.Methods) > 0 && len(d.Methods) > 0 &&
		!slices.ContainsFunc(c.Methods, func(m string) bool { return slices.Contains(d.Methods, m) }) {
		return false
	}
	for _, g := range c.paths {
		for _, h := range d.paths {
			if g.overlaps(h) {
				return true
			}
		}
	}
	return false
}

// Governs reports whether any route is about the host and port: then the routes
// alone decide about it.
func (rs *Routes) Governs(host string, port uint16) bool {
	if rs == nil {
		return false
	}
	for _, c := range rs.routes {
		if c.host.Match(host) && slices.Contains(c.Ports, port) {
			return true
		}
	}
	return false
}

// Decide says which route, if any, allows a request. Host is in canonical form. Also are
// methods that the upstream may take the request's for.
func (rs *Routes) Decide(host string, port uint16, method string, target Target, also ...string) Decision {
	if rs == nil {
		rs = &Routes{}
	}
	var about []*compiled
	for _, c := range rs.routes {
		if c.host.Match(host) && slices.Contains(c.Ports, port) {
			about = append(about, c)
		}
	}
	if len(about) == 0 {
		return Decision{Rule: RuleNoRoute, Reason: fmt.Sprintf("no route leads to %s on port %d", host, port)}
	}
	var found *compiled
	for i, reading := range target.readings {
		c := match(about, method, reading)
		switch {
		case c == nil && i == 0:
			return Decision{Rule: RuleNoRoute, Reason: fmt.Sprintf("no route to %s allows %s %s", host, method, target.Path)}
		case c == nil || found != nil && !sameCredential(&c.Route, &found.Route):
			return Decision{Rule: RulePath, Reason: fmt.Sprintf("the upstream may take the path for %s, which is not allowed in the same way", reading)}
		case found == nil:
			found = c
		}
	}
	if found == nil {
		return Decision{Rule: RuleNoRoute, Reason: "the request has no path"}
	}
	for _, other := range also {
		for _, reading := range target.readings {
			if c := match(about, other, reading); c == nil || !sameCredential(&c.Route, &found.Route) {
				return Decision{Rule: RuleMethod, Reason: fmt.Sprintf("the upstream may take the method for %.40q, which is not allowed in the same way", other)}
			}
		}
	}
	return Decision{Allow: true, Rule: found.ID, Route: &found.Route}
}

func match(about []*compiled, method, path string) *compiled {
	for _, c := range about {
		if len(c.Methods) > 0 && !slices.Contains(c.Methods, method) {
			continue
		}
		for _, g := range c.paths {
			if g.Match(path) {
				return c
			}
		}
	}
	return nil
}

// Secrets returns the names of the secrets that the routes inject, sorted.
func (rs *Routes) Secrets() []string {
	var names []string
	for _, c := range rs.routes {
		if c.Credential != nil && !slices.Contains(names, c.Credential.Secret) {
			names = append(names, c.Credential.Secret)
		}
	}
	slices.Sort(names)
	return names
}

// Hosts returns the names that routes lead to exactly, for certificates to be minted
// ahead.
func (rs *Routes) Hosts() []string {
	var names []string
	for _, c := range rs.routes {
		if name, ok := c.host.Exact(); ok && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
