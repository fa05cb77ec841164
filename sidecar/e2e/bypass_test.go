package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// denied is the JSON of a denial.
type denied struct {
	Error, Rule, Reason, Host, Method, Path, Supervise string
	NextSteps                                          []string `json:"next_steps"`
}

// exchange writes raw bytes and reads the answers, until there are no more.
func exchange(t *testing.T, rw io.ReadWriter, raw string) (answers []*http.Response, bodies []string) {
	t.Helper()
	go func() { _, _ = io.WriteString(rw, raw) }()
	br := bufio.NewReader(rw)
	for range 1 + strings.Count(raw, "\r\nX-Again:") {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			break
		}
		body, _ := io.ReadAll(resp.Body)
		answers, bodies = append(answers, resp), append(bodies, string(body))
	}
	return answers, bodies
}

func teaches(t *testing.T, resp *http.Response, body, rule string) {
	t.Helper()
	var d denied
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		t.Errorf("%s: the answer is no JSON: %.200s", resp.Status, body)
		return
	}
	if d.Rule != rule || d.Reason == "" || d.Error == "" || resp.Header.Get("X-Bottle-Denied") != rule {
		t.Errorf("%s: rule %q (%s); want %q", resp.Status, d.Rule, d.Reason, rule)
	}
	if resp.StatusCode < 400 {
		t.Errorf("status %s", resp.Status)
	}
}

// TestBypass sends what should not get through to the egress proxy, and sees that it is
// answered with the rule, and that nothing arrives beyond the firewall.
func TestBypass(t *testing.T) {
	w := newWorld(t)
	P := w.https
	get := func(host, target, extra string) string {
		return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: %s:%s\r\n%s\r\n", target, host, P, extra)
	}
	post := func(host, extra, body string) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: %s:%s\r\n%s\r\n%s", host, P, extra, body)
	}
	length := func(s string) string { return fmt.Sprintf("Content-Length: %d\r\n", len(s)) }
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(zw, "data="+canary)
	_ = zw.Close()
	pat := "gh" + "p_" + "Q7wE2rT9yU4iO1pA6sD3fG8hJ5kL0zXcVbNm"
	b64 := base64.StdEncoding.EncodeToString([]byte("x" + canary))
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
		{"a port that the route does not name", "api.test:80", "", "GET /public/x HTTP/1.1\r\nHost: api.test\r\n\r\n", "default-deny"},
		{"dot segments", "api.test", "", get("api.test", "/public/../private", ""), "no-route"},
		{"encoded dot segments", "api.test", "", get("api.test", "/public/%2e%2e/private", ""), "no-route"},
		{"dot segments above the root", "api.test", "", get("api.test", "/../public/x", ""), "ambiguous-path"},
		{"..;/", "api.test", "", get("api.test", "/public/..;/private", ""), "ambiguous-path"},
		{"an encoded slash after dots", "api.test", "", get("api.test", "/public/..%2fprivate", ""), "ambiguous-path"},
		{"double encoding", "api.test", "", get("api.test", "/public/%252e%252e/private", ""), "ambiguous-path"},
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

		{"a canary in a URL", "allowed.test", "", get("allowed.test", "/?q="+canary, ""), "canary:canary"},
		{"a canary in a URL, escaped", "allowed.test", "", get("allowed.test", "/?q=%63"+canary[1:], ""), "canary:canary"},
		{"a canary in a header", "allowed.test", "", get("allowed.test", "/", "X-Data: "+canary+"\r\n"), "canary:canary"},
		{"a canary in base64 in a header", "allowed.test", "", get("allowed.test", "/", "X-Data: "+b64+"\r\n"), "canary:canary"},
		{"a canary in a name", canary + ".wild.test", "", get(canary+".wild.test", "/", ""), "canary:canary"},
		{"a canary in a body", "allowed.test", "", post("allowed.test", length(canary), canary), "canary:canary"},
		{"a canary in a chunked body, cut", "allowed.test", "", post("allowed.test", "Transfer-Encoding: chunked\r\n", fmt.Sprintf("8\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", canary[:8], len(canary)-8, canary[8:])), "canary:canary"},
		{"a canary in hexadecimal", "allowed.test", "", post("allowed.test", length(hex.EncodeToString([]byte(canary))), hex.EncodeToString([]byte(canary))), "canary:canary"},
		{"a canary in base64", "allowed.test", "", post("allowed.test", length(b64), b64), "canary:canary"},
		{"a canary in gzip", "allowed.test", "", post("allowed.test", "Content-Encoding: gzip\r\n"+length(zipped.String()), zipped.String()), "canary:canary"},
		{"a canary in a form", "allowed.test", "", post("allowed.test", length("a="+url.QueryEscape(canary)), "a="+url.QueryEscape(canary)), "canary:canary"},
		{"an encoding that cannot be read", "allowed.test", "", post("allowed.test", "Content-Encoding: br\r\n"+length("x"), "x"), "encoding"},
		{"a route's secret to another host", "allowed.test", "", post("allowed.test", length(apiToken), apiToken), "canary:api"},
		{"a token of a known form", "allowed.test", "", post("allowed.test", length(pat), pat), "secret:github-pat"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.arrived()
			var rw io.ReadWriter = w.dial(w.egress)
			if c.connect != "" {
				authority, name := c.connect, c.connect
				if i := strings.LastIndex(name, ":"); i > 0 && !strings.HasSuffix(name, "]") {
					name = name[:i]
				} else {
					authority += ":" + P
				}
				conn, resp, body := w.connect(w.egress, authority, "")
				if resp.StatusCode != http.StatusOK {
					teaches(t, resp, body, c.rule)
					return
				}
				sni := c.sni
				if sni == "" {
					sni = name
				}
				rw = conn
				if !strings.HasSuffix(authority, ":80") {
					rw = w.tls(conn, sni)
				}
			}
			answers, bodies := exchange(t, rw, c.raw)
			if len(answers) == 0 {
				t.Fatal("there was no answer")
			}
			last := len(answers) - 1
			teaches(t, answers[last], bodies[last], c.rule)
			for _, s := range w.arrived() {
				// Earlier requests of the same connection, and the head of a body that was
				// cut, may arrive; what is denied may not.
				if s.target == "/ok" || s.host == "allowed.test:"+P && (strings.Contains(c.raw, "X-Again") || strings.HasPrefix(c.raw, "POST") && s.body == "") {
					continue
				}
				t.Errorf("arrived: %+v", s)
			}
		})
	}
	log := w.epLog.String() + w.fwLog.String()
	for _, secret := range []string{canary, apiToken, hopToken, pat, b64, hex.EncodeToString([]byte(canary))} {
		if strings.Contains(log, secret) {
			t.Errorf("%s is in the audit log", secret)
		}
	}
}

