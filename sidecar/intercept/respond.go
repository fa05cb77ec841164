package intercept

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// telling is how long an answer may take on a connection that is given up.
const telling = 5 * time.Second

// response is the answer to a request. It is made by the goroutine that serves the
// connection.
type response struct {
	c      *conn
	r      *Request
	body   *requestBody // nil: the request has none
	header http.Header
	close  bool // the connection is closed after it
	// The request asks for a tunnel: what follows it is not HTTP.
	tunnels bool

	mu      sync.Mutex // of begun, which who reads the body looks at
	begun   bool       // its head is written
	status  int
	bare    bool  // it has no body, whatever its head says
	length  int64 // of the body, -1 if the head does not say
	chunked bool
	written int64
	trails  []string // names of the trailers that were announced

	taken    bool    // the connection is somebody else's
	connects *tunnel // what the request is to open
}

// Header is the header of the answer.
func (w *response) Header() http.Header { return w.header }

// proceed tells the client to send the body, unless the answer is there first.
func (w *response) proceed() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.begun {
		return nil
	}
	_, _ = w.c.bw.WriteString("HTTP/1.1 100 Continue\r\n\r\n")
	return w.c.bw.Flush()
}

// interrupt stops whoever reads or writes.
func (w *response) interrupt() {
	w.c.broken.Store(true)
	_ = w.c.nc.SetReadDeadline(time.Unix(1, 0))
}

// SetReadDeadline and SetWriteDeadline are for what nothing moves on: the connection is
// not used again.
func (w *response) SetReadDeadline(t time.Time) error {
	w.c.broken.Store(true)
	return w.c.nc.SetReadDeadline(t)
}

// SetWriteDeadline is like SetReadDeadline.
func (w *response) SetWriteDeadline(t time.Time) error {
	w.c.broken.Store(true)
	return w.c.nc.SetWriteDeadline(t)
}

// EnableFullDuplex does nothing: an answer may always begin before the request is read.
func (w *response) EnableFullDuplex() error { return nil }

// WriteHeader writes the head of the answer.
func (w *response) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.begun || w.taken {
		return
	}
	if w.c.broken.Load() {
		// Nothing was being written when it was: that it took too long can still be told.
		_ = w.c.nc.SetWriteDeadline(time.Now().Add(telling))
	}
	w.begun, w.status = true, status
	h := w.header
	w.bare = w.r.Method == http.MethodHead || status == http.StatusNoContent || status == http.StatusNotModified || status < 200
	if v := h["Content-Length"]; len(v) > 0 {
		if n, err := strconv.ParseInt(v[0], 10, 64); err == nil && n >= 0 {
			w.length = n
		} else {
			delete(h, "Content-Length")
		}
	}
	if status == http.StatusNoContent {
		delete(h, "Content-Length")
	}
	for _, v := range h["Connection"] {
		w.close = w.close || v == "close"
	}
	delete(h, "Connection")
	delete(h, "Transfer-Encoding")
	http11 := w.r.ProtoMinor == 1
	w.chunked = w.length < 0 && !w.bare && http11
	w.close = w.close || w.length < 0 && !w.bare && !w.chunked || w.tunnels || w.body != nil && w.body.asks.Load() || w.c.s.closing.Load()
	w.trails = h["Trailer"]
	w.writeHead(http11)
}

func (w *response) writeHead(http11 bool) {
	bw, h := w.c.bw, w.header
	b := bw.AvailableBuffer()
	if http11 {
		b = append(b, "HTTP/1.1 "...)
	} else {
		b = append(b, "HTTP/1.0 "...)
	}
	b = strconv.AppendInt(b, int64(w.status), 10)
	b = append(append(append(b, ' '), http.StatusText(w.status)...), "\r\n"...)
	_, _ = bw.Write(b) // errors stay until it is flushed
	for name, values := range h {
		if !w.trailing(name) {
			writeField(bw, name, values)
		}
	}
	b = bw.AvailableBuffer()
	if _, ok := h["Date"]; !ok {
		b = append(time.Now().UTC().AppendFormat(append(b, "Date: "...), http.TimeFormat), "\r\n"...)
	}
	if w.chunked {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	}
	switch {
	case w.close:
		b = append(b, "Connection: close\r\n"...)
	case !http11:
		b = append(b, "Connection: keep-alive\r\n"...)
	}
	_, _ = bw.Write(append(b, "\r\n"...))
}

