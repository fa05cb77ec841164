package e2e

import (
	"crypto/tls"
	"io"
	"net/http"
	"sort"
	"testing"
	"time"
)

// direct returns a client that has no proxy.
func (w *world) direct() *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: w.upstreamCA.pool()}, DisableCompression: true}
	w.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// BenchmarkRequests sends requests over one kept-alive connection, directly and through
// both hops. All ends share the processors.
func BenchmarkRequests(b *testing.B) {
	w := newWorld(b)
	for name, c := range map[string]struct {
		client *http.Client
		url    string
	}{
		"direct":    {w.direct(), "https://127.0.0.1:" + w.https + "/"},
		"both hops": {w.client(false), "https://allowed.test:" + w.https + "/"},
	} {
		b.Run(name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				start := time.Now()
				resp, err := c.client.Get(c.url)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				took = append(took, time.Since(start))
			}
			sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "µs-p50")
			w.arrived()
		})
	}
}

// BenchmarkDownload loads one large body, directly and through both hops.
func BenchmarkDownload(b *testing.B) {
	w := newWorld(b)
	const size = 64 << 20
	block := make([]byte, 64<<10)
	w.handle["/down"] = func(rw http.ResponseWriter, _ *http.Request) {
		for range size / len(block) {
			_, _ = rw.Write(block)
		}
	}
	for name, c := range map[string]struct {
		client *http.Client
		url    string
	}{
		"direct":    {w.direct(), "https://127.0.0.1:" + w.https + "/down"},
		"both hops": {w.client(false), "https://allowed.test:" + w.https + "/down"},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				resp, err := c.client.Get(c.url)
				if err != nil {
					b.Fatal(err)
				}
				if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != size {
					b.Fatal(n, err)
				}
				resp.Body.Close()
			}
		})
	}
}
