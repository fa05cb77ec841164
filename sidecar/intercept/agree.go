package intercept

import (
	"net/http"
	"strings"

	"github.com/bottle-run/bottle/sidecar/policy"
)

// splitURL splits a request target in absolute form.
func splitURL(target string) (scheme, authority, rest string, ok bool) {
	scheme, after, ok := strings.Cut(target, "://")
	scheme = strings.ToLower(scheme)
	if !ok || scheme != "http" && scheme != "https" {
		return "", "", "", false
	}
	i := strings.IndexAny(after, "/?#")
	if i < 0 {
		return scheme, after, "/", true
	}
	if after[i] == '?' {
		return scheme, after[:i], "/" + after[i:], true
	}
	return scheme, after[:i], after[i:], true
}

// agree holds everything that names the host of a request against its address, and
// reduces an absolute target within a tunnel to its path.
func agree(r *Request, t *tunnel) *Denial {
	mismatch := func(what, says string) *Denial {
		// 421 tells a client that took the connection for another host's to open its own.
		return &Denial{Status: http.StatusMisdirectedRequest, Rule: "host-mismatch",
			Reason: what + " says " + says + ", but the connection is to " + policy.JoinHostPort(r.Addr, r.Port)}
	}
	same := func(authority string) bool {
		host, port, err := policy.ParseAuthority(authority, policy.DefaultPort(r.Scheme))
		return err == nil && host == r.Addr && port == r.Port
	}
	if t != nil && !strings.HasPrefix(r.RawTarget, "/") {
		scheme, authority, target, ok := splitURL(r.RawTarget)
		if !ok {
			return &Denial{Status: http.StatusBadRequest, Rule: "malformed", Reason: "the request target is neither a path nor a URL"}
		}
		if scheme != r.Scheme {
			return mismatch("the scheme of the request target", scheme)
		}
		if !same(authority) {
			return mismatch("the request target", authority)
		}
		r.RawTarget = target
	}
	// In absolute form net/http takes Host from the target; the strict reader has held
	// the header against it.
	if !same(r.Host) && (t != nil || r.Host != "") {
		return mismatch("Host", r.Host)
	}
	for _, h := range r.Header["Host"] { // HTTP/2 leaves it here, beside :authority
		if !same(h) {
			return mismatch("Host", h)
		}
	}
	return nil
}
