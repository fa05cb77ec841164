package supervise

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

const (
	// maxBody bounds a request, in bytes.
	maxBody = 256 << 10
	// bodyTime is how long a request may take to arrive.
	bodyTime = 30 * time.Second
	// quiet is how long nothing may be sent on a response that is not finished: clients
	// give up on one that says nothing for minutes.
	quiet = 10 * time.Second
)

const help = `This is the supervise sidecar of a bottle. An agent asks here for a change of its limits.

It speaks MCP over streamable HTTP: register this URL as an MCP server, or POST JSON-RPC to it
with "Content-Type: application/json" and "Accept: application/json, text/event-stream":

  {"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_configuration","arguments":{}}}

"tools/list" lists the tools: propose_egress, propose_routes, propose_git_push,
propose_dockerfile, wait_for_answer, get_proposal, list_proposals, withdraw_proposal.
A human decides.
`

// connection is the key of the context of the HTTP request in that of a call.
type connection struct{}

// handler is what is on the network.
func (s *Service) handler() http.Handler {
	// When an agent first asks: the schemas of the tools take longer than all else before the
	// sidecar is ready, for which a launch waits.
	server := sync.OnceValue(s.tools)
	streamable := mcp.NewStreamableHTTPHandler(func(*http.Request) *mcp.Server { return server() }, &mcp.StreamableHTTPOptions{
		// Every request stands alone: there is no session to lose, nor to exhaust.
		Stateless: true, MaxRequestBodyBytes: maxBody,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		switch {
		case !s.requests.take():
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many requests: wait for an answer with wait_for_answer instead of asking again and again", http.StatusTooManyRequests)
			return
		case r.Header.Get("Origin") != "":
			http.Error(w, "no browser is served", http.StatusForbidden)
			return
		case r.URL.Path != "/" && r.URL.Path != "/mcp":
			http.NotFound(w, r)
			return
		case r.Method == http.MethodGet && !strings.Contains(r.Header.Get("Accept"), "text/event-stream"):
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, help) // the client may be gone
			return
		case r.Method != http.MethodPost:
			streamable.ServeHTTP(w, r)
			return
		}
		body, err := read(w, r)
		if err != nil {
			status := http.StatusBadRequest
			var tooBig *http.MaxBytesError
			if errors.As(err, &tooBig) {
				status = http.StatusRequestEntityTooLarge
			}
			http.Error(w, "the request cannot be read: "+err.Error(), status)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.ContentLength = int64(len(body))
		alive := newLively(w, s.quiet)
		defer alive.end()
		ctx := r.Context()
		streamable.ServeHTTP(alive, r.WithContext(context.WithValue(ctx, connection{}, ctx)))
	})
}

// read reads the body in bounded time.
func read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	c := http.NewResponseController(w)
	if err := c.SetReadDeadline(time.Now().Add(bodyTime)); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	return body, errors.Join(err, c.SetReadDeadline(time.Time{}))
}

// lively sends comments on a response that would say nothing for too long, as
// server-sent events have them. If nothing was sent yet it begins the stream: what fails
// does so at once.
type lively struct {
	w     http.ResponseWriter
	after time.Duration

	mu      sync.Mutex
	header  http.Header // of who answers, until it begins
	status  int         // 0: nothing was sent
	pending bytes.Buffer
	timer   *time.Timer
	ended   bool
}

func newLively(w http.ResponseWriter, after time.Duration) *lively {
	l := &lively{w: w, after: after, header: w.Header().Clone()}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(after, l.comment)
	return l
}

// Header is not the real one: that one may be sent any time.
func (l *lively) Header() http.Header { return l.header }

func (l *lively) WriteHeader(status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(status, l.header)
}

func (l *lively) begin(status int, header http.Header) {
	if l.status != 0 {
		return
	}
	l.status = status
	for name, values := range header {
		l.w.Header()[name] = values
	}
	l.w.WriteHeader(status)
}

// Write keeps what is written until it is flushed, so that no comment stands within an
// event.
func (l *lively) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(http.StatusOK, l.header)
	return l.pending.Write(p)
}

// FlushError sends what was written.
func (l *lively) FlushError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin(http.StatusOK, l.header)
	return l.flush()
}

// Flush sends what was written.
func (l *lively) Flush() { _ = l.FlushError() }

func (l *lively) flush() error {
	if l.ended {
		return http.ErrHandlerTimeout
	}
	l.timer.Reset(l.after)
	if _, err := l.w.Write(l.pending.Bytes()); err != nil {
		return err
	}
	l.pending.Reset()
	return http.NewResponseController(l.w).Flush()
}

// comment says that there is somebody.
func (l *lively) comment() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.begin(http.StatusOK, http.Header{"Content-Type": {"text/event-stream"}, "Cache-Control": {"no-cache, no-transform"}})
	if l.pending.Len() == 0 && l.w.Header().Get("Content-Type") == "text/event-stream" {
		l.pending.WriteString(": waiting\n\n")
	}
	_ = l.flush() // the client may be gone
}

// end sends what is left. Nothing is sent after it.
func (l *lively) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer.Stop()
	_, _ = l.w.Write(l.pending.Bytes()) // the client may be gone
	l.ended = true
}
