package e2e

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/sidecar/e2e/bypass"
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
	taught(t, resp.StatusCode, resp.Header.Get("X-Bottle-Denied"), body, rule)
}

func taught(t *testing.T, status int, header, body, rule string) {
	t.Helper()
	var d denied
	if err := json.Unmarshal([]byte(body), &d); err != nil {
		t.Errorf("status %d: the answer is no JSON: %.200s", status, body)
		return
	}
	if d.Rule != rule || d.Reason == "" || d.Error == "" || header != rule {
		t.Errorf("status %d: rule %q (%s); want %q", status, d.Rule, d.Reason, rule)
	}
	if status < 400 {
		t.Errorf("status %d", status)
	}
}

// TestBypass sends what should not get through to the egress proxy, and sees that it is
// answered with the rule, and that nothing arrives beyond the firewall.
func TestBypass(t *testing.T) {
	w := newWorld(t)
	place := bypass.World{
		Zone: "test", Port: w.https, Internal: "internal.test", Metadata: "meta.test", Mixed: "mixed.test", Inside: "127.0.0.2",
		Canary: canary, CanaryRule: "canary:canary", APIToken: apiToken, APITokenRule: "canary:api",
	}
	for _, c := range place.Table() {
		t.Run(c.Name, func(t *testing.T) {
			w.arrived()
			got, err := bypass.Attempt(w.egress, c)
			must(t, err)
			taught(t, got.Status, got.Header, string(got.Body), c.Rule)
			for _, s := range w.arrived() {
				// Earlier requests of the same connection, and the head of a body that was
				// cut, may arrive; what is denied may not.
				if s.host == "allowed.test:"+w.https && (s.target == "/ok" || bytes.Contains(c.Raw, []byte(bypass.Again)) || s.method == http.MethodPost && s.body == "") {
					continue
				}
				t.Errorf("arrived: %+v", s)
			}
		})
	}
	log := w.epLog.String() + w.fwLog.String()
	for _, secret := range append(place.Values(), hopToken) {
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
