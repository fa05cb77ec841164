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
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"
)

// fakeConn is a connection from which a text is read.
type fakeConn struct {
	net.Conn
	r io.Reader
}

func (c fakeConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func TestWhatIsWellFormedPassesAsItIs(t *testing.T) {
	text := "GET / HTTP/1.1\r\nHost: a.com\r\n\r\n" +
		"POST /x HTTP/1.1\r\nHost: a.com\r\nContent-Length: 5\r\n\r\nhello" +
		"POST /x HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\nA\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\n" +
		"PUT /x HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\n\r\n" +
		"GET http://a.com:80/ HTTP/1.0\r\nHost: A.com\r\n\r\n" +
		"CONNECT a.com:443 HTTP/1.1\r\nHost: a.com\r\n\r\n\x16\x03anything\ngoes"
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "byte by byte": iotest.OneByteReader, "with EOF": iotest.DataErrReader,
	} {
		c := newStrictConn(fakeConn{r: wrap(strings.NewReader(text))}, nil, 64<<10)
		got, err := io.ReadAll(c)
		if err != nil || string(got) != text || c.violation() != "" || !c.opened.Load() {
			t.Errorf("%s: %q, %v, %s", name, got, err, c.violation())
		}
	}
}

func TestViolationsInBodies(t *testing.T) {
	for name, body := range map[string]string{
		"a size that is none": "x\r\n", "a negative size": "-1\r\n", "a prefix": "0x5\r\nhello\r\n0\r\n\r\n", "a huge size": "ffffffffffffffff\r\n", "no size": "\r\n", "a bare line feed": "5\nhello\r\n0\r\n\r\n",
		"a chunk that is longer": "5\r\nhellox\r\n0\r\n\r\n", "a long extension": "5;" + strings.Repeat("x", 5<<10) + "\r\n", "a bare line feed in a trailer": "0\r\nA: b\n\r\n",
		"framing in a trailer": "0\r\nContent-Length: 5\r\n\r\n", "a folded trailer": "0\r\nA: b\r\n c\r\n\r\n", "a control character in an extension": "5;\x01\r\nhello\r\n0\r\n\r\n",
	} {
		c := newStrictConn(fakeConn{r: strings.NewReader("POST / HTTP/1.1\r\nHost: a.com\r\nTransfer-Encoding: chunked\r\n\r\n" + body + "GET /smuggled HTTP/1.1\r\nHost: a.com\r\n\r\n")}, nil, 64<<10)
		got, err := io.ReadAll(c)
		if err == nil || c.violation() == "" || bytes.Contains(got, []byte("smuggled")) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// FuzzStrict feeds bytes to the strict reader and what comes out of it to net/http: every
// request that net/http sees has to be framed as the strict reader framed it, and the
// host that net/http takes it for has to be in its head as it is.
func FuzzStrict(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: a.com\r\n\r\n", "POST / HTTP/1.1\r\nHost: a.com\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: b.com\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		c := newStrictConn(fakeConn{r: bytes.NewReader(in)}, nil, 8<<10)
		out, err := io.ReadAll(c)
		if violation := c.violation(); violation == "" && err == nil && !c.opened.Load() && !bytes.HasPrefix(in, out) {
			t.Fatalf("%q became %q", in, out)
		}
		if c.violation() != "" || c.opened.Load() {
			return
		}
		br := bufio.NewReader(bytes.NewReader(out))
		for {
			req, err := http.ReadRequest(br)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return
			}
			if err != nil {
				return // net/http is stricter still: it answers 400 and closes
			}
			if len(req.TransferEncoding) > 0 && req.Header.Get("Content-Length") != "" {
				t.Fatalf("%q has two lengths", out)
			}
			if req.URL.Host != "" && req.Host != "" && !strings.EqualFold(req.Host, req.URL.Host) {
				t.Fatalf("%q: hosts %q and %q", out, req.Host, req.URL.Host)
			}
			if _, err := io.Copy(io.Discard, req.Body); err != nil {
				if strings.Contains(err.Error(), "unexpected EOF") {
					return // the input ends there
				}
				t.Fatalf("%q: net/http does not read the body: %v", out, err)
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
