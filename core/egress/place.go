package egress

import (
	"errors"
	"strings"

	"github.com/bottle-run/bottle/sidecar/policy"
)

// segments splits a path such as "routes[2].credential.secret".
func segments(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' })
}

// names are the manifest's words for those of the sidecars' configurations, where they
// differ; the longest that fits counts.
var names = []struct{ config, manifest string }{
	{"upstream.proxy_user", "firewall.proxy.user"},
	{"upstream.proxy_secret", "firewall.proxy.password"},
	{"upstream.proxy", "firewall.proxy.url"},
	{"upstream", "firewall"},
	{"guard", "firewall"},
	{"scan", "firewall.scan"},
	{"limits", "firewall.limits"},
	{"allow", "egress.allow"},
	{"allow_all", "egress.allow_all"},
	{"routes", "egress.routes"},
}

// renamed brings the path of a sidecar's configuration into the words of the manifest.
func renamed(path []string) []string {
	joined := strings.Join(path, ".") + "."
	for _, n := range names {
		if rest, ok := strings.CutPrefix(joined, n.config+"."); ok {
			joined = n.manifest + "." + rest
			break
		}
	}
	joined = strings.ReplaceAll(joined, "credential.secret.", "credential.token.")
	return segments(joined)
}

// trim takes the number of a list with one rule off the path of an error.
func trim(err error) error {
	var fe *policy.FieldError
	if errors.As(err, &fe) {
		return &policy.FieldError{Path: strings.TrimPrefix(strings.TrimPrefix(fe.Path, "[0]"), "."), Err: fe.Err}
	}
	return err
}

// bare is the mistake without its path.
func bare(err error) error {
	var fe *policy.FieldError
	if errors.As(err, &fe) {
		return fe.Err
	}
	return err
}

// within puts a path before that of an error.
func within(prefix string, err error) error {
	var fe *policy.FieldError
	if errors.As(err, &fe) {
		return &policy.FieldError{Path: prefix + strings.TrimPrefix(fe.Path, prefix), Err: fe.Err}
	}
	return err
}
