// Package control is how a sidecar is spoken to from within its own container: a Unix
// socket in memory-backed storage that nobody but the sidecar's user may open.
// `bottle-sidecar healthcheck`, `reload` and `policy` use it, run with exec.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/bottle-run/bottle/sidecar/internal/front"
)

// Sidecar is what can be asked of one.
type Sidecar interface {
	// Health is nil if the sidecar is ready.
	Health() error
	// Reload reads configuration and secrets again; on an error the old ones stay.
	Reload() error
	// Policy is the configuration in force.
	Policy() any
	// Test says which rule decides a request, without sending it.
	Test(method, url string) front.Verdict
}

// File names in the directory that a sidecar runs in.
const (
	socketName  = "control.sock"
	secretsName = "secrets"
)

// SecretsPath returns where secrets are put, in a directory.
func SecretsPath(dir string) string { return filepath.Join(dir, secretsName) }

// Listen opens the socket in a directory. One that an earlier process left is replaced.
func Listen(dir string) (net.Listener, error) {
	path := filepath.Join(dir, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	// Made inside a directory that nobody else can enter, then moved: there is no time
	// at which it has wider permissions.
	temp, err := os.MkdirTemp(dir, ".control-*")
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	defer os.RemoveAll(temp)
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(temp, socketName), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	err = errors.Join(os.Chmod(filepath.Join(temp, socketName), 0o600), os.Rename(filepath.Join(temp, socketName), path))
	if err != nil {
		ln.Close()
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	return ln, nil
}

// Serve answers on the socket until the listener is closed.
func Serve(ln net.Listener, s Sidecar) error {
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, err error) {
		if err != nil {
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, err.Error())
		}
	}
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Health()) })
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Reload()) })
	mux.HandleFunc("GET /policy", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(front.JSON(s.Policy())) })
	mux.HandleFunc("GET /test", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(front.JSON(s.Test(r.FormValue("method"), r.FormValue("url"))))
	})
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second}
	if err := server.Serve(ln); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// Client speaks to the sidecar that runs in a directory.
type Client struct{ http *http.Client }

// NewClient makes a client.
func NewClient(dir string) *Client {
	return &Client{&http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(dir, socketName))
		},
	}}}
}

// ErrNotRunning says that no sidecar answers.
var ErrNotRunning = errors.New("the sidecar does not run here")

func (c *Client) do(method, path string) ([]byte, error) {
	req, err := http.NewRequest(method, "http://sidecar"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotRunning, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("asking the sidecar: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(string(body))
	}
	return body, nil
}

// Health is nil if the sidecar is ready.
func (c *Client) Health() error { _, err := c.do(http.MethodGet, "/health"); return err }

// Reload has configuration and secrets read again. The error says why the old ones stay.
func (c *Client) Reload() error { _, err := c.do(http.MethodPost, "/reload"); return err }

// Policy returns the configuration in force, as JSON.
func (c *Client) Policy() ([]byte, error) { return c.do(http.MethodGet, "/policy") }

// Test returns the verdict about a request, as JSON, and whether it is allowed.
func (c *Client) Test(method, rawURL string) ([]byte, bool, error) {
	body, err := c.do(http.MethodGet, "/test?"+url.Values{"method": {method}, "url": {rawURL}}.Encode())
	if err != nil {
		return nil, false, err
	}
	var v front.Verdict
	if err := json.Unmarshal(body, &v); err != nil {
		return nil, false, fmt.Errorf("reading the verdict: %w", err)
	}
	return body, v.Decision == "allow", nil
}
