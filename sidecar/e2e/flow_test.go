package e2e

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func do(t *testing.T, c *http.Client, req *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := c.Do(req)
	must(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp, string(body)
}

func request(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequest(method, url, body)
	must(t, err)
	return req
}

func TestAllowedRequests(t *testing.T) {
	w := newWorld(t)
	for _, http2 := range []bool{false, true} {
		c := w.client(http2)
		for _, url := range []string{"https://allowed.test:" + w.https + "/a%2Fb?x=1&y=%20", "https://A.Wild.test:" + w.https + "/", "http://allowed.test:" + w.http + "/x"} {
			resp, body := do(t, c, request(t, "GET", url, nil))
			if resp.StatusCode != 200 || !strings.HasPrefix(body, "hello") {
				t.Errorf("%s: %s %s", url, resp.Status, body)
			}
		}
		got := w.arrived()
		if len(got) != 3 || got[0].target != "/a%2Fb?x=1&y=%20" || got[1].host != "a.wild.test:"+w.https {
			t.Errorf("arrived: %+v", got)
		}
		want := "HTTP/1.1"
		if http2 {
			want = "HTTP/2.0"
		}
		if got[0].proto != want {
			t.Errorf("arrived as %s", got[0].proto)
		}
		for _, s := range got {
			if s.header.Get("Proxy-Authorization") != "" || s.header.Get("Via") != "" || s.header.Get("X-Forwarded-For") != "" {
				t.Errorf("headers of the proxies arrived: %v", s.header)
			}
		}
	}
	for _, log := range []*lines{w.epLog, w.fwLog} {
		waitFor(t, func() bool { return len(log.records(t)) == 6 })
		for _, r := range log.records(t) {
			if r.Decision != "allow" || r.Agent != "coder" || r.Status != 200 || r.BytesIn == 0 || r.Rule == "" || strings.Contains(r.Path, "?") {
				t.Errorf("%+v", r)
			}
		}
	}
}

func waitFor(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not happen in time")
		}
	}
}