// TestCoalescing: a client of HTTP/2 that takes the certificate for several hosts' sends
// requests to all of them on one connection, and a hostile one whatever it likes.
func TestCoalescing(t *testing.T) {
	w := newWorld(t)
	c := w.client(true)
	url := "https://allowed.test:" + w.https + "/"
	if resp, _ := do(t, c, request(t, "GET", url, nil)); resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		t.Fatalf("%s %s", resp.Proto, resp.Status)
	}
	w.arrived()
	for _, host := range []string{"plain.test:" + w.https, "evil.test", "evil.test:" + w.https, "allowed.test", "allowed.test:" + w.http, "[::1]:" + w.https} {
		req := request(t, "GET", url, nil)
		req.Host = host // :authority
		resp, body := do(t, c, req)
		teaches(t, resp, body, "host-mismatch")
		if resp.StatusCode != http.StatusMisdirectedRequest {
			t.Errorf("%s: %s", host, resp.Status)
		}
	}
	if got := w.arrived(); len(got) > 0 {
		t.Errorf("arrived: %+v", got)
	}
	// The connection is good for what it is for.
	if resp, _ := do(t, c, request(t, "GET", url, nil)); resp.StatusCode != http.StatusOK {
		t.Errorf("afterwards: %s", resp.Status)
	}
}

// TestRedirectsAreTheClients: a redirect to where the agent may not go is passed on, not
// followed, and the client that follows it is denied.
func TestRedirectsAreTheClients(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ to, rule string }{
		{"https://internal.test:" + w.https + "/", "ssrf"}, {"https://meta.test:" + w.https + "/latest/meta-data/", "ssrf"},
		{"https://127.0.0.2:" + w.https + "/", "ssrf"}, {"http://169.254.169.254/latest/meta-data/", "default-deny"}, {"https://evil.test/", "default-deny"},
	} {
		w.handle["/away"] = func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, c.to, http.StatusFound) }
		for _, http2 := range []bool{false, true} {
			client := w.client(http2)
			resp, _ := do(t, client, request(t, "GET", "https://allowed.test:"+w.https+"/away", nil))
			if resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != c.to {
				t.Errorf("%s: %s, %s", c.to, resp.Status, resp.Header.Get("Location"))
			}
			client.CheckRedirect = nil
			resp, body := do(t, client, request(t, "GET", "https://allowed.test:"+w.https+"/away", nil))
			teaches(t, resp, body, c.rule)
			for _, s := range w.arrived() {
				if s.target != "/away" {
					t.Errorf("%s: arrived %+v", c.to, s)
				}
			}
		}
	}
}

func TestRebinding(t *testing.T) {
	w := newWorld(t)
	c := w.client(false)
	for i, want := range []int{http.StatusOK, http.StatusForbidden} {
		resp, err := c.Get("https://rebind.test:" + w.https + "/")
		must(t, err)
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("request %d: %s: %s", i, resp.Status, body)
		}
		// A new configuration has the firewall open new connections.
		must(t, w.fw.Reload())
	}
}

// TestTheFirewallAnswersToTheEgressProxyAlone: the agent is on the same network.
func TestTheFirewallAnswersToTheEgressProxyAlone(t *testing.T) {
	w := newWorld(t)
	for _, extra := range []string{"", "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte("bottle:wrong")) + "\r\n", "Proxy-Authorization: Bearer x\r\n"} {
		tc := w.tls(w.tunnel(w.firewall, "allowed.test:"+w.https, extra), "allowed.test")
		answers, bodies := exchange(t, tc, fmt.Sprintf("GET / HTTP/1.1\r\nHost: allowed.test:%s\r\nProxy-Authorization: Basic %s\r\n\r\n", w.https, base64.StdEncoding.EncodeToString([]byte("bottle:"+hopToken+"x"))))
		if len(answers) != 1 {
			t.Fatal("no answer")
		}
		teaches(t, answers[0], bodies[0], "not-the-egress-proxy")
	}
	if got := w.arrived(); len(got) > 0 {
		t.Errorf("arrived: %+v", got)
	}
}
