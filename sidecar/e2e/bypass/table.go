// Package bypass is the table of ways around the policy of a bottle's sidecars: fronting,
// smuggling, other spellings of hosts, addresses and paths, secrets in disguise. Each is
// refused, with a rule that is named, and nothing of it arrives beyond the firewall. The
// tests of the sidecars go through it on loopback, those of the command line in bottles.
package bypass

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// World is what the table needs to know of the place where it is gone through. The names
// in it are below a zone: allowed, plain and *.wild are on the allowlist; internal ones too;
// other is on the egress proxy's alone; api (/public/** and /one/*) and basic (GET) have
// routes with credentials. Nothing allows evil.
type World struct {
	Zone string
	// Port is that of https.
	Port string
	// Internal, Metadata and Mixed are allowed names that lead to an address that is not
	// public, to 169.254.169.254, and to a public and another address. Inside is an allowed
	// address that is not public.
	Internal, Metadata, Mixed, Inside string
	// Canary is a secret that may go nowhere, and begins with a c; APIToken is one that may go
	// to the host api alone. The rules are those that guard them.
	Canary, CanaryRule, APIToken, APITokenRule string
}

// AccessToken has the form of a well-known service's.
const AccessToken = "gh" + "p_" + "Q7wE2rT9yU4iO1pA6sD3fG8hJ5kL0zXcVbNm"

// Values are what no log may hold after the table.
func (w World) Values() []string {
	return []string{w.Canary, w.APIToken, AccessToken, encoded(w.Canary), hex.EncodeToString([]byte(w.Canary))}
}

func encoded(value string) string { return base64.StdEncoding.EncodeToString([]byte("x" + value)) }

