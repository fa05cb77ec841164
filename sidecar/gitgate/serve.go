package gitgate

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/bottle-run/bottle/sidecar/audit"
	"github.com/bottle-run/bottle/sidecar/gitgate/internal/pktline"
	"github.com/bottle-run/bottle/sidecar/internal/front"
	"github.com/bottle-run/bottle/sidecar/netguard"
)

// Serve serves until Shutdown. It needs a configuration.
func (g *Gate) Serve(ln net.Listener) error {
	st := g.state.Load()
	if st == nil {
		return errUnconfigured
	}
	g.mu.Lock()
	if g.ending {
		g.mu.Unlock()
		return net.ErrClosed
	}
	g.ln = ln
	g.mu.Unlock()
	for {
		conn, err := ln.Accept()
		if err != nil {
			g.mu.Lock()
			ending := g.ending
			g.mu.Unlock()
			if ending {
				return nil
			}
			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}
			return fmt.Errorf("accepting connections: %w", err)
		}
		g.serve(conn)
	}
}

// serve begins to serve a connection, if there is a place for it.
func (g *Gate) serve(conn net.Conn) {
	st := g.state.Load()
	ctx, cancel := context.WithCancel(context.Background())
	g.mu.Lock()
	full := len(g.conns) >= st.limits.Connections
	if full || g.ending {
		g.mu.Unlock()
		cancel()
		_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = conn.Write(pktline.AppendString(nil, "ERR bottle: too many connections to the git gate: try again when others have ended"))
		_ = conn.Close()
		return
	}
	g.conns[conn] = cancel
	g.work.Add(1)
	g.mu.Unlock()
	go func() {
		defer g.work.Done()
		defer func() {
			cancel()
			_ = conn.Close()
			g.mu.Lock()
			delete(g.conns, conn)
			g.mu.Unlock()
		}()
		g.handle(ctx, cancel, conn, st)
	}()
}

// Shutdown ends Serve, lets what is under way end until the context does, and writes the
// last records.
func (g *Gate) Shutdown(ctx context.Context) error {
	g.mu.Lock()
	g.ending = true
	if g.ln != nil {
		_ = g.ln.Close()
	}
	g.mu.Unlock()
	done := make(chan struct{})
	go func() { g.work.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
		g.mu.Lock()
		for conn, cancel := range g.conns {
			cancel()
			_ = conn.Close()
		}
		g.mu.Unlock()
		<-done
	}
	if st := g.state.Load(); st != nil {
		for _, end := range st.close {
			end()
		}
		return g.audit.Close()
	}
	return nil
}

// client is the agent's end of a connection.
type client struct {
	ctx  context.Context
	st   *state
	conn *idleConn
	r    *pktline.Reader
	w    *bufio.Writer
	// in and out count what came from the upstream and what was sent to it, in bytes.
	in, out int64
	refs    []string // what a push was to do
}

// denial is an error that is a decision of the gate's.
type denial struct {
	rule   string
	reason string
}

func (d *denial) Error() string { return d.reason }

func deny(rule, format string, args ...any) error {
	return &denial{rule, fmt.Sprintf(format, args...)}
}

// errTold wraps an error that the client has been told already.
type errTold struct{ err error }

func (e errTold) Error() string { return e.err.Error() }
func (e errTold) Unwrap() error { return e.err }

func (g *Gate) handle(ctx context.Context, cancel context.CancelFunc, conn net.Conn, st *state) {
	start := time.Now()
	idle := newIdleConn(conn, time.Duration(st.limits.RequestTimeout))
	c := &client{ctx: ctx, st: st, conn: idle, r: pktline.NewReader(idle), w: bufio.NewWriterSize(idle, 64<<10)}
	rec := audit.Record{Time: start, Scheme: "git", Method: "request", Decision: audit.Allow}
	req, err := c.request()
	var repo *repository
	if err == nil {
		idle.idle = time.Duration(st.limits.IdleTimeout)
		rec.Path = st.mask(req.path)
		if repo = st.repos[req.name]; repo == nil {
			err = deny("no-such-repository", "the git gate has no repository %q: it has %s", req.name, st.names())
		}
	}
	if err == nil {
		rec.Host, rec.Port, rec.Rule = repo.url.Host, repo.url.Port, "repository:"+repo.name
		err = front.Waiting(st.absent)
	}
	if err == nil {
		if req.service == uploadPack {
			rec.Method = "fetch"
			err = c.fetch(repo, req.version)
		} else {
			rec.Method = "push"
			err = c.push(repo)
		}
	}
	if err != nil && ctx.Err() != nil {
		err = errors.New("the gate is stopping")
	}
	c.finish(&rec, err)
	rec.BytesIn, rec.BytesOut, rec.Refs = c.in, c.out, c.refs
	rec.Duration = float64(time.Since(start).Microseconds()) / 1000
	g.audit.Record(rec)
	cancel()
}

