package intercept

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/secrets"
)

// Forwarder sends requests on and their answers back.
type Forwarder struct {
	// H1 speaks HTTP/1.1 alone, H2 both. The upstream is spoken to as the client speaks.
	H1, H2 http.RoundTripper
	// Idle is how long nothing may move, in neither direction.
	Idle time.Duration
}

// Inspection is what is to be done with what passes.
type Inspection struct {
	// Mask hides secrets in the answer.
	Mask *secrets.Masker
	// Answer is called with the answer before any of it is sent. An error refuses it.
	Answer func(*http.Response) error
	// Frames is called with what the client sends over a WebSocket, unmasked, before it
	// is passed on. An error ends the connection.
	Frames func([]byte) error
}

// Result is how forwarding ended.
type Result struct {
	// Status is what the client got, 0 if Err is set and nothing was sent yet.
	Status int
	// BytesIn came in, BytesOut went out, counted in bodies.
	BytesIn, BytesOut int64
	// Err says why it failed. If something had been sent, the handler has to panic with
	// [http.ErrAbortHandler] for the client to see that it is not whole.
	Err error
}

// ErrIdle is the error of what was ended because nothing moved.
var ErrIdle = errors.New("nothing moved for too long")

// hopHeaders belong to one connection.
var hopHeaders = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade", "Http2-Settings",
}

// Outgoing makes the request to send for one that came in, with a target in origin form.
// Its header is a copy without what belongs to the connection.
func Outgoing(r *Request, target string) (*http.Request, error) {
	rawPath, query, hasQuery := strings.Cut(target, "?")
	path, err := url.PathUnescape(rawPath)
	if err != nil || !strings.HasPrefix(rawPath, "/") {
		return nil, errors.New("the path holds a malformed percent escape or does not begin with a slash")
	}
	port := r.Port
	if port == policy.DefaultPort(r.Scheme) {
		port = 0
	}
	authority := policy.JoinHostPort(r.Addr, port)
	out := &http.Request{
		Method:        r.Method,
		Proto:         "HTTP/1.1",
		ProtoMajor:    1,
		ProtoMinor:    1, // without these nobody waits for 100 Continue
		URL:           &url.URL{Scheme: r.Scheme, Host: authority, Path: path, RawPath: rawPath, RawQuery: query, ForceQuery: hasQuery && query == ""},
		Host:          authority,
		Header:        r.Header.Clone(),
		Body:          r.Body,
		ContentLength: r.ContentLength,
		Trailer:       r.Trailer, // filled in while the body is read
	}
	if r.ContentLength == 0 {
		out.Body = http.NoBody
	}
	upgrade := IsWebSocket(r.Request)
	trailers := slices.ContainsFunc(r.Header["Te"], func(v string) bool { return strings.Contains(v, "trailers") })
	removeHop(out.Header)
	delete(out.Header, "Host")
	if trailers {
		out.Header.Set("Te", "trailers")
	}
	if upgrade {
		out.Header.Set("Connection", "Upgrade")
		out.Header.Set("Upgrade", "websocket")
		// Compressed frames could be neither scanned nor masked.
		out.Header.Del("Sec-Websocket-Extensions")
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header.Set("User-Agent", "") // none, instead of net/http's
	}
	return out, nil
}

// IsWebSocket reports whether a request asks for a WebSocket.
func IsWebSocket(r *http.Request) bool {
	return r.ProtoMajor == 1 && strings.EqualFold(r.Header.Get("Upgrade"), "websocket") &&
		slices.ContainsFunc(r.Header["Connection"], func(v string) bool { return strings.Contains(strings.ToLower(v), "upgrade") })
}

func removeHop(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopHeaders {
		delete(h, name)
	}
}

// watch ends something when nothing moves, unless it was stopped.
type watch struct {
	idle  time.Duration
	last  atomic.Int64 // nanoseconds since start
	start time.Time
	fired atomic.Bool

	mu      sync.Mutex // held while something is ended
	timer   *time.Timer
	stopped bool
}

func newWatch(idle time.Duration, end func()) *watch {
	w := &watch{idle: idle, start: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = time.AfterFunc(idle, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.stopped {
			return
		}
		if quiet := time.Since(w.start) - time.Duration(w.last.Load()); quiet < idle {
			w.timer.Reset(idle - quiet)
			return
		}
		w.fired.Store(true)
		end()
	})
	return w
}

// stop has nothing ended from now on: when it returns, what would be ended may be gone.
func (w *watch) stop() {
	w.timer.Stop()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopped = true
}

