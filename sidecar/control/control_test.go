package control

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/sidecar/delivery"
	"github.com/bottle-run/bottle/sidecar/internal/front"
)

// fake takes up whatever holds no "bad".
type fake struct {
	dir    string
	health error
	inUse  string
}

func (f *fake) Health() error { return f.health }
func (f *fake) Reload() error {
	data, err := os.ReadFile(delivery.In(f.dir, delivery.Config))
	if err != nil {
		return err
	}
	if strings.Contains(string(data), "bad") {
		return errors.New("routes[1]: bad")
	}
	f.inUse = string(data)
	return nil
}
func (f *fake) Policy() any { return map[string]string{"agent": "coder"} }
func (f *fake) Test(method, url string) front.Verdict {
	d := "deny"
	if method == "GET" {
		d = "allow"
	}
	return front.Verdict{Decision: d, Rule: "r", Host: url}
}

func TestControl(t *testing.T) {
	dir, ctx := t.TempDir(), t.Context()
	c := NewClient(dir)
	if err := c.Health(ctx); !errors.Is(err, ErrNotRunning) {
		t.Errorf("before: %v", err)
	}
	for range 2 { // a socket left behind is replaced
		ln, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		s := &fake{dir: dir}
		go func() { served <- NewServer(dir, s).Serve(ln) }()
		info, err := os.Stat(filepath.Join(dir, socketName))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if err := c.Health(ctx); err != nil {
			t.Errorf("health: %v", err)
		}
		if p, err := c.Policy(ctx); err != nil || !strings.Contains(string(p), "coder") {
			t.Errorf("policy: %s, %v", p, err)
		}
		if v, ok, err := c.Test(ctx, "GET", "https://x.com/?a=b&c"); err != nil || !ok || !strings.Contains(string(v), "b\\u0026c") {
			t.Errorf("test: %s, %v, %v", v, ok, err)
		}
		if _, ok, err := c.Test(ctx, "POST", "https://x.com/"); err != nil || ok {
			t.Errorf("test of a denied one: %v, %v", ok, err)
		}
		if err := c.Put(ctx, strings.NewReader(`{"config":{"v":"good"}}`)); err != nil || !strings.Contains(s.inUse, "good") {
			t.Errorf("put: %v, %s", err, s.inUse)
		}
		if err := c.Put(ctx, strings.NewReader(`{"config":{"v":"bad"},"ca_cert":"c"}`)); err == nil || err.Error() != "routes[1]: bad" {
			t.Errorf("a bad put: %v", err)
		}
		// The old files are back, so that a reload finds what is in force.
		if err := c.Reload(ctx); err != nil {
			t.Errorf("reload: %v", err)
		}
		if _, err := os.Stat(delivery.In(dir, delivery.CACert)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("of a refused put a file is left: %v", err)
		}
		if err := c.Put(ctx, strings.NewReader(`{"x":1}`)); err == nil {
			t.Error("what is no document was put")
		}
		if err := os.Remove(delivery.In(dir, delivery.Config)); err != nil {
			t.Fatal(err)
		}
		if err := c.Reload(ctx); err == nil {
			t.Error("a reload of nothing succeeded")
		}
		ln.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		c = NewClient(dir)
	}
}

func TestWaitRunning(t *testing.T) {
	dir := t.TempDir()
	c := NewClient(dir)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.WaitRunning(ended); !errors.Is(err, ErrNotRunning) || !errors.Is(err, context.Canceled) {
		t.Errorf("nothing runs: %v", err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := c.WaitRunning(soon); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nothing runs: %v", err)
	}
	running := make(chan error, 1)
	go func() { running <- c.WaitRunning(t.Context()) }()
	// Other files appear before.
	if err := os.WriteFile(filepath.Join(dir, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := <-running; err != nil {
		t.Error(err)
	}
	if err := c.WaitRunning(t.Context()); err != nil {
		t.Errorf("it runs already: %v", err)
	}
	if err := NewClient(filepath.Join(dir, "nowhere")).WaitRunning(t.Context()); err == nil {
		t.Error("a directory that is not there was waited for")
	}
}
