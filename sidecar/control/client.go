package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"

	"github.com/bottle-run/bottle/sidecar/internal/front"
)

// Client speaks to the sidecar that runs in a directory.
type Client struct {
	dir  string
	http *http.Client
}

// NewClient makes a client.
func NewClient(dir string) *Client {
	return &Client{dir, &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, dir) },
	}}}
}

func dial(ctx context.Context, dir string) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", filepath.Join(dir, socketName))
}

// ErrNotRunning says that no sidecar answers.
var ErrNotRunning = errors.New("the sidecar does not run here")

func (c *Client) do(ctx context.Context, method, path string, body io.Reader) ([]byte, error) {
	var answer bytes.Buffer
	if err := c.Ask(ctx, method, path, body, &answer); err != nil {
		return nil, err
	}
	return answer.Bytes(), nil
}

// RefusedError is an answer that says no.
type RefusedError struct {
	// Status is the HTTP status.
	Status int
	// Reason is a sentence.
	Reason string
}

// Error gives the reason.
func (e *RefusedError) Error() string { return e.Reason }

// Ask asks a sidecar, which may be [Extended], and writes its answer as it arrives. No is
// a [*RefusedError].
func (c *Client) Ask(ctx context.Context, method, path string, body io.Reader, w io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://sidecar"+path, body)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		reason, err := io.ReadAll(resp.Body)
		if err != nil {
			return fmt.Errorf("asking the sidecar: %w", err)
		}
		return &RefusedError{resp.StatusCode, string(reason)}
	}
	if _, err := io.Copy(w, resp.Body); err != nil {
		return fmt.Errorf("asking the sidecar: %w", err)
	}
	return nil
}

// WaitRunning returns when a sidecar answers. If ctx ends before, the error is
// [ErrNotRunning].
func (c *Client) WaitRunning(ctx context.Context) error {
	w, err := watch(c.dir)
	if err != nil {
		return fmt.Errorf("waiting for the sidecar: %w", err)
	}
	defer w.close()
	for {
		// The socket appears when somebody listens, so one look after each change is enough.
		conn, err := dial(ctx, c.dir)
		if err == nil {
			conn.Close()
			return nil
		}
		if waited := w.wait(ctx); waited != nil {
			return fmt.Errorf("%w: %w (%w)", ErrNotRunning, waited, err)
		}
	}
}

// Put delivers a document in the form of package delivery. The error says why the sidecar
// stays as it was.
func (c *Client) Put(ctx context.Context, document io.Reader) error {
	_, err := c.do(ctx, http.MethodPost, "/put", document)
	return err
}

// Health is nil if the sidecar is ready.
func (c *Client) Health(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodGet, "/health", nil)
	return err
}

// Reload has configuration and secrets read again. The error says why the old ones stay.
func (c *Client) Reload(ctx context.Context) error {
	_, err := c.do(ctx, http.MethodPost, "/reload", nil)
	return err
}

// Policy returns the configuration in force, as JSON.
func (c *Client) Policy(ctx context.Context) ([]byte, error) {
	return c.do(ctx, http.MethodGet, "/policy", nil)
}

// Test returns the verdict about a request, as JSON, and whether it is allowed.
func (c *Client) Test(ctx context.Context, method, rawURL string) ([]byte, bool, error) {
	body, err := c.do(ctx, http.MethodGet, "/test?"+url.Values{"method": {method}, "url": {rawURL}}.Encode(), nil)
	if err != nil {
		return nil, false, err
	}
	var v front.Verdict
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, false, fmt.Errorf("reading the verdict: %w", err)
	}
	return body, v.Decision == "allow", nil
}
