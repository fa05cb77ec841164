package scan

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/bottle-run/bottle/sidecar/secrets"
)

const (
	token = "s3cr3t-Value/of+the=bottle"
	// The pieces are joined here so that no scanner takes this file for a leak.
	pat = "gh" + "p_" + "x7K2mQ9vRt4LbN8sWc1YzE6uHf3AjD5pGo0i"
)

func newScanner(t testing.TB, o Options) *Scanner {
	t.Helper()
	s, err := New(o, secrets.Set{
		"api":    {Name: "api", Value: token, Hosts: []string{"api.example.com"}},
		"canary": {Name: "canary", Value: "canary-0123456789"},
		"github": {Name: "github", Value: pat, Hosts: []string{"api.github.test"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func encodings(v string) map[string]string {
	m := map[string]string{
		"plain": "x" + v + "y", "query": "q=" + url.QueryEscape(v), "path": url.PathEscape(v), "hex": hex.EncodeToString([]byte(v)),
		"HeX":  strings.ToUpper(hex.EncodeToString([]byte(v))[:9]) + hex.EncodeToString([]byte(v))[9:],
		"json": fmt.Sprintf("%q", v), "some percent": v[:3] + fmt.Sprintf("%%%02x", v[3]) + v[4:], "line break": v[:9] + "\r\n" + v[9:],
	}
	for i := range 3 {
		in := []byte(strings.Repeat("a", i) + v + "zz")
		m[fmt.Sprintf("base64 %d", i)] = base64.StdEncoding.EncodeToString(in)
		m[fmt.Sprintf("base64url %d", i)] = base64.URLEncoding.EncodeToString(in)
	}
	lines := base64.StdEncoding.EncodeToString([]byte(v))
	m["base64 in lines"] = lines[:20] + "\n" + lines[20:]
	m["base64, escaped"] = url.QueryEscape(base64.StdEncoding.EncodeToString([]byte(v)))
	return m
}

func TestKnownValues(t *testing.T) {
	s := newScanner(t, Options{Off: true})
	for name, text := range encodings(token) {
		if f := s.Text("evil.example", text); f == nil || f.Rule != "canary:api" || strings.Contains(f.Error(), token) {
			t.Errorf("%s: %v in %s", name, f, text)
		}
		if f := s.Text("api.example.com", text); f != nil {
			t.Errorf("%s: refused where it may go: %v", name, f)
		}
	}
	if f := s.Text("api.example.com", "canary-0123456789"); f == nil || f.Rule != "canary:canary" {
		t.Errorf("a canary: %v", f)
	}
	if f := s.Text("evil.example", "nothing to see: s3cr3t"); f != nil {
		t.Errorf("half of a value: %v", f)
	}
}

func TestRules(t *testing.T) {
	s := newScanner(t, Options{})
	key := "-----BEGIN RSA PRIVATE KEY-----\n" + strings.Repeat("MIIEpAIBAAKCAQEAx7K2mQ9vRt4LbN8sWc1YzE6uHf3AjD5pGo0i\n", 4) + "-----END RSA PRIVATE KEY-----\n"
	aws := "AKIA" + "X7K2QZ4RTLBNWCYZ"
	other := "gh" + "p_" + "Q7wE2rT9yU4iO1pA6sD3fG8hJ5kL0zXcVbNm"
	for name, text := range encodings(other) {
		if name == "HeX" || name == "base64 in lines" || name == "line break" || name == "plain" {
			continue // these are what known values are searched for in
		}
		if f := s.Text("evil.example", "a="+text+"\n"); f == nil || f.Rule != "secret:github-pat" || strings.Contains(f.Error(), other) {
			t.Errorf("%s: %v in %s", name, f, text)
		}
	}
	for rule, text := range map[string]string{"secret:private-key": key, "secret:aws-access-token": "key=" + aws + " ", "secret:github-pat": "Authorization: token " + other} {
		if f := s.Text("evil.example", text); f == nil || f.Rule != rule {
			t.Errorf("%s: %v", rule, f)
		}
	}
	for _, text := range []string{
		"GET /search?q=how+do+api+keys+work", `{"model":"x","messages":[{"content":"my password is in the token"}]}`,
		strings.Repeat("the quick brown fox jumps over the lazy dog ", 500), base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1, 2, 3, 250}, 500)),
	} {
		if f := s.Text("evil.example", text); f != nil {
			t.Errorf("%.40s: %v", text, f)
		}
	}
}

func TestInjectedCredentialsAreExpected(t *testing.T) {
	s := newScanner(t, Options{})
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+pat))
	for _, text := range []string{"token " + pat, basic, "/x?access_token=" + url.QueryEscape(pat)} {
		if f := s.Text("api.github.test", text); f != nil {
			t.Errorf("%s: %v", text, f)
		}
		if f := s.Text("evil.example", text); f == nil || f.Rule != "canary:github" {
			t.Errorf("%s elsewhere: %v", text, f)
		}
	}
}

func TestExemptions(t *testing.T) {
	other := "gh" + "p_" + "Q7wE2rT9yU4iO1pA6sD3fG8hJ5kL0zXcVbNm"
	s := newScanner(t, Options{Exempt: []Exemption{{Host: "*.git.test", Rules: []string{"github-pat"}}}})
	if f := s.Text("a.git.test", other); f != nil {
		t.Errorf("exempt: %v", f)
	}
	if f := s.Text("git.test", other); f == nil {
		t.Error("not exempt, and let through")
	}
	if f := s.Text("a.git.test", token); f == nil {
		t.Error("a known value was exempt")
	}
	if _, err := New(Options{Exempt: []Exemption{{Host: "*"}}}, nil); err == nil {
		t.Error("an exemption for everything was taken")
	}
}