func TestCredentials(t *testing.T) {
	w := newWorld(t)
	agents := map[string]string{
		"Authorization": "Bearer agents-own", "Cookie": "sid=agents-own", "X-Api-Key": "agents-own", "Private_Token": "agents-own", "Connection": "close",
		// Where it was to go, as a gateway would say it.
		"X-Original-Url": "/agents-own", "X_Forwarded_Host": "agents-own.test", "Forwarded": "host=agents-own.test",
		"X-Http-Method-Override": "GET", // which is allowed
	}
	for _, c := range []struct{ url, header, want, query string }{
		{"https://api.test:" + w.https + "/public/x?access_token=agents-own&a=1", "Authorization", "Bearer " + apiToken, "a=1"},
		{"https://basic.test:" + w.https + "/", "Authorization", "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+basicToken)), ""},
		{"https://query.test:" + w.https + "/q?KEY=agents-own&b=2&$httpHeaders=Authorization:%20agents-own", "Authorization", "", "b=2&key=query%2B9z8y7x%266w5v"},
		{"https://plain.test:" + w.https + "/", "Authorization", "", ""},
	} {
		for _, http2 := range []bool{false, true} {
			req := request(t, "GET", c.url, nil)
			for k, v := range agents {
				if !http2 || k != "Connection" {
					req.Header[k] = []string{v}
				}
			}
			resp, body := do(t, w.client(http2), req)
			if resp.StatusCode != 200 {
				t.Errorf("%s: %s %s", c.url, resp.Status, body)
				continue
			}
			got := w.arrived()[0]
			_, query, _ := strings.Cut(got.target, "?")
			if got.header.Get(c.header) != c.want || got.header.Get("X-Http-Method-Override") != "GET" || query != c.query || strings.Contains(fmt.Sprint(got), "agents-own") {
				t.Errorf("%s: arrived %+v", c.url, got)
			}
		}
	}
}

// TestTrailersCarryNoCredentials: what is taken out of the head does not come back behind
// the body.
func TestTrailersCarryNoCredentials(t *testing.T) {
	w := newWorld(t)
	raw := fmt.Sprintf("POST http://plain.test:%s/ HTTP/1.1\r\nHost: plain.test:%s\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Cookie\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\nCookie: a=b\r\nX-Api-Key: c\r\n\r\n", w.http, w.http)
	answers, _ := exchange(t, w.dial(w.egress), raw)
	if len(answers) != 1 || answers[0].StatusCode != http.StatusOK {
		t.Fatalf("%+v", answers)
	}
	got := w.arrived()
	if len(got) != 1 || got[0].body != "hello" || got[0].trailer.Get("X-Sum") != "1" || len(got[0].trailer) != 1 {
		t.Errorf("arrived: %+v", got)
	}
}

// TestSessionsStayWithTheProxy: a cookie that a service sets for a route's credential would
// be good for what the route does not allow.
func TestSessionsStayWithTheProxy(t *testing.T) {
	w := newWorld(t)
	w.handle["/public/login"] = func(rw http.ResponseWriter, _ *http.Request) {
		http.SetCookie(rw, &http.Cookie{Name: "session", Value: "full-rights", Domain: "test"})
		http.SetCookie(rw, &http.Cookie{Name: "other", Value: "full-rights"})
	}
	for _, http2 := range []bool{false, true} {
		for host, want := range map[string]int{"api.test": 0, "plain.test": 2, "allowed.test": 2} {
			resp, _ := do(t, w.client(http2), request(t, "GET", "https://"+host+":"+w.https+"/public/login", nil))
			if got := len(resp.Cookies()); resp.StatusCode != http.StatusOK || got != want {
				t.Errorf("%s: %s, %d cookies; want %d", host, resp.Status, got, want)
			}
		}
	}
}

func TestEchoesAreMasked(t *testing.T) {
	w := newWorld(t)
	w.handle["/public/echo"] = func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("X-Echo", r.Header.Get("Authorization"))
		rw.Header().Set("Trailer", "X-Late")
		_, _ = io.WriteString(rw, r.Header.Get("Authorization")[:12])
		rw.(http.Flusher).Flush()
		_, _ = io.WriteString(rw, r.Header.Get("Authorization")[12:]+" "+base64.StdEncoding.EncodeToString([]byte("x"+apiToken)))
		rw.Header().Set("X-Late", apiToken)
	}
	w.handle["/public/gzip"] = func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Encoding", "gzip")
		zw := gzip.NewWriter(rw)
		_, _ = io.WriteString(zw, "token: "+apiToken)
		_ = zw.Close()
	}
	w.handle["/public/br"] = func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Encoding", "br")
		_, _ = io.WriteString(rw, "?")
	}
	// What the agent has itself is no secret from it.
	w.handle["/public/own"] = func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, canary) }
	for _, http2 := range []bool{false, true} {
		c := w.client(http2)
		if _, body := do(t, c, request(t, "GET", "https://api.test:"+w.https+"/public/own", nil)); body != canary {
			t.Errorf("the agent's own value: %q", body)
		}
		resp, body := do(t, c, request(t, "GET", "https://api.test:"+w.https+"/public/echo", nil))
		all := body + fmt.Sprint(resp.Header, resp.Trailer)
		if strings.Contains(all, apiToken) || strings.Contains(all, base64.StdEncoding.EncodeToString([]byte("x" + apiToken))[4:20]) || !strings.Contains(body, "******") || !strings.Contains(resp.Trailer.Get("X-Late"), "***") {
			t.Errorf("echoed: %s", all)
		}
		if _, body := do(t, c, request(t, "GET", "https://api.test:"+w.https+"/public/gzip", nil)); body != "token: "+strings.Repeat("*", len(apiToken)) {
			t.Errorf("compressed: %q", body)
		}
		resp, body = do(t, c, request(t, "GET", "https://api.test:"+w.https+"/public/br", nil))
		teaches(t, resp, body, "response-encoding")
		if resp.StatusCode != http.StatusBadGateway {
			t.Errorf("an encoding that cannot be masked: %s", resp.Status)
		}
	}
}

