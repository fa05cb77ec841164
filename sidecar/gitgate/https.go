package gitgate

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pktline"
)

// agentName is what the gate calls itself to both sides, whoever its client is. Servers
// know git by how it begins.
const agentName = "git/2.47.0-bottle"

// maxRedirects is how often an upstream may send the gate on.
const maxRedirects = 3

// httpsUpstream speaks git's smart protocol over HTTPS (gitprotocol-http).
type httpsUpstream struct {
	client    *http.Client
	authorize func(*http.Request)
	check     func(context.Context) error // nil if whoever dials checks

	mu   sync.Mutex
	base string // of the URL; an upstream may say that it is elsewhere on the same host
}

func newHTTPSUpstream(u *config.GitURL, dial dialer, roots *x509.CertPool, proxy *url.URL, authorize func(*http.Request)) *httpsUpstream {
	t := &http.Transport{
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(8)},
		DisableCompression:     true,
		MaxIdleConnsPerHost:    4,
		IdleConnTimeout:        time.Minute,
		TLSHandshakeTimeout:    15 * time.Second,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         64 << 10,
		WriteBufferSize:        64 << 10,
		Protocols:              &http.Protocols{},
	}
	t.Protocols.SetHTTP1(true)
	if proxy != nil {
		t.Proxy = http.ProxyURL(proxy)
	}
	return &httpsUpstream{
		client:    &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		authorize: authorize,
		base:      strings.TrimSuffix(u.String(), "/"),
	}
}

// exchange is a session over HTTPS.
type exchange struct {
	up      *httpsUpstream
	ctx     context.Context
	cancel  context.CancelFunc
	service string
	version int
	base    string
	first   *pktline.Reader
	bodies  []io.ReadCloser
}

func (u *httpsUpstream) open(ctx context.Context, service string, version int) (session, error) {
	if u.check != nil {
		if err := u.check(ctx); err != nil {
			return nil, &upstreamError{err}
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	u.mu.Lock()
	x := &exchange{up: u, ctx: ctx, cancel: cancel, service: service, version: version, base: u.base}
	u.mu.Unlock()
	if err := x.begin(); err != nil {
		x.close()
		return nil, err
	}
	return x, nil
}

// begin asks for the advertisement.
func (x *exchange) begin() error {
	query := "/info/refs?service=" + x.service
	for range maxRedirects + 1 {
		req, err := http.NewRequestWithContext(x.ctx, http.MethodGet, x.base+query, nil)
		if err != nil {
			return &upstreamError{err}
		}
		timer := time.AfterFunc(connectTimeout, x.cancel)
		resp, err := x.do(req)
		timer.Stop()
		if err != nil {
			return err
		}
		x.bodies = append(x.bodies, resp.Body)
		if resp.StatusCode >= 300 && resp.StatusCode < 400 {
			if err := x.redirect(resp, query); err != nil {
				return err
			}
			continue
		}
		if err := x.judge(resp, "advertisement"); err != nil {
			return err
		}
		x.first = pktline.NewReader(resp.Body)
		return x.skipService()
	}
	return upstreamFailed("the upstream sent the gate on more than %d times", maxRedirects)
}

// redirect goes where an upstream says it is: on the same host, over HTTPS, and at a URL
// that is one of a repository.
func (x *exchange) redirect(resp *http.Response, query string) error {
	to, err := resp.Location()
	if err != nil {
		return upstreamFailed("the upstream answered %s, and not where to", resp.Status)
	}
	at := resp.Request.URL
	base, ok := strings.CutSuffix(to.String(), query)
	if to.Scheme != at.Scheme || !strings.EqualFold(to.Host, at.Host) || to.User != nil || !ok {
		return upstreamFailed("the upstream says that the repository is at %s://%s%s, where the gate does not follow: the operator has to give that URL if it is meant", to.Scheme, to.Host, strings.TrimSuffix(to.Path, "/info/refs"))
	}
	x.base = base
	x.up.mu.Lock()
	x.up.base = base
	x.up.mu.Unlock()
	return nil
}

// skipService skips the service's name, which a version 2 may leave out.
func (x *exchange) skipService() error {
	next, err := x.first.R.Peek(len("0000# service="))
	if err != nil || !strings.HasPrefix(string(next[4:]), "# service=") {
		return nil //nolint:nilerr // whoever reads the advertisement sees the error
	}
	p, err := x.first.Next()
	if err != nil || p.Text() != "# service="+x.service {
		return upstreamFailed("the upstream does not speak of the service %s", x.service)
	}
	if p, err = x.first.Next(); err != nil || p.Kind != pktline.Flush {
		return upstreamFailed("the upstream's advertisement is malformed")
	}
	return nil
}

func (x *exchange) do(req *http.Request) (*http.Response, error) {
	req.Header.Set("User-Agent", agentName)
	if x.version != 0 {
		req.Header.Set("Git-Protocol", fmt.Sprintf("version=%d", x.version))
	}
	x.up.authorize(req)
	resp, err := x.up.client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the URL
		}
		return nil, upstreamFailed("reaching the upstream: %w", err)
	}
	return resp, nil
}

// judge says whether an answer is one of git's protocol.
func (x *exchange) judge(resp *http.Response, kind string) error {
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return upstreamFailed("the upstream does not accept the credential of the gate (%s): the operator has to renew it", resp.Status)
	case http.StatusForbidden:
		return upstreamFailed("the upstream does not allow this to the credential of the gate (%s)", resp.Status)
	case http.StatusNotFound:
		return upstreamFailed("the upstream has no such repository, or does not show it to the credential of the gate (%s)", resp.Status)
	default:
		return upstreamFailed("the upstream answered %s", resp.Status)
	}
	want := "application/x-" + x.service + "-" + kind
	if got := resp.Header.Get("Content-Type"); got != want {
		return upstreamFailed("the upstream answered with %q, not with %s: it does not speak git's smart protocol there", got, want)
	}
	return nil
}

func (x *exchange) advertisement() *pktline.Reader { return x.first }

func (x *exchange) ask(body io.Reader, size int64) (*pktline.Reader, error) {
	req, err := http.NewRequestWithContext(x.ctx, http.MethodPost, x.base+"/"+x.service, body)
	if err != nil {
		return nil, &upstreamError{err}
	}
	for _, b := range x.bodies {
		_, _ = io.CopyN(io.Discard, b, 4<<10) // a connection whose answer was read is used again
		b.Close()
	}
	x.bodies = nil
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/x-"+x.service+"-request")
	req.Header.Set("Accept", "application/x-"+x.service+"-result")
	resp, err := x.do(req)
	if err != nil {
		return nil, err
	}
	x.bodies = append(x.bodies, resp.Body)
	if resp.StatusCode >= 300 && resp.StatusCode < 400 {
		return nil, upstreamFailed("the upstream sent the gate on in the middle of a request")
	}
	if err := x.judge(resp, "result"); err != nil {
		return nil, err
	}
	return pktline.NewReader(resp.Body), nil
}

func (x *exchange) stream() io.Writer { return nil }

func (x *exchange) trouble(err error) error { return err }

func (x *exchange) close() {
	x.cancel()
	for _, b := range x.bodies {
		b.Close()
	}
}