func (w *watch) moved() { w.last.Store(int64(time.Since(w.start))) }

// watched counts and reports what is read from a body.
type watched struct {
	io.ReadCloser
	watch *watch
	count *atomic.Int64
}

func (b *watched) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.count.Add(int64(n))
	b.watch.moved()
	return n, err
}

const (
	bufferSize = 32 << 10 // what is passed on at a time, in bytes
	longBuffer = 64 << 10 // the same of a body that is known to be long
	longBody   = 256 << 10
)

var (
	buffers     = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}
	longBuffers = sync.Pool{New: func() any { b := make([]byte, longBuffer); return &b }}
)

// Forward sends a request and passes on the answer.
func (f *Forwarder) Forward(w http.ResponseWriter, r *Request, out *http.Request, in Inspection) (res Result) {
	rc := http.NewResponseController(w)
	if r.ProtoMajor == 1 {
		// An answer may begin while the body is still being sent.
		_ = rc.EnableFullDuplex()
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	watch := newWatch(f.Idle, func() {
		cancel(ErrIdle)
		past := time.Unix(1, 0)
		_ = rc.SetReadDeadline(past)
		_ = rc.SetWriteDeadline(past)
	})
	defer watch.stop()
	var sent atomic.Int64
	if out.Body != nil && out.Body != http.NoBody {
		body := &watched{ReadCloser: out.Body, watch: watch, count: &sent}
		out.Body = body
		defer body.Close()
	}
	defer func() {
		res.BytesOut += sent.Load()
		if res.Err != nil && watch.fired.Load() {
			res.Err = ErrIdle
		}
	}()
	transport := f.H1
	if r.ProtoMajor == 2 {
		transport = f.H2
	}
	resp, err := transport.RoundTrip(out.WithContext(ctx))
	if err != nil {
		return Result{Err: err}
	}
	defer resp.Body.Close()
	watch.moved()
	if in.Answer != nil {
		if err := in.Answer(resp); err != nil {
			return Result{Err: err}
		}
	}
	if resp.StatusCode == http.StatusSwitchingProtocols {
		return f.switchProtocols(w, r, resp, in, watch)
	}
	return f.answer(w, rc, r, resp, in, watch)
}

func (f *Forwarder) answer(w http.ResponseWriter, rc *http.ResponseController, r *Request, resp *http.Response, in Inspection, watch *watch) Result {
	res := Result{Status: resp.StatusCode}
	removeHop(resp.Header)
	h := w.Header()
	copyHeader(h, resp.Header, in.Mask)
	if r.Header.Get("Upgrade") != "" {
		// The strict reader has let go of this connection.
		h.Set("Connection", "close")
	}
	announced := len(resp.Trailer)
	for name := range resp.Trailer {
		h.Add("Trailer", name)
	}
	w.WriteHeader(resp.StatusCode)
	streams := resp.ContentLength < 0
	if streams {
		if err := rc.Flush(); err != nil {
			res.Err = fmt.Errorf("answering the client: %w", err)
			return res
		}
	}
	src := in.Mask.Reader(resp.Body)
	pool := &buffers
	if resp.ContentLength >= longBody {
		pool = &longBuffers
	}
	buf := pool.Get().(*[]byte)
	defer pool.Put(buf)
	for {
		n, err := src.Read(*buf)
		watch.moved()
		if n > 0 {
			if _, werr := w.Write((*buf)[:n]); werr != nil {
				res.Err = fmt.Errorf("answering the client: %w", werr)
				return res
			}
			res.BytesIn += int64(n)
			watch.moved()
			// A full buffer means that more is at hand. The end is sent when the handler
			// returns, which a body of the client's that still comes may keep it from.
			last := res.BytesIn == resp.ContentLength && r.ContentLength == 0
			if streams || n < len(*buf) && !last {
				if werr := rc.Flush(); werr != nil {
					res.Err = fmt.Errorf("answering the client: %w", werr)
					return res
				}
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			res.Err = fmt.Errorf("reading the answer: %w", err)
			return res
		}
	}
	prefix := ""
	if len(resp.Trailer) != announced {
		prefix = http.TrailerPrefix
	}
	for name, values := range resp.Trailer {
		for _, v := range values {
			h.Add(prefix+name, in.Mask.String(v))
		}
	}
	return res
}

func copyHeader(dst, src http.Header, mask *secrets.Masker) {
	for name, values := range src {
		if _, there := dst[name]; mask == nil && !there {
			dst[name] = values
			continue
		}
		for _, v := range values {
			dst.Add(name, mask.String(v))
		}
	}
}
