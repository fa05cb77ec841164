package effect

import (
	"fmt"
	"strings"

	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/supervise/show"
)

func hostText(pattern string) string {
	if pattern == "*" {
		return "EVERY host"
	}
	if base, ok := strings.CutPrefix(pattern, "*."); ok {
		return "EVERY host below " + show.NewHost(base, nil).Text
	}
	return show.NewHost(pattern, nil).Text
}

func portsText(ports []uint16) string {
	if len(ports) == 1 && ports[0] == everyPort {
		return "every port"
	}
	words := make([]string, len(ports))
	for i, p := range ports {
		words[i] = fmt.Sprint(p)
	}
	if len(words) == 1 {
		return "port " + words[0]
	}
	return "ports " + strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}

func methodsText(methods []string) string {
	if len(methods) == 0 {
		return "requests of EVERY method"
	}
	return strings.Join(methods, ", ") + " requests"
}

func pathsText(paths []string) string {
	words := make([]string, len(paths))
	for i, p := range paths {
		if words[i] = show.Line(p); p == "/**" {
			words[i] += " (ALL)"
		}
	}
	return strings.Join(words, ", ")
}

func credentialText(c policy.Credential) string {
	c = normal(c)
	switch c.Kind {
	case policy.CredentialBasic:
		return fmt.Sprintf("as the password of the user %q", show.Line(c.Username))
	case policy.CredentialQuery:
		return "as the query parameter " + show.Line(c.Parameter)
	}
	if c.Scheme != "" {
		return fmt.Sprintf("in the header %s (%s)", show.Line(c.Header), show.Line(c.Scheme))
	}
	return "in the header " + show.Line(c.Header)
}