// TestEncodedEchoesAreMasked: a service may send a credential back in another form.
func TestEncodedEchoesAreMasked(t *testing.T) {
	w := newWorld(t)
	quoted, err := json.Marshal(apiToken)
	must(t, err)
	var percent strings.Builder
	for _, b := range []byte(apiToken) {
		fmt.Fprintf(&percent, "%%%02X", b)
	}
	forms := map[string]string{
		"plain": apiToken, "json": string(quoted[1 : len(quoted)-1]), "query": url.QueryEscape(apiToken), "path": url.PathEscape(apiToken), "percent": percent.String(), "lower percent": strings.ToLower(percent.String()),
		"hex": hex.EncodeToString([]byte(apiToken)), "HEX": strings.ToUpper(hex.EncodeToString([]byte(apiToken))),
	}
	for i := range 3 {
		in := []byte(strings.Repeat("x", i) + apiToken + "yy")
		// What depends on the value alone is masked: not the characters at its two ends.
		forms[fmt.Sprint("base64 ", i)] = base64.StdEncoding.EncodeToString(in)[(i*8+5)/6 : (i+len(apiToken))*8/6]
		forms[fmt.Sprint("base64url ", i)] = base64.URLEncoding.EncodeToString(in)[(i*8+5)/6 : (i+len(apiToken))*8/6]
	}
	compress := map[string]func(io.Writer) io.WriteCloser{
		"gzip": func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }, "deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
	}
	w.handle["/public/form"] = func(rw http.ResponseWriter, r *http.Request) {
		form := forms[r.FormValue("form")]
		rw.Header().Set("X-Echo", "<"+form+">")
		rw.Header().Set("Set-Cookie", "a="+form+";")
		var out io.Writer = rw
		if encoding := r.FormValue("encoding"); encoding != "" {
			rw.Header().Set("Content-Encoding", encoding)
			zw := compress[encoding](rw)
			defer zw.Close()
			out = zw
		} else {
			rw.Header().Set("Content-Length", fmt.Sprint(2*len(form)+3))
		}
		_, _ = io.WriteString(out, "<"+form+"|"+form[:5])
		if r.FormValue("encoding") == "" {
			rw.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(out, form[5:]+">")
	}
	for _, http2 := range []bool{false, true} {
		c := w.client(http2)
		for name, form := range forms {
			for _, encoding := range []string{"", "gzip", "deflate"} {
				resp, body := do(t, c, request(t, "GET", "https://api.test:"+w.https+"/public/form?"+url.Values{"form": {name}, "encoding": {encoding}}.Encode(), nil))
				if all := body + fmt.Sprint(resp.Header); resp.StatusCode != http.StatusOK || strings.Contains(all, form) || strings.Count(body, "*") < 2*(len(form)-4) || !strings.HasPrefix(body, "<") || !strings.HasSuffix(body, ">") {
					t.Errorf("%s %s (HTTP/2 %v): %s %s", name, encoding, http2, resp.Status, all)
				}
			}
		}
	}
}

// TestADenialTeaches asks as common tools do: the 403 has to be seen, for https too.
func TestADenialTeaches(t *testing.T) {
	w := newWorld(t)
	for _, http2 := range []bool{false, true} {
		for _, url := range []string{"https://denied.test/some/path?q=1", "http://denied.test/some/path"} {
			resp, body := do(t, w.client(http2), request(t, "GET", url, nil))
			teaches(t, resp, body, "default-deny")
			for _, want := range []string{`"host": "denied.test"`, `"method": "GET"`, `"path": "/some/path"`, "next_steps", "http://supervise:9100/"} {
				if !strings.Contains(body, want) {
					t.Errorf("%s: no %s in %s", url, want, body)
				}
			}
			if resp.StatusCode != http.StatusForbidden {
				t.Errorf("%s", resp.Status)
			}
		}
	}
	req := request(t, "POST", "https://denied.test/pkg.Service/Method", strings.NewReader("x"))
	req.Header.Set("Content-Type", "application/grpc")
	resp, _ := do(t, w.client(true), req)
	if resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "7" || !strings.Contains(resp.Header.Get("Grpc-Message"), "default-deny") {
		t.Errorf("gRPC: %s %v", resp.Status, resp.Header)
	}
}

