package podman

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/handshake"
)

// conversation is a handshake with a container's first process, or none.
type conversation struct {
	e      *engine
	with   *runtime.Handshake
	id     string
	conn   net.Conn
	reader *bufio.Reader
}

// attach connects to the streams of a container that is initialised and has not been
// started: its monitor runs.
func (c *conversation) attach(ctx context.Context, id string) (err error) {
	if c.with == nil {
		return nil
	}
	c.id = id
	// No keys to detach by: the input may hold anything.
	query := url.Values{"stream": {"true"}, "stdin": {"true"}, "stdout": {"false"}, "stderr": {"true"}, "logs": {"false"}, "detachKeys": {""}}
	c.conn, c.reader, err = c.e.hijack(ctx, "/containers/"+id+"/attach?"+query.Encode(), nil)
	if err != nil {
		return fmt.Errorf("attach to its process: %w", err)
	}
	return nil
}

// have has the handshake with a container that has been started.
func (c *conversation) have(ctx context.Context) error {
	if c.with == nil {
		return nil
	}
	attached := handshake.Attached{
		Errors: func(w io.Writer) error { return demultiplex(c.reader, nil, wordsOnly{w}) },
		Log: func(ctx context.Context, w io.Writer) error {
			resp, err := c.e.do(ctx, call{method: http.MethodGet, path: "/containers/" + c.id + "/logs", query: url.Values{"stderr": {"true"}, "follow": {"false"}}})
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			return demultiplex(resp.Body, nil, w)
		},
		Ended: func(ctx context.Context) (runtime.ExitStatus, error) { return c.e.waitFor(ctx, c.id) },
	}
	return handshake.Do(ctx, c.with, attached.Process(ctx, inputOf{c.conn}))
}

// close lets go of the streams.
func (c *conversation) close() {
	if c.conn != nil {
		_ = c.conn.Close()
	}
}

// inputOf is the input's side of a connection.
type inputOf struct{ net.Conn }

// Close ends the input alone.
func (i inputOf) Close() error {
	closeWrite(i.Conn)
	return nil
}

// wordsOnly passes on what the process wrote, and leaves out what the service adds.
type wordsOnly struct{ w io.Writer }

func (o wordsOnly) Write(p []byte) (int, error) {
	if lostInput.Match(p) {
		return len(p), nil
	}
	return o.w.Write(p)
}
