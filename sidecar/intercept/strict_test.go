package intercept

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"
)

// readAll reads requests until something is wrong or there are no more, each with its
// body. What a tunnel leads on to is the last body.
func readAll(src io.Reader, maxHead int) (heads []*head, bodies []string, err error) {
	r := newStrictReader(src, maxHead, new(atomic.Bool))
	for {
		h, err := r.next()
		if err != nil {
			if errors.Is(err, io.EOF) && len(r.in) == 0 {
				err = nil
			}
			return heads, bodies, err
		}
		var body []byte
		if heads = append(heads, h); h.state == inTunnel {
			body, err = io.ReadAll(r.tunnel())
		} else if body, err = io.ReadAll(r); err == nil && !r.whole.Load() {
			err = errors.New("the body ended before its end")
		}
		bodies = append(bodies, string(body))
		if err != nil || h.state == inTunnel {
			return heads, bodies, err
		}
	}
}

func TestWhatIsWellFormedIsRead(t *testing.T) {
	text := "GET /a?b HTTP/1.1\r\nHost: a.com\r\naccept: x\r\nAccept:\ty \r\n\r\n" +
		"POST /x HTTP/1.1\r\nHost: a.com\r\nContent-Length: 5\r\n\r\nhello" +
		"POST /x HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, x-none\r\n\r\n5;ext=1\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\nX-Other: 2\r\n\r\n" +
		"PUT /x HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n" +
		"GET http://a.com:80/ HTTP/1.0\r\nHost: A.com\r\n\r\n" +
		"CONNECT a.com:443 HTTP/1.1\r\nHost: a.com\r\n\r\n\x16\x03anything\ngoes"
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "with EOF": iotest.DataErrReader,
	} {
		heads, bodies, err := readAll(wrap(strings.NewReader(text)), 64<<10)
		if err != nil || len(heads) != 6 {
			t.Fatalf("%s: %d requests, %v", name, len(heads), err)
		}
		if want := []string{"", "hello", "hello0123456789", "", "", "\x16\x03anything\ngoes"}; !slices.Equal(bodies, want) {
			t.Errorf("%s: the bodies are %q", name, bodies)
		}
		var lines []string
		for _, h := range heads {
			lines = append(lines, fmt.Sprint(h.method, " ", h.target, " ", h.host, " ", h.length, " ", h.close, " ", h.header, h.trailer))
		}
		want := []string{
			"GET /a?b a.com 0 false map[Accept:[x y]] map[]",
			"POST /x a.com 5 false map[Content-Length:[5]] map[]",
			"POST /x a.com -1 false map[] map[X-None:[] X-Sum:[1]]",
			"PUT /x a.com -1 false map[] map[]",
			"GET http://a.com:80/ a.com:80 0 true map[] map[]",
			"CONNECT a.com:443 a.com:443 0 false map[] map[]",
		}
		if !slices.Equal(lines, want) {
			t.Errorf("%s:\n%s", name, strings.Join(lines, "\n"))
		}
	}
}

func TestViolationsInBodies(t *testing.T) {
	for name, body := range map[string]string{
		"a size that is none": "x\r\n", "a negative size": "-1\r\n", "a prefix": "0x5\r\nhello\r\n0\r\n\r\n", "a huge size": "ffffffffffffffff\r\n", "no size": "\r\n", "a bare line feed": "5\nhello\r\n0\r\n\r\n",
		"a chunk that is longer": "5\r\nhellox\r\n0\r\n\r\n", "a long extension": "5;" + strings.Repeat("x", 5<<10) + "\r\n", "a bare line feed in a trailer": "0\r\nA: b\n\r\n",
		"framing in a trailer": "0\r\nContent-Length: 5\r\n\r\n", "a folded trailer": "0\r\nA: b\r\n c\r\n\r\n", "a control character in an extension": "5;\x01\r\nhello\r\n0\r\n\r\n",
		"too many trailers": "0\r\n" + strings.Repeat("A: b\r\n", 300) + "\r\n", "a long trailer": "0\r\nA: " + strings.Repeat("b", 65<<10) + "\r\n\r\n",
	} {
		r := newStrictReader(strings.NewReader("POST / HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: chunked\r\n\r\n"+body+"GET /smuggled HTTP/1.1\r\nHost: a.com\r\n\r\n"), 64<<10, new(atomic.Bool))
		if _, err := r.next(); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(r)
		if err == nil || r.violated == nil || bytes.Contains(got, []byte("smuggled")) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if h, err := r.next(); err == nil {
			t.Errorf("%s: it is followed by %s %s", name, h.method, h.target)
		}
	}
}

