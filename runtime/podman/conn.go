package podman

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containers/podman/v5/pkg/bindings"

	"github.com/bottle-run/bottle/runtime"
)

// apiVersion is the oldest version of the API that has all that is used here.
// Servers take any version up to their own.
const apiVersion = "v4.0.0"

// engine is the [runtime.Runtime].
type engine struct {
	log     *slog.Logger
	pool    netip.Prefix
	uri     string
	local   bool     // the engine's processes and files are this machine's
	service *service // ours, or nil

	mu       sync.Mutex // guards what follows
	conn     context.Context
	info     *hostInfo
	sealedBy int //nolint:unused // on Linux alone: the monitor of the container for which seal was last called

	hosts    keyedMutex // by network: whoever rewrites its hosts files
	commands commandCache
	profiles profiles
	builds   atomic.Int32 // under way
}

var _ runtime.Runtime = (*engine)(nil)

// connect makes a connection. NewConnection knows no deadline while it dials, so
// it is left behind when ctx ends.
func connect(ctx context.Context, uri string) (context.Context, error) {
	type result struct {
		conn context.Context
		err  error
	}
	ch := make(chan result, 1)
	go func() {
		conn, err := bindings.NewConnection(context.WithoutCancel(ctx), uri)
		ch <- result{conn, err}
	}()
	select {
	case r := <-ch:
		return r.conn, transportError(r.err)
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// connection returns the connection, reviving our own service if it ended.
func (e *engine) connection(ctx context.Context) (*bindings.Connection, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.service != nil {
		restarted, err := e.service.ensure(ctx)
		if err != nil {
			return nil, err
		}
		if restarted || e.conn == nil {
			conn, err := connect(ctx, e.uri)
			if err != nil {
				return nil, err
			}
			e.conn = conn
		}
	}
	return bindings.GetClient(e.conn)
}

// call is one request to the service.
type call struct {
	method string
	path   string // below /libpod, with its parts escaped
	query  url.Values
	header http.Header
	body   io.Reader // streamed
	json   any       // or marshalled
}

func baseURL(c *bindings.Connection) string {
	if c.URI.Scheme == "tcp" {
		return "http://" + c.URI.Host + strings.TrimSuffix(c.URI.Path, "/")
	}
	return "http://d"
}

// do sends a request and returns a successful answer, whose body the caller
// closes. Nothing is tried twice: a request that changes something may have
// arrived.
func (e *engine) do(ctx context.Context, c call) (*http.Response, error) {
	conn, err := e.connection(ctx)
	if err != nil {
		return nil, err
	}
	body := c.body
	if c.json != nil {
		b, err := json.Marshal(c.json)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, c.method, baseURL(conn)+"/"+apiVersion+"/libpod"+c.path, body)
	if err != nil {
		return nil, err
	}
	req.URL.RawQuery = c.query.Encode()
	for k, v := range c.header {
		req.Header[k] = v
	}
	if c.json != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := conn.Client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, transportError(err)
	}
	if resp.StatusCode >= 300 && resp.StatusCode != http.StatusNotModified {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp, nil
}

// ask sends a request and decodes the answer into out, if it is not nil.
func (e *engine) ask(ctx context.Context, c call, out any) error {
	resp, err := e.do(ctx, c)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified {
		// Read to the end, so that the connection is used again.
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxError))
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("the service's answer to %s %s: %w", c.method, c.path, err)
	}
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxError))
	return nil
}

// dial opens a connection of its own, for streams in both directions.
func (e *engine) dial(ctx context.Context) (net.Conn, *bindings.Connection, error) {
	conn, err := e.connection(ctx)
	if err != nil {
		return nil, nil, err
	}
	raw, err := conn.GetDialer(ctx)
	if err != nil {
		return nil, nil, transportError(err)
	}
	return raw, conn, nil
}

// esc escapes a name for a path.
func esc(name string) string { return url.PathEscape(name) }

// filters renders the filters parameter.
func filters(f map[string][]string) string {
	b, _ := json.Marshal(f) // of strings: cannot fail
	return string(b)
}

// keyedMutex is a mutex per key.
type keyedMutex struct {
	mu sync.Mutex
	m  map[string]*sync.Mutex
}

func (k *keyedMutex) lock(key string) (unlock func()) {
	k.mu.Lock()
	if k.m == nil {
		k.m = map[string]*sync.Mutex{}
	}
	l := k.m[key]
	if l == nil {
		l = new(sync.Mutex)
		k.m[key] = l
	}
	k.mu.Unlock()
	l.Lock()
	return l.Unlock
}

func (k *keyedMutex) forget(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.m, key)
}