func TestStreaming(t *testing.T) {
	w := newWorld(t)
	step := make(chan struct{})
	w.handle["/events"] = func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(rw, "data: %d\n\n", i)
			rw.(http.Flusher).Flush()
			<-step
		}
	}
	w.handle["/duplex"] = func(rw http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(rw).EnableFullDuplex()
		rw.WriteHeader(200)
		rw.(http.Flusher).Flush()
		br := bufio.NewReader(r.Body)
		rw.Header().Set(http.TrailerPrefix+"X-Sum", "seen")
		for {
			line, err := br.ReadString('\n')
			if err != nil {
				rw.Header().Set(http.TrailerPrefix+"X-Client", r.Trailer.Get("X-End"))
				return
			}
			_, _ = io.WriteString(rw, "echo "+line)
			rw.(http.Flusher).Flush()
		}
	}
	for _, http2 := range []bool{false, true} {
		c := w.client(http2)
		resp, err := c.Get("https://allowed.test:" + w.https + "/events")
		must(t, err)
		br := bufio.NewReader(resp.Body)
		for i := range 3 {
			line, err := br.ReadString('\n')
			if err != nil || line != fmt.Sprintf("data: %d\n", i) {
				t.Fatalf("event %d: %q, %v", i, line, err)
			}
			_, _ = br.ReadString('\n')
			step <- struct{}{}
		}
		resp.Body.Close()

		pr, pw := io.Pipe()
		req := request(t, "POST", "https://allowed.test:"+w.https+"/duplex", pr)
		req.Trailer = http.Header{"X-End": nil}
		resp, err = c.Do(req)
		must(t, err)
		br = bufio.NewReader(resp.Body)
		for _, word := range []string{"one\n", "two\n"} {
			_, _ = io.WriteString(pw, word)
			if line, err := br.ReadString('\n'); err != nil || line != "echo "+word {
				t.Fatalf("duplex (HTTP/2 %v): %q, %v", http2, line, err)
			}
		}
		req.Trailer.Set("X-End", "the end")
		_ = pw.Close()
		if _, err := io.ReadAll(br); err != nil {
			t.Error(err)
		}
		if resp.Trailer.Get("X-Sum") != "seen" || resp.Trailer.Get("X-Client") != "the end" {
			t.Errorf("trailers (HTTP/2 %v): %v", http2, resp.Trailer)
		}
	}
}

func TestContinue(t *testing.T) {
	w := newWorld(t)
	w.handle["/no"] = func(rw http.ResponseWriter, _ *http.Request) { http.Error(rw, "no", http.StatusExpectationFailed) }
	for path, want := range map[string]int{"/yes": 200, "/no": http.StatusExpectationFailed} {
		continued := false
		req := request(t, "POST", "https://allowed.test:"+w.https+path, strings.NewReader("the body"))
		req.Header.Set("Expect", "100-continue")
		req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got100Continue: func() { continued = true },
			Got1xxResponse: func(int, textproto.MIMEHeader) error { return nil },
		}))
		resp, _ := do(t, w.client(false), req)
		if resp.StatusCode != want || continued != (path == "/yes") {
			t.Errorf("%s: %s, continued: %v", path, resp.Status, continued)
		}
	}
}

type sum struct{ n int64 }

func (s *sum) Write(p []byte) (int, error) { s.n += int64(len(p)); return len(p), nil }

func TestLargeBodies(t *testing.T) {
	w := newWorld(t)
	const size = 3 << 20
	block := make([]byte, 64<<10)
	rand.Read(block)
	w.handle["/down"] = func(rw http.ResponseWriter, _ *http.Request) {
		for range size / len(block) {
			_, _ = rw.Write(block)
		}
	}
	w.handle["/up"] = func(rw http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		fmt.Fprint(rw, n, err)
	}
	for _, http2 := range []bool{false, true} {
		c := w.client(http2)
		resp, err := c.Get("https://allowed.test:" + w.https + "/down")
		must(t, err)
		var s sum
		if _, err := io.Copy(&s, resp.Body); err != nil || s.n != size {
			t.Errorf("down: %d, %v", s.n, err)
		}
		resp.Body.Close()
		up := io.LimitReader(repeat{block}, size)
		if _, body := do(t, c, request(t, "POST", "https://allowed.test:"+w.https+"/up", up)); body != fmt.Sprint(size, " <nil>") {
			t.Errorf("up: %s", body)
		}
	}
}

