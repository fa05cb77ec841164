package intercept

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// handlerFunc is a handler that allows everything and refuses in a word.
type handlerFunc func(w http.ResponseWriter, r *Request)

func (f handlerFunc) Serve(w http.ResponseWriter, r *Request) { f(w, r) }
func (handlerFunc) Tunnel(string, uint16) *Denial             { return nil }
func (handlerFunc) Broken(string, uint16, string)             {}
func (handlerFunc) Health() error                             { return nil }
func (handlerFunc) Refused(w http.ResponseWriter, _ *Request, d Denial) {
	http.Error(w, d.Rule, d.Status)
}

// serving serves a handler, and returns a dialler and what ends the server.
func serving(t *testing.T, logged io.Writer, h handlerFunc) (dial func() net.Conn, s *Server) {
	t.Helper()
	m, _ := testMinter(t)
	s = &Server{
		Handler: h, Minter: m, Log: slog.New(slog.NewTextHandler(logged, nil)),
		Limits: Limits{Connections: 8, HeaderBytes: 8 << 10, HeaderTimeout: time.Minute, IdleTimeout: time.Minute},
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return func() net.Conn {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}, s
}

// TestAnswers sends text and compares all that is answered until the connection ends.
func TestAnswers(t *testing.T) {
	var log bytes.Buffer
	dial, _ := serving(t, &log, func(w http.ResponseWriter, r *Request) {
		h := w.Header()
		h.Set("Date", "now")
		h.Set("X-Odd", "a\r\nInjected: b")
		h["Bad Name"] = []string{"x"}
		switch r.URL.Path {
		case "/length":
			h.Set("Content-Length", "5")
			_, _ = io.WriteString(w, "hello")
		case "/more":
			h.Set("Content-Length", "3")
			if _, err := io.WriteString(w, "hello"); !errors.Is(err, http.ErrContentLength) {
				t.Error(err)
			}
		case "/none":
			h.Set("Content-Length", "5")
			w.WriteHeader(http.StatusNoContent)
		case "/trailer":
			h.Set("Trailer", "X-Sum")
			_, _ = io.WriteString(w, "hello")
			h.Set("X-Sum", "1")
			h.Set(http.TrailerPrefix+"X-Late", "2")
		case "/echo":
			_, _ = io.Copy(w, r.Body)
		case "/abort":
			_, _ = io.WriteString(w, "hel")
			panic(http.ErrAbortHandler)
		case "/panic":
			panic("what a value")
		}
	})
	const ok = "HTTP/1.1 200 OK\r\n"
	const end = "X-Odd: a  Injected: b\r\n"
	for _, c := range []struct{ name, send, want string }{
		{"two requests at once", "GET http://a/length HTTP/1.1\r\nHost: a\r\n\r\nGET http://a/length HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", ok + "Content-Length: 5\r\n" + end + "\r\nhello" + ok + "Connection: close\r\nContent-Length: 5\r\n" + end + "\r\nhello"},
		{"a length that is too short", "GET http://a/more HTTP/1.1\r\nHost: a\r\n\r\n", ok + "Content-Length: 3\r\n" + end + "\r\n"},
		{"a HEAD", "HEAD http://a/length HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", ok + "Connection: close\r\nContent-Length: 5\r\n" + end + "\r\n"},
		{"an answer without a body", "GET http://a/none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "HTTP/1.1 204 No Content\r\nConnection: close\r\n" + end + "\r\n"},
		{"trailers, announced and not", "GET http://a/trailer HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", ok + "Connection: close\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n" + end + "\r\n5\r\nhello\r\n0\r\nX-Late: 2\r\nX-Sum: 1\r\n\r\n"},
		{"HTTP/1.0", "GET http://a/trailer HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\nConnection: close\r\nTrailer: X-Sum\r\n" + end + "\r\nhello"},
		{"HTTP/1.0 that is kept", "GET http://a/length HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET http://a/length HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n" + end + "\r\nhelloHTTP/1.0 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n" + end + "\r\nhello"},
		{"a body that nobody reads", "POST http://a/length HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET http://a/length HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", ok + "Content-Length: 5\r\n" + end + "\r\nhello" + ok + "Connection: close\r\nContent-Length: 5\r\n" + end + "\r\nhello"},
		{"one that is long", "POST http://a/length HTTP/1.1\r\nHost: a\r\nContent-Length: 600000\r\n\r\n" + strings.Repeat("x", 600000) + "GET http://a/length HTTP/1.1\r\nHost: a\r\n\r\n", ok + "Content-Length: 5\r\n" + end + "\r\nhello"},
		{"one that was to be asked for", "POST http://a/length HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", ok + "Connection: close\r\nContent-Length: 5\r\n" + end + "\r\nhello"},
		{"one that is asked for", "POST http://a/echo HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 100 Continue\r\n\r\n" + ok + "Connection: close\r\nTransfer-Encoding: chunked\r\n" + end + "\r\n3\r\nabc\r\n0\r\n\r\n"},
		{"what is cut", "GET http://a/abort HTTP/1.1\r\nHost: a\r\n\r\nGET http://a/length HTTP/1.1\r\nHost: a\r\n\r\n", ok + "Transfer-Encoding: chunked\r\n" + end + "\r\n3\r\nhel\r\n"},
		{"a panic", "GET http://a/panic HTTP/1.1\r\nHost: a\r\n\r\nGET http://a/length HTTP/1.1\r\nHost: a\r\n\r\n", ""},
		{"what is expected is not known", "GET http://a/length HTTP/1.1\r\nHost: a\r\nExpect: more\r\n\r\n", "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nTransfer-Encoding: chunked\r\nX-Content-Type-Options: nosniff\r\n\r\na\r\nmalformed\n\r\n0\r\n\r\n"},
	} {
		conn := dial()
		go func() { _, _ = io.WriteString(conn, c.send) }()
		got, err := io.ReadAll(conn)
		if err != nil || sorted(string(got)) != c.want {
			t.Errorf("%s: %v\n%q, want\n%q", c.name, err, sorted(string(got)), c.want)
		}
	}
	if !strings.Contains(log.String(), "what a value") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("the log is %s", log.String())
	}
}

// sorted sorts the lines of the heads in what was answered, and leaves out when that was.
func sorted(answers string) string {
	var b strings.Builder
	blocks := strings.SplitAfter(answers, "\r\n\r\n")
	for _, block := range blocks {
		at := strings.Index(block, "HTTP/1.")
		trailers := strings.HasPrefix(block, "5\r\n")
		if at < 0 && !trailers {
			b.WriteString(block)
			continue
		}
		skip := 1
		if trailers {
			at, skip = 0, 3
		}
		lines := strings.Split(strings.TrimSuffix(block[at:], "\r\n\r\n"), "\r\n")
		if !strings.HasSuffix(block, "\r\n\r\n") {
			b.WriteString(block)
			continue
		}
		fields := lines[skip:]
		for i := 0; i < len(fields); i++ {
			if strings.HasPrefix(fields[i], "Date: ") {
				fields = append(fields[:i], fields[i+1:]...)
				i--
			}
		}
		slices.Sort(fields)
		b.WriteString(block[:at] + strings.Join(append(lines[:skip:skip], fields...), "\r\n") + "\r\n\r\n")
	}
	return b.String()
}

func TestAnAnswerMayComeBeforeTheBodyDoes(t *testing.T) {
	dial, _ := serving(t, io.Discard, func(w http.ResponseWriter, r *Request) {
		go func() { _, _ = io.Copy(io.Discard, r.Body) }() // as a transport does
		w.WriteHeader(http.StatusForbidden)
	})
	c := dial()
	fmt.Fprintf(c, "POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nabc")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusForbidden {
		t.Fatalf("%v, %v", resp, err)
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v", rest, err)
	}
}

func TestAShutdownLetsRequestsEnd(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	dial, s := serving(t, io.Discard, func(_ http.ResponseWriter, r *Request) {
		if r.URL.Path == "/slow" {
			once.Do(func() { close(begun) })
			<-goOn
		}
	})
	idle, slow := dial(), dial()
	fmt.Fprintf(idle, "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(idle), nil); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(slow, "GET http://a/slow HTTP/1.1\r\nHost: a\r\n\r\n")
	<-begun
	down := make(chan struct{})
	go func() { s.Shutdown(t.Context()); close(down) }()
	if _, err := io.Copy(io.Discard, idle); err != nil { // which ends
		t.Error(err)
	}
	select {
	case <-down:
		t.Error("it did not wait")
	default:
	}
	close(goOn)
	resp, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil || resp.StatusCode != http.StatusOK || !resp.Close {
		t.Errorf("%v, %v", resp, err)
	}
	<-down
}

func TestWhoGoesAwayIsMissed(t *testing.T) {
	missed := make(chan struct{})
	dial, _ := serving(t, io.Discard, func(_ http.ResponseWriter, r *Request) {
		<-r.Context().Done()
		missed <- struct{}{}
	})
	for _, leave := range []func(*net.TCPConn) error{(*net.TCPConn).Close, (*net.TCPConn).CloseWrite, func(c *net.TCPConn) error { _ = c.SetLinger(0); return c.Close() }} {
		c := dial().(*net.TCPConn)
		fmt.Fprintf(c, "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\nGET ")
		if err := leave(c); err != nil {
			t.Fatal(err)
		}
		<-missed
	}
}

func TestThatItTookTooLongIsTold(t *testing.T) {
	dial, _ := serving(t, io.Discard, func(w http.ResponseWriter, _ *Request) {
		rc := http.NewResponseController(w)
		past := time.Unix(1, 0)
		if err := errors.Join(rc.SetReadDeadline(past), rc.SetWriteDeadline(past)); err != nil { // as a watch does
			t.Error(err)
		}
		w.WriteHeader(http.StatusGatewayTimeout)
	})
	c := dial()
	fmt.Fprintf(c, "GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil || resp.StatusCode != http.StatusGatewayTimeout {
		t.Fatalf("%v, %v", resp, err)
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("it is followed by %q, %v", rest, err)
	}
}