// Table is the cases in a world.
func (w World) Table() []Case {
	P, canary := w.Port, w.Canary
	get := func(host, target, extra string) string {
		return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s:%s\r\n%s\r\n", target, host, P, extra)
	}
	post := func(host, extra, body string) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s:%s\r\n%s\r\n%s", host, P, extra, body)
	}
	length := func(s string) string { return fmt.Sprintf("Content-Length: %d\r\n", len(s)) }
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(zw, "data="+canary) // to memory
	_ = zw.Close()
	b64 := encoded(canary)
	var cases []Case
	// Written for a zone of its own, and carried over to the world's. What Connect names
	// without a port has the world's, and TLS follows but on port 80.
	here := strings.NewReplacer("internal.test", w.Internal, "meta.test", w.Metadata, "mixed.test", w.Mixed, "127.0.0.2", w.Inside,
		".test", "."+w.Zone, ".Test", "."+w.Zone)
	for _, c := range []struct {
		name    string
		connect string // host of the tunnel; "" for a request to the proxy itself
		sni     string // default: that host
		raw     string
		rule    string
	}{
		{"a host that is not allowed", "evil.test", "", get("evil.test", "/", ""), "default-deny"},
		{"a host that only the egress proxy allows", "other.test", "", get("other.test", "/", ""), "default-deny"},
		{"plain http to a host that is not allowed", "", "", "GET http://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", "default-deny"},
		{"a port that is not allowed", "allowed.test:80", "", "GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n", "default-deny"},
		{"the apex of a wildcard", "wild.test", "", get("wild.test", "/", ""), "default-deny"},
		{"a suffix that is no label", "evilwild.test", "", get("evilwild.test", "/", ""), "default-deny"},

		{"fronting: another Host in the tunnel", "allowed.test", "", get("evil.test", "/", ""), "host-mismatch"},
		{"fronting: another allowed Host", "allowed.test", "", get("plain.test", "/", ""), "host-mismatch"},
		{"fronting: another port", "allowed.test", "", "GET / HTTP/1.1\r\nHost: allowed.test:1\r\n\r\n", "host-mismatch"},
		{"fronting: no port", "allowed.test", "", "GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n", "host-mismatch"},
		{"fronting: another server name", "allowed.test", "evil.test", get("allowed.test", "/", ""), "sni-mismatch"},
		{"fronting: server name and Host agree, CONNECT does not", "allowed.test", "plain.test", get("plain.test", "/", ""), "sni-mismatch"},
		{"reuse: the second request of a connection", "allowed.test", "", get("allowed.test", "/ok", "") + "GET / HTTP/1.1\r\nHost: evil.test\r\nX-Again: 1\r\n\r\n", "host-mismatch"},
		{"absolute form after CONNECT, another host", "allowed.test", "", "GET https://evil.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", "host-mismatch"},
		{"absolute form after CONNECT, against Host", "allowed.test", "", get("allowed.test", "https://evil.test/", ""), "malformed"},
		{"absolute form after CONNECT, another scheme", "allowed.test", "", get("allowed.test", "http://allowed.test:"+P+"/", ""), "host-mismatch"},
		{"absolute form against Host", "", "", "GET http://allowed.test/ HTTP/1.1\r\nHost: evil.test\r\n\r\n", "malformed"},
		{"CONNECT against Host", "", "", "CONNECT allowed.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n", "malformed"},
		{"CONNECT in a tunnel", "allowed.test", "", "CONNECT evil.test:443 HTTP/1.1\r\nHost: evil.test:443\r\n\r\n", "malformed"},
		{"an https URL to the proxy", "", "", "GET https://allowed.test/ HTTP/1.1\r\nHost: allowed.test\r\n\r\n", "not-a-proxy-request"},
		{"two Host headers", "allowed.test", "", get("allowed.test", "/", "Host: evil.test\r\n"), "malformed"},
		{"no Host header", "allowed.test", "", "GET / HTTP/1.1\r\nX: 1\r\n\r\n", "malformed"},
		{"a request to the proxy itself", "", "", "GET / HTTP/1.1\r\nHost: allowed.test\r\n\r\n", "not-a-proxy-request"},

		{"a trailing dot", "evil.test.", "evil.test", "GET / HTTP/1.1\r\nHost: evil.test.:" + P + "\r\n\r\n", "default-deny"},
		{"another case", "EVIL.Test", "evil.test", "GET / HTTP/1.1\r\nHost: eVIL.test:" + P + "\r\n\r\n", "default-deny"},
		{"two trailing dots", "", "", "CONNECT allowed.test..:443 HTTP/1.1\r\nHost: allowed.test..:443\r\n\r\n", "malformed"},
		{"an allowed name below one that is not", "", "", "GET http://allowed.test.evil.test/ HTTP/1.1\r\nHost: allowed.test.evil.test\r\n\r\n", "default-deny"},
		{"punycode of a name that is not allowed", "", "", "GET http://xn--allowd-dva.test/ HTTP/1.1\r\nHost: xn--allowd-dva.test\r\n\r\n", "default-deny"},
		{"userinfo in CONNECT", "", "", "CONNECT allowed.test@evil.test:443 HTTP/1.1\r\nHost: allowed.test@evil.test:443\r\n\r\n", "malformed"},
		{"userinfo in a URL", "", "", "GET http://allowed.test@evil.test/ HTTP/1.1\r\nHost: allowed.test@evil.test\r\n\r\n", "malformed"},
		{"punycode that is none", "", "", "GET http://xn--allowed-.test/ HTTP/1.1\r\nHost: xn--allowed-.test\r\n\r\n", "malformed"},
		{"a name in Unicode", "", "", "GET http://allow\xc3\xa9d.test/ HTTP/1.1\r\nHost: allow\xc3\xa9d.test\r\n\r\n", "malformed"},
		{"a decimal address", "", "", "CONNECT 2130706433:443 HTTP/1.1\r\nHost: 2130706433:443\r\n\r\n", "malformed"},
		{"a hexadecimal address", "", "", "CONNECT 0x7f000001:443 HTTP/1.1\r\nHost: 0x7f000001:443\r\n\r\n", "malformed"},
		{"an octal address", "", "", "CONNECT 0177.0.0.1:443 HTTP/1.1\r\nHost: 0177.0.0.1:443\r\n\r\n", "malformed"},
		{"a short address", "", "", "GET http://127.1/ HTTP/1.1\r\nHost: 127.1\r\n\r\n", "malformed"},
		{"an address with a zone", "", "", "CONNECT [fe80::1%25eth0]:443 HTTP/1.1\r\nHost: [fe80::1%25eth0]:443\r\n\r\n", "malformed"},
		{"a mapped address", "[::ffff:127.0.0.1]", "127.0.0.1", fmt.Sprintf("GET / HTTP/1.1\r\nHost: [::ffff:127.0.0.1]:%s\r\n\r\n", P), "default-deny"},

		{"an allowed name with an internal address", "internal.test", "", get("internal.test", "/", ""), "ssrf"},
		{"an allowed internal address", "127.0.0.2", "", get("127.0.0.2", "/", ""), "ssrf"},
		{"DNS to the metadata address", "meta.test", "", get("meta.test", "/", ""), "ssrf"},
		{"one public and one private address", "mixed.test", "", get("mixed.test", "/", ""), "ssrf"},

		{"a path that no route allows", "api.test", "", get("api.test", "/private", ""), "no-route"},
		{"a method that no route allows", "basic.test", "", post("basic.test", "Content-Length: 0\r\n", ""), "no-route"},
		{"a method in a header", "basic.test", "", get("basic.test", "/", "X-HTTP-Method-Override: delete\r\n"), "ambiguous-method"},
		{"a method in a header with underscores", "basic.test", "", get("basic.test", "/", "X_Http_Method: PATCH\r\n"), "ambiguous-method"},
		{"a method in the query", "basic.test", "", get("basic.test", "/?a=b;_m%65thod=DELETE", ""), "ambiguous-method"},
		{"a port that the route does not name", "api.test:80", "", "GET /public/x HTTP/1.1\r\nHost: api.test\r\n\r\n", "default-deny"},
		{"dot segments", "api.test", "", get("api.test", "/public/../private", ""), "no-route"},
		{"encoded dot segments", "api.test", "", get("api.test", "/public/%2e%2e/private", ""), "no-route"},
		{"dot segments above the root", "api.test", "", get("api.test", "/../public/x", ""), "ambiguous-path"},
		{"..;/", "api.test", "", get("api.test", "/public/..;/private", ""), "ambiguous-path"},
		{"an encoded slash after dots", "api.test", "", get("api.test", "/public/..%2fprivate", ""), "ambiguous-path"},
		{"double encoding", "api.test", "", get("api.test", "/public/%252e%252e/private", ""), "ambiguous-path"},
		{"dot segments in overlong UTF-8", "api.test", "", get("api.test", "/public/%c0%ae%c0%ae/private", ""), "ambiguous-path"},
		{"a backslash", "api.test", "", get("api.test", "/public/..\\private", ""), "ambiguous-path"},
		{"an encoded backslash", "api.test", "", get("api.test", "/public/..%5cprivate", ""), "ambiguous-path"},
		{"an encoded slash under a single star", "api.test", "", get("api.test", "/one/a%2fb", ""), "ambiguous-path"},
		{"an encoded line end", "api.test", "", get("api.test", "/public/%0d%0aX: y", ""), "malformed"},
		{"a malformed escape", "api.test", "", get("api.test", "/public/%zz", ""), "malformed"},
		{"a fragment", "api.test", "", get("api.test", "/public/#/../private", ""), "ambiguous-path"},
		{"another case", "api.test", "", get("api.test", "/PUBLIC/x", ""), "no-route"},

		{"CL and TE", "allowed.test", "", post("allowed.test", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), "malformed"},
		{"two CL", "allowed.test", "", post("allowed.test", "Content-Length: 0\r\nContent-Length: 5\r\n", "hello"), "malformed"},
		{"a CL list", "allowed.test", "", post("allowed.test", "Content-Length: 5, 5\r\n", "hello"), "malformed"},
		{"a signed CL", "allowed.test", "", post("allowed.test", "Content-Length: +5\r\n", "hello"), "malformed"},
		{"TE twice", "allowed.test", "", post("allowed.test", "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", "0\r\n\r\n"), "malformed"},
		{"an odd TE", "allowed.test", "", post("allowed.test", "Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"), "malformed"},
		{"TE in HTTP/1.0", "allowed.test", "", fmt.Sprintf("POST / HTTP/1.0\r\nHost: allowed.test:%s\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", P), "malformed"},
		{"a space before the colon", "allowed.test", "", post("allowed.test", "Transfer-Encoding : chunked\r\n", "0\r\n\r\n"), "malformed"},
		{"an underscore for a hyphen", "allowed.test", "", post("allowed.test", "Transfer_Encoding: chunked\r\n", "0\r\n\r\n"), "malformed"},
		{"a bare line feed", "allowed.test", "", "GET / HTTP/1.1\nHost: allowed.test\n\n", "malformed"},
		{"a bare line feed among headers", "allowed.test", "", get("allowed.test", "/", "A: b\nX: y\r\n"), "malformed"},
		{"a bare carriage return", "allowed.test", "", get("allowed.test", "/", "A: b\rX: y\r\n"), "malformed"},
		{"a folded header", "allowed.test", "", get("allowed.test", "/", "A: b\r\n c\r\n"), "malformed"},
		{"a zero byte", "allowed.test", "", get("allowed.test", "/", "A: b\x00\r\n"), "malformed"},
		{"a tab in the request line", "allowed.test", "", fmt.Sprintf("GET\t/ HTTP/1.1\r\nHost: allowed.test:%s\r\n\r\n", P), "malformed"},
		{"Connection names Content-Length", "allowed.test", "", post("allowed.test", "Connection: content-length\r\nContent-Length: 5\r\n", "hello"), "malformed"},
		{"a head that is too long", "allowed.test", "", get("allowed.test", "/", "A: "+strings.Repeat("b", 70<<10)+"\r\n"), "malformed"},
		{"too many headers", "allowed.test", "", get("allowed.test", "/", strings.Repeat("A: b\r\n", 300)), "malformed"},
		{"an empty line first", "allowed.test", "", "\r\n" + get("allowed.test", "/", ""), "malformed"},
		{"HTTP/2 without TLS", "", "", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "malformed"},
		{"a smuggled request after a chunked body", "allowed.test", "", post("allowed.test", "Transfer-Encoding: chunked\r\n", "0\r\n\r\n") + "GET / HTTP/1.1\r\nHost: evil.test\r\nX-Again: 1\r\n\r\n", "host-mismatch"},

		{"a canary in a URL", "allowed.test", "", get("allowed.test", "/?q="+canary, ""), w.CanaryRule},
		{"a canary in a URL, escaped", "allowed.test", "", get("allowed.test", "/?q=%63"+canary[1:], ""), w.CanaryRule},
		{"a canary in a header", "allowed.test", "", get("allowed.test", "/", "X-Data: "+canary+"\r\n"), w.CanaryRule},
		{"a canary in base64 in a header", "allowed.test", "", get("allowed.test", "/", "X-Data: "+b64+"\r\n"), w.CanaryRule},
		{"a canary in a name", canary + ".wild.test", "", get(canary+".wild.test", "/", ""), w.CanaryRule},
		{"a canary in a body", "allowed.test", "", post("allowed.test", length(canary), canary), w.CanaryRule},
		{"a canary in a chunked body, cut", "allowed.test", "", post("allowed.test", "Transfer-Encoding: chunked\r\n", fmt.Sprintf("8\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", canary[:8], len(canary)-8, canary[8:])), w.CanaryRule},
		{"a canary in hexadecimal", "allowed.test", "", post("allowed.test", length(hex.EncodeToString([]byte(canary))), hex.EncodeToString([]byte(canary))), w.CanaryRule},
		{"a canary in base64", "allowed.test", "", post("allowed.test", length(b64), b64), w.CanaryRule},
		{"a canary in gzip", "allowed.test", "", post("allowed.test", "Content-Encoding: gzip\r\n"+length(zipped.String()), zipped.String()), w.CanaryRule},
		{"a canary in a form", "allowed.test", "", post("allowed.test", length("a="+url.QueryEscape(canary)), "a="+url.QueryEscape(canary)), w.CanaryRule},
		{"an encoding that cannot be read", "allowed.test", "", post("allowed.test", "Content-Encoding: br\r\n"+length("x"), "x"), "encoding"},
		{"a route's secret to another host", "allowed.test", "", post("allowed.test", length(w.APIToken), w.APIToken), w.APITokenRule},
		{"a token of a known form", "allowed.test", "", post("allowed.test", length(AccessToken), AccessToken), "secret:github-pat"},
	} {
		if P == "443" && c.name == "fronting: no port" {
			continue // they agree then
		}
		out := Case{Name: c.name, Raw: []byte(here.Replace(c.raw)), Rule: c.rule}
		if c.connect != "" {
			host, port, found := strings.Cut(c.connect, ":")
			if strings.HasPrefix(c.connect, "[") || !found {
				host, port = c.connect, P
			}
			out.Connect = here.Replace(host) + ":" + port
			if port != "80" {
				out.SNI = here.Replace(cmp.Or(c.sni, host))
			}
		}
		cases = append(cases, out)
	}
	return cases
}