type repeat struct{ block []byte }

func (r repeat) Read(p []byte) (int, error) { return copy(p, r.block), nil }

func TestABrokenAnswerIsNotWhole(t *testing.T) {
	w := newWorld(t)
	w.handle["/cut"] = func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(rw, "begin")
		rw.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	}
	for _, http2 := range []bool{false, true} {
		resp, err := w.client(http2).Get("https://allowed.test:" + w.https + "/cut")
		must(t, err)
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("HTTP/2 %v: %q passes for whole", http2, body)
		}
		resp.Body.Close()
	}
}

func TestReload(t *testing.T) {
	w := newWorld(t)
	c := w.client(false)
	url := "https://allowed.test:" + w.https + "/"
	path := filepath.Join(w.dir, "fw", "config.json")
	old, err := os.ReadFile(path)
	must(t, err)
	must(t, os.WriteFile(path, bytes.Replace(old, []byte(`"allow": [`), []byte(`"allow": [{"host": "*"},`), 1), 0o600))
	if err := w.fw.Reload(); err == nil || !strings.Contains(err.Error(), "allow[0].host") || !strings.Contains(err.Error(), "config.json:") {
		t.Errorf("a bad policy: %v", err)
	}
	if resp, _ := do(t, c, request(t, "GET", url, nil)); resp.StatusCode != 200 {
		t.Errorf("after a bad policy: %s", resp.Status)
	}
	must(t, os.WriteFile(path, bytes.ReplaceAll(old, []byte(`"allowed.test"`), []byte(`"renamed.test"`)), 0o600))
	must(t, w.fw.Reload())
	resp, body := do(t, c, request(t, "GET", url, nil)) // on the connection that is open
	teaches(t, resp, body, "default-deny")
	if v := w.fw.Test("GET", "https://renamed.test:"+w.https+"/x"); v.Decision != "allow" || v.Rule != "allow:renamed.test" {
		t.Errorf("%+v", v)
	}
	if v := w.ep.Test("GET", "https://api.test:"+w.https+"/public/../x"); v.Decision != "deny" || v.Path != "/x" {
		t.Errorf("%+v", v)
	}
	if v := w.ep.Test("get", "https://api.test:"+w.https+"/public/x"); v.Decision != "allow" || v.Rule != "api" || v.Inject != "api" {
		t.Errorf("%+v", v)
	}
	must(t, os.WriteFile(path, bytes.Replace(old, []byte(`"agent": "coder"`), []byte(`"agent": "other"`), 1), 0o600))
	if err := w.fw.Reload(); err == nil {
		t.Error("the agent of a running sidecar changed")
	}
}

func TestHealth(t *testing.T) {
	w := newWorld(t)
	for _, addr := range []string{w.firewall, w.egress} {
		resp, err := http.Get("http://" + addr + "/health")
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Errorf("%s", resp.Status)
		}
	}
	must(t, os.Remove(filepath.Join(w.dir, "ep", "secrets")))
	must(t, w.ep.Reload())
	resp, err := http.Get("http://" + w.egress + "/health")
	must(t, err)
	resp.Body.Close()
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("without secrets: %s", resp.Status)
	}
	resp, body := do(t, w.client(false), request(t, "GET", "https://api.test:"+w.https+"/public/x", nil))
	teaches(t, resp, body, "not-ready")
	if got := w.arrived(); len(got) > 0 {
		t.Errorf("arrived without a credential: %+v", got)
	}
}

func TestTheClientGoesAway(t *testing.T) {
	w := newWorld(t)
	arrived, gone := make(chan struct{}), make(chan struct{})
	w.handle["/wait"] = func(_ http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
		close(gone)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-arrived; cancel() }()
	_, err := w.client(false).Do(request(t, "GET", "https://allowed.test:"+w.https+"/wait", nil).WithContext(ctx))
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	select {
	case <-gone:
	case <-time.After(time.Minute):
		t.Error("the upstream was not told")
	}
}