// finish tells the client of an error, and the record.
func (c *client) finish(rec *audit.Record, err error) {
	if err == nil {
		_ = c.w.Flush()
		return
	}
	var d *denial
	var up *upstreamError
	var forbidden *netguard.ForbiddenError
	rec.Reason = c.st.mask(err.Error())
	switch {
	case errors.As(err, &d):
		rec.Decision, rec.Rule = audit.Deny, d.rule
	case errors.As(err, &forbidden):
		rec.Decision, rec.Rule = audit.Deny, "ssrf"
	case errors.As(err, &up):
		rec.Decision = audit.Error
	default:
		rec.Decision = audit.Error
	}
	c.conn.touch() // its time for a request may be over, that for an answer is not
	var told errTold
	if !errors.As(err, &told) {
		_, _ = c.w.Write(pktline.AppendString(nil, "ERR bottle: "+clip(oneLine(rec.Reason), 1000)))
	}
	if c.w.Flush() == nil {
		c.linger()
	}
}

// lingerTime is how long a client may take to read an error, and lingerBytes how much it
// may send meanwhile.
const (
	lingerTime  = 5 * time.Second
	lingerBytes = 64 << 20
)

// linger reads what a client still sends: a connection that is closed before would be reset,
// and the client would lose what it was told.
func (c *client) linger() {
	if c.conn.CloseWrite() != nil {
		return
	}
	_ = c.conn.Conn.SetReadDeadline(time.Now().Add(lingerTime))
	_, _ = io.CopyN(io.Discard, c.conn.Conn, lingerBytes)
}

func oneLine(s string) string { return strings.Join(strings.Fields(printable(s)), " ") }

func clip(s string, n int) string {
	if len(s) > n {
		return strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}

// request is what a client asks for first (gitprotocol-pack, "git transport").
type request struct {
	service string
	path    string
	name    string // of the repository
	version int
}

// maxRequest is the most that a request may hold, in bytes.
const maxRequest = 4 << 10

func (c *client) request() (request, error) {
	p, err := c.r.Next()
	if err != nil {
		return request{}, fmt.Errorf("reading the request: %w", err)
	}
	if p.Kind != pktline.Data {
		return request{}, deny("malformed", "the request is malformed: it is empty")
	}
	return parseRequest(string(p.Data))
}

func parseRequest(s string) (request, error) {
	if len(s) > maxRequest {
		return request{}, deny("malformed", "the request is malformed: it is too long")
	}
	line, rest, _ := strings.Cut(s, "\x00")
	line = strings.TrimSuffix(line, "\n")
	var r request
	var ok bool
	if r.service, r.path, ok = strings.Cut(line, " "); !ok {
		return request{}, deny("malformed", "the request is malformed: it names no repository")
	}
	switch r.service {
	case uploadPack, receivePack:
	case "git-upload-archive":
		return request{}, deny("service", "the git gate does not serve archives: clone the repository, with --depth=1 if that is enough")
	default:
		return request{}, deny("service", "the git gate does not know the service %q", clip(r.service, 40))
	}
	r.name = strings.TrimSuffix(strings.Trim(r.path, "/"), ".git")
	// The host that the client dialled comes first, and says nothing that is not known.
	_, extra, _ := strings.Cut(rest, "\x00")
	for word := range strings.SplitSeq(extra, "\x00") {
		if v, ok := strings.CutPrefix(word, "version="); ok {
			if n, err := strconv.Atoi(v); err == nil && n > r.version {
				r.version = n
			}
		}
	}
	// Version 1 is version 0 with a line before it, which a server need not send.
	if r.version != 2 {
		r.version = 0
	}
	return r, nil
}
