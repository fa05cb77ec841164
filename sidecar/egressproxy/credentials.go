package egressproxy

import (
	"encoding/base64"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// credentialHeaders are the headers in which services expect credentials.
var credentialHeaders = set(
	"authorization", "cookie", "x-authorization", "x-api-key", "api-key", "apikey", "x-auth-token", "x-access-token",
	"private-token", "job-token", "deploy-token", "x-goog-api-key", "x-goog-iam-authorization-token", "x-amz-security-token",
	"x-github-token", "x-gitlab-token", "x-vault-token", "x-figma-token", "x-auth-key", "x-auth-email", "x-session-token",
)

func set(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, name := range names {
		m[name] = true
	}
	return m
}

// credentialParameters are the query parameters in which services expect credentials.
var credentialParameters = []string{
	"access_token", "private_token", "job_token", "api_key", "apikey", "api-key", "auth_token", "oauth_token", "client_secret",
	"x-amz-signature", "x-amz-credential", "x-amz-security-token",
	"$httpheaders", // Google's: whole headers
}

// strip takes out of a request what the agent may have sent as a credential.
func strip(out *http.Request, c *policy.Credential) {
	own := "" // the header of the route's own credential
	parameters := credentialParameters
	if c != nil && c.Header != "" {
		own = normal(c.Header)
	}
	if c != nil && c.Parameter != "" {
		parameters = append(slices.Clone(parameters), strings.ToLower(c.Parameter))
	}
	for _, h := range []http.Header{out.Header, out.Trailer} {
		for name := range h {
			if plain := normal(name); plain == own || credentialHeaders[plain] {
				delete(h, name)
			}
		}
	}
	out.URL.RawQuery = stripQuery(out.URL.RawQuery, parameters)
	out.URL.ForceQuery = out.URL.ForceQuery && out.URL.RawQuery == ""
}

// normal brings a header's name into one form: servers behind gateways take underscores
// for hyphens.
func normal(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// parameters are names, in lower case, and values of a part of a query. Some servers take
// semicolons for separators, so that there may be several.
func parameters(part string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for piece := range strings.SplitSeq(part, ";") {
			name, value, _ := strings.Cut(piece, "=")
			if plain, err := url.QueryUnescape(name); err == nil {
				name = plain
			}
			if plain, err := url.QueryUnescape(value); err == nil {
				value = plain
			}
			if !yield(strings.ToLower(strings.TrimSuffix(strings.TrimSpace(name), "[]")), value) {
				return
			}
		}
	}
}

// stripQuery takes parameters out of a query, and leaves the rest as it was written.
func stripQuery(query string, names []string) string {
	if query == "" {
		return ""
	}
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		hit := false
		for name := range parameters(part) {
			hit = hit || slices.Contains(names, name)
		}
		if !hit {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, "&")
}

// inject puts a credential into a request.
func inject(out *http.Request, c *policy.Credential, value secrets.Value) {
	secret := string(value)
	switch c.Kind {
	case policy.CredentialHeader:
		if c.Scheme != "" {
			secret = c.Scheme + " " + secret
		}
		out.Header.Set(c.Header, secret)
	case policy.CredentialBasic:
		out.Header.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(c.Username+":"+secret)))
	case policy.CredentialQuery:
		q := url.QueryEscape(c.Parameter) + "=" + url.QueryEscape(secret)
		if out.URL.RawQuery != "" {
			q = out.URL.RawQuery + "&" + q
		}
		out.URL.RawQuery, out.URL.ForceQuery = q, false
	}
}
