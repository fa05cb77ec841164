package upstream

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
)

// FuzzWriteRequest holds what is written against what net/http writes: the same lines, in
// whatever order the fields are in.
func FuzzWriteRequest(f *testing.F) {
	f.Add("GET", "a.example:8443", "/x%2fy?z", "User-Agent", "x", "X-A", "b\r\nHost: c")
	f.Add("POST", "a.example", "/", "Content-Length", "5", "Bad Name", " v ")
	f.Add("HEAD", "[::1]", "*", "user-agent", "", "Te", "trailers")
	f.Fuzz(func(t *testing.T, method, host, target, name1, value1, name2, value2 string) {
		u, err := url.ParseRequestURI(target)
		if err != nil || u.Host != "" || u.Opaque != "" || strings.ContainsAny(host, "%") {
			return
		}
		u.Scheme, u.Host = "https", host
		req := &http.Request{Method: method, URL: u, Host: host, Header: http.Header{name1: {value1}}, Body: http.NoBody}
		req.Header[name2] = append(req.Header[name2], value2, value1)
		lines := func(write func(bw *bufio.Writer) error) ([]string, error) {
			var b bytes.Buffer
			bw := bufio.NewWriterSize(&b, 16) // nothing depends on what fits
			err := write(bw)
			_ = bw.Flush()
			head, rest, ok := strings.Cut(b.String(), "\r\n\r\n")
			if err == nil && (!ok || rest != "") {
				t.Fatalf("%q is written", b.String())
			}
			all := strings.Split(head, "\r\n")
			slices.Sort(all[1:])
			return all, err
		}
		got, err := lines(func(bw *bufio.Writer) error { return writeRequest(bw, req) })
		want, errWant := lines(func(bw *bufio.Writer) error { return req.Write(bw) })
		if err != nil {
			return // it may be stricter
		}
		if errWant != nil || !slices.Equal(got, want) {
			t.Fatalf("%q; net/http writes %q, %v", got, want, errWant)
		}
	})
}
