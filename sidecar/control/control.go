// Package control is how a sidecar is spoken to from within its own container: a Unix
// socket in memory-backed storage that nobody but the sidecar's user may open.
// `bottle-sidecar put`, `healthcheck`, `reload` and `policy` use it, run with exec.
package control

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/bottle-run/bottle/sidecar/delivery"
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

// Extended is a sidecar that can be asked for more. Lock is held while its files are
// replaced.
type Extended interface {
	Control(mux *http.ServeMux, lock sync.Locker)
}

// socketName is the socket's name in the directory that a sidecar runs in.
const socketName = "control.sock"

// Listen opens the socket in a directory. One that an earlier process left is replaced.
func Listen(dir string) (net.Listener, error) {
	path := filepath.Join(dir, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	// Made inside a directory that nobody else can enter, then moved: there is no time
	// at which it has wider permissions, or is there and nobody listens.
	temp, err := os.MkdirTemp(dir, ".control-*")
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	defer func() { _ = os.RemoveAll(temp) }()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(temp, socketName), Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	ln.SetUnlinkOnClose(false)
	err = errors.Join(os.Chmod(filepath.Join(temp, socketName), 0o600), os.Rename(filepath.Join(temp, socketName), path))
	if err != nil {
		_ = ln.Close()
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	return ln, nil
}

// Server answers for a sidecar that keeps its files in a directory.
type Server struct {
	sidecar Sidecar
	store   delivery.Store
	mu      sync.Mutex // files are not replaced while they are read
}

// NewServer makes a server.
func NewServer(dir string, s Sidecar) *Server {
	return &Server{sidecar: s, store: delivery.NewStore(dir)}
}

// Reload has the sidecar read its files again.
func (s *Server) Reload() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sidecar.Reload()
}

// Put keeps a document if the sidecar takes it up. The error says why the sidecar stays as
// it was.
func (s *Server) Put(r io.Reader) error {
	doc, err := delivery.Decode(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	keep, back, err := s.store.Put(doc)
	if err != nil {
		return err
	}
	if err := s.sidecar.Reload(); err != nil {
		if undone := back(); undone != nil {
			return fmt.Errorf("%w; and what was there before could not be restored: %w", err, undone)
		}
		return err
	}
	keep()
	return nil
}

// Serve answers on the socket until the listener is closed.
func (s *Server) Serve(ln net.Listener) error {
	mux := http.NewServeMux()
	reply := func(w http.ResponseWriter, err error) {
		if err != nil {
			w.WriteHeader(http.StatusConflict)
			_, _ = io.WriteString(w, err.Error())
		}
	}
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.sidecar.Health()) })
	mux.HandleFunc("POST /reload", func(w http.ResponseWriter, _ *http.Request) { reply(w, s.Reload()) })
	mux.HandleFunc("POST /put", func(w http.ResponseWriter, r *http.Request) { reply(w, s.Put(r.Body)) })
	mux.HandleFunc("GET /policy", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(front.JSON(s.sidecar.Policy())) })
	mux.HandleFunc("GET /test", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(front.JSON(s.sidecar.Test(r.FormValue("method"), r.FormValue("url"))))
	})
	if e, ok := s.sidecar.(Extended); ok {
		e.Control(mux, &s.mu)
	}
	server := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second}
	if err := server.Serve(ln); !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