// FuzzStrict holds the strict reader against net/http: what it reads, net/http reads in
// the same way, to the last byte. How the bytes come does not matter.
func FuzzStrict(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a.com\r\n\r\n", "POST / HTTP/1.1\r\nHost: a.com\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: b.com\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTrailer: A\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n", "GET / HTTP/1.0\r\nConnection: keep-alive\r\nX: y\r\nx: z\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		heads, bodies, err := readAll(bytes.NewReader(in), 8<<10)
		again, bodiesAgain, errAgain := readAll(iotest.OneByteReader(bytes.NewReader(in)), 8<<10)
		if len(again) != len(heads) || !slices.Equal(bodies, bodiesAgain) || (err == nil) != (errAgain == nil) {
			t.Fatalf("%q: %d, %q, %v; byte by byte %d, %q, %v", in, len(heads), bodies, err, len(again), bodiesAgain, errAgain)
		}
		br := bufio.NewReader(bytes.NewReader(in))
		for i, h := range heads {
			req, err := http.ReadRequest(br)
			if err != nil {
				t.Fatalf("%q: net/http does not read request %d: %v", in, i, err)
			}
			if req.Header.Get("Pragma") == "no-cache" {
				return // net/http adds a header
			}
			delete(req.Header, "Trailer") // which net/http leaves there if it means nothing
			ours := h.request(t.Context())
			if req.Method != ours.Method || req.RequestURI != ours.RequestURI || req.Host != ours.Host || req.Close != ours.Close || req.Proto != ours.Proto ||
				req.ContentLength != ours.ContentLength || !slices.Equal(req.TransferEncoding, ours.TransferEncoding) {
				t.Fatalf("%q: request %d is\n%+v, for net/http\n%+v", in, i, ours, req)
			}
			if ours.Method != http.MethodConnect && req.URL.String() != ours.URL.String() {
				t.Fatalf("%q: request %d is to %s, for net/http to %s", in, i, ours.URL, req.URL)
			}
			if !maps.EqualFunc(req.Header, ours.Header, slices.Equal) {
				t.Fatalf("%q: request %d has the header %v, for net/http %v", in, i, ours.Header, req.Header)
			}
			if h.state == inTunnel {
				return
			}
			body, err := io.ReadAll(req.Body)
			if string(body) != bodies[i] && (err == nil || i < len(heads)-1) {
				t.Fatalf("%q: request %d has the body %q, for net/http %q", in, i, bodies[i], body)
			}
			for name, values := range ours.Trailer {
				if !slices.Equal(values, req.Trailer[name]) && err == nil {
					t.Fatalf("%q: request %d has the trailer %v, for net/http %v", in, i, ours.Trailer, req.Trailer)
				}
			}
		}
	})
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{0x81, 0x83, 1, 2, 3, 4, 'a' ^ 1, 'b' ^ 2, 'c' ^ 3}, 2)
	f.Fuzz(func(t *testing.T, in []byte, at int) {
		if at < 0 || at > len(in) {
			return
		}
		collect := func(parts ...[]byte) (string, error) {
			var b strings.Builder
			r := &frameReader{inspect: func(p []byte) error { b.Write(p); return nil }}
			for _, p := range parts {
				if err := r.feed(p); err != nil {
					return b.String(), err
				}
			}
			return b.String(), nil
		}
		one, err1 := collect(in)
		two, err2 := collect(in[:at], in[at:])
		if one != two || (err1 == nil) != (err2 == nil) {
			t.Fatalf("%q, %v but in parts %q, %v", one, err1, two, err2)
		}
	})
}

func testMinter(t testing.TB) (*Minter, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	m, err := NewMinter(certPEM, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	if _, err := NewMinter(certPEM, certPEM); err == nil {
		t.Error("a certificate passed for a key")
	}
	return m, pool
}

func TestMinter(t *testing.T) {
	m, pool := testMinter(t)
	for _, host := range []string{"a.example", "192.0.2.1", "2001:db8::1", strings.Repeat("long.", 40) + "example"} {
		cert, err := m.Get(host)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: pool}); err != nil {
			t.Errorf("%s: %v", host, err)
		}
		if cert.Leaf.NotAfter.After(m.ca.NotAfter) {
			t.Errorf("%s outlives its authority", host)
		}
	}
	first, _ := m.Get("a.example")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if again, err := m.Get("a.example"); err != nil || again != first {
				t.Error("it was minted again")
			}
		})
	}
	wg.Wait()
	m.byKey["a.example"].Value.(*minted).until = time.Now()
	if again, _ := m.Get("a.example"); again == first {
		t.Error("it was not renewed")
	}
	for i := range maxLeaves + 10 {
		m.entry(fmt.Sprint(i))
	}
	if len(m.byKey) != maxLeaves || m.order.Len() != maxLeaves {
		t.Errorf("%d are kept", len(m.byKey))
	}
}

func BenchmarkMint(b *testing.B) {
	m, _ := testMinter(b)
	for b.Loop() {
		if _, err := m.mint("a.example"); err != nil {
			b.Fatal(err)
		}
	}
}