func pack(t *testing.T, kind, text string) string {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if kind == "deflate" {
		w = zlib.NewWriter(&b)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func read(s *Scanner, encoding string, src io.Reader) (string, *Finding, error) {
	b, err := s.Body("evil.example", encoding, io.NopCloser(src))
	if err != nil {
		return "", nil, err
	}
	defer func() { _ = b.Close() }()
	out, err := io.ReadAll(b)
	return string(out), b.Finding(), err
}

func TestBody(t *testing.T) {
	s := newScanner(t, Options{})
	clean := strings.Repeat("lorem ipsum canary-01234 dolor ", 5000)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "with EOF": iotest.DataErrReader, "in halves": iotest.HalfReader,
	} {
		for _, encoding := range []string{"", "gzip", "deflate", "identity, x-gzip"} {
			kind := strings.TrimPrefix(encoding, "identity, x-")
			text, dirty := clean[:3000], clean[:2000]+token+clean[:1000]
			if kind != "" {
				text, dirty = pack(t, kind, text), pack(t, kind, dirty)
			}
			if out, f, err := read(s, encoding, wrap(strings.NewReader(text))); err != nil || f != nil || out != text {
				t.Errorf("%s, %q, clean: %d of %d bytes, %v, %v", name, encoding, len(out), len(text), f, err)
			}
			out, f, err := read(s, encoding, wrap(strings.NewReader(dirty)))
			if f == nil || f.Rule != "canary:api" || !errors.Is(err, error(f)) {
				t.Errorf("%s, %q: %v, %v", name, encoding, f, err)
			}
			if encoding == "" && strings.Contains(out, token[:holdFrom]) {
				t.Errorf("%s: the beginning of the secret went out: %q", name, out[max(0, len(out)-40):])
			}
		}
	}
	if out, f, err := read(s, "", strings.NewReader(clean)); err != nil || f != nil || out != clean {
		t.Errorf("long and clean: %d of %d, %v, %v", len(out), len(clean), f, err)
	}
	for encoding, text := range map[string]string{
		"br": "x", "gzip": "not gzip", "gzip, gzip": "x", "zstd": "x",
		" gzip": pack(t, "gzip", "ok") + "trailing",
		"GZIP":  pack(t, "gzip", strings.Repeat("\x00", 64<<20)),
	} {
		_, f, err := read(s, encoding, strings.NewReader(text))
		if err == nil {
			t.Errorf("%q: no error (%v)", encoding, f)
		}
	}
}

func TestAMessageIsNotHeldBack(t *testing.T) {
	s := newScanner(t, Options{})
	pr, pw := io.Pipe()
	b, err := s.Body("evil.example", "", pr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	buf := make([]byte, 100)
	for _, msg := range []string{"hello", "s3cr", "x"} {
		go func() { _, _ = pw.Write([]byte(msg)) }()
		if n, err := io.ReadAtLeast(b, buf, len(msg)); err != nil || string(buf[:n]) != msg {
			t.Errorf("%q: %q, %v", msg, buf[:n], err)
		}
	}
}

func TestClosingEarlyEndsTheDecompressor(t *testing.T) {
	s := newScanner(t, Options{})
	b, err := s.Body("evil.example", "gzip", io.NopCloser(strings.NewReader(pack(t, "gzip", "hello"))))
	if err != nil {
		t.Fatal(err)
	}
	u := b.unpack
	_ = b.Close()
	_ = b.Close()
	<-u.done
}

func TestMask(t *testing.T) {
	s := newScanner(t, Options{})
	m := secrets.NewMasker(token)
	other := "gh" + "p_" + "Q7wE2rT9yU4iO1pA6sD3fG8hJ5kL0zXcVbNm"
	got := s.Mask(m, "/a/"+url.PathEscape(token)+"/"+other)
	if strings.Contains(got, "s3cr3t") || strings.Contains(got, other) || !strings.HasPrefix(got, "/a/***") {
		t.Errorf("masked: %s", got)
	}
}

func BenchmarkBody(b *testing.B) {
	s := newScanner(b, Options{})
	random := make([]byte, 1<<20)
	rand.Read(random)
	for name, text := range map[string]string{
		"text":   strings.Repeat("lorem ipsum dolor sit amet, consectetur adipiscing elit 0123456789\n", 1<<20/67),
		"random": string(random),
		"base64": base64.StdEncoding.EncodeToString(random[:1<<19]),
		"code":   strings.Repeat("\tif err := client.Get(ctx, key, &token); err != nil { return fmt.Errorf(\"secret %s: %w\", name, err) }\n", 1<<20/104),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				body, err := s.Body("evil.example", "", io.NopCloser(strings.NewReader(text)))
				if err != nil {
					b.Fatal(err)
				}
				if _, err := io.Copy(io.Discard, struct{ io.Reader }{body}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func FuzzBody(f *testing.F) {
	s, err := New(Options{Off: true}, secrets.Set{"api": {Name: "api", Value: token}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte("xx"+token+"yy"), 4)
	f.Fuzz(func(t *testing.T, in []byte, at int) {
		if at < 0 || at > len(in) {
			return
		}
		src := io.MultiReader(bytes.NewReader(in[:at]), bytes.NewReader(in[at:]))
		out, finding, err := read(s, "", src)
		if (finding != nil) != bytes.Contains(in, []byte(token)) && finding == nil {
			t.Fatalf("missed in %q", in)
		}
		if finding == nil && (err != nil || out != string(in)) {
			t.Fatalf("%q became %q, %v", in, out, err)
		}
		if bytes.Contains([]byte(out), []byte(token)) {
			t.Fatalf("went out: %q", out)
		}
	})
}
