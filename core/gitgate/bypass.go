package gitgate

import (
	"fmt"
	"strings"

	"github.com/bottle-run/bottle/core/egress"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
)

// Bypass looks for a way past the gate to a repository: what the sidecars of the other way
// out would let through of git over HTTPS. One on which they present a credential is an
// error: with it the agent could push what nobody has looked at. On others the agent has no
// credential but its own, which note tells.
func Bypass(name, url string, p *egress.Policy) (note string, err error) {
	u, err := config.ParseGitURL(url)
	if err != nil {
		return "", err
	}
	port := u.Port
	if u.Scheme != "https" {
		port = 443 // many servers have both
	}
	routes, err := policy.NewRoutes(p.Routes)
	if err != nil {
		return "", err
	}
	if routes.Governs(u.Host, port) {
		return bypassByRoute(name, u, port, routes)
	}
	allowed, err := policy.NewAllowlist(p.AllowAll, p.Allow)
	if err != nil {
		return "", err
	}
	if d := allowed.Decide(u.Host, port); d.Allow {
		note = fmt.Sprintf("repository %s: egress allows its host %s as well (%s): over HTTPS the agent reaches it past the gate, with no credential but its own, and what it sends there is not looked at as pushes are", name, u.Host, d.Rule)
	}
	return note, nil
}

func bypassByRoute(name string, u *config.GitURL, port uint16, routes *policy.Routes) (note string, err error) {
	path := "/" + strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git")
	for _, suffix := range []string{"", ".git"} {
		target, err := policy.CanonicalTarget(path + suffix + "/git-receive-pack")
		if err != nil {
			continue // no request can have it
		}
		d := routes.Decide(u.Host, port, "POST", target)
		switch {
		case !d.Allow:
		case d.Route.Credential != nil:
			return "", fmt.Errorf("the route %s presents %s to pushes to the repository %s that go past the gate, which nobody looks at: narrow the route's methods to GET, or its paths", d.Rule, d.Route.Credential.Secret, name)
		default:
			note = fmt.Sprintf("repository %s: the route %s lets the agent push past the gate, with no credential but its own, and what it sends there is not looked at as pushes are", name, d.Rule)
		}
	}
	return note, nil
}