// trailing reports whether a field is sent after the body instead of before it.
func (w *response) trailing(name string) bool {
	return strings.HasPrefix(name, http.TrailerPrefix) || slices.Contains(w.trails, name)
}

// writeField writes a field of a head or of a trailer. Line ends in it become spaces; a
// name that is none is left out.
func writeField(bw *bufio.Writer, name string, values []string) {
	if name == "" {
		return
	}
	for i := range len(name) {
		if !tokens[name[i]] {
			return
		}
	}
	for _, v := range values {
		b := append(append(bw.AvailableBuffer(), name...), ": "...)
		at := len(b)
		b = append(b, v...)
		for i := at; i < len(b); i++ {
			if b[i] == '\n' || b[i] == '\r' {
				b[i] = ' '
			}
		}
		_, _ = bw.Write(append(b, "\r\n"...))
	}
}

// Write writes some of the body.
func (w *response) Write(p []byte) (int, error) {
	if w.taken {
		return 0, http.ErrHijacked
	}
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	switch {
	case len(p) == 0:
		return 0, nil
	case w.bare:
		if w.r.Method == http.MethodHead {
			return len(p), nil
		}
		return 0, http.ErrBodyNotAllowed
	case w.length >= 0 && w.written+int64(len(p)) > w.length:
		return 0, http.ErrContentLength
	}
	w.written += int64(len(p))
	bw := w.c.bw
	if !w.chunked {
		return bw.Write(p)
	}
	_, _ = bw.Write(append(strconv.AppendInt(bw.AvailableBuffer(), int64(len(p)), 16), "\r\n"...))
	n, err := bw.Write(p)
	if err == nil {
		_, err = bw.WriteString("\r\n")
	}
	return n, err
}

// FlushError sends what was written.
func (w *response) FlushError() error {
	if w.taken {
		return http.ErrHijacked
	}
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	return w.c.bw.Flush()
}

// Flush is FlushError, for who does not ask.
func (w *response) Flush() { _ = w.FlushError() }

// Hijack hands the connection over, after a request for a tunnel.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c := w.c
	if w.begun || w.taken || !w.tunnels {
		return nil, nil, errors.New("the connection cannot be taken over")
	}
	w.taken = true
	c.busy.Store(false) // that it is half closed is for who takes it over to see
	_ = c.nc.SetDeadline(time.Time{})
	return c.nc, bufio.NewReadWriter(bufio.NewReader(c.in.tunnel()), bufio.NewWriter(c.nc)), nil
}

// finish sends what is left of the answer, after its handler. It reports whether another
// request may follow.
func (w *response) finish() bool {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	bw := w.c.bw
	if w.chunked {
		_, _ = bw.WriteString("0\r\n")
		for name, values := range w.header {
			if w.trailing(name) {
				writeField(bw, strings.TrimPrefix(name, http.TrailerPrefix), values)
			}
		}
		_, _ = bw.WriteString("\r\n")
	}
	if bw.Flush() != nil {
		return false
	}
	short := w.length > w.written && !w.bare
	unread := w.body != nil && !w.c.whole.Load()
	if !w.close && !short && !w.c.broken.Load() && (!unread || w.drain()) {
		return true
	}
	if unread || w.tunnels {
		w.c.linger()
	}
	return false
}

// drain reads what is left of a body that nobody read, if that is not much.
func (w *response) drain() bool {
	c := w.c
	c.expect(c.s.Limits.HeaderTimeout)
	n, err := io.CopyN(io.Discard, c.in, maxDrained+1)
	return errors.Is(err, io.EOF) && n <= maxDrained && c.whole.Load()
}
