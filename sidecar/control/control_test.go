package control

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/sidecar/internal/front"
)

type fake struct{ health, reload error }

func (f fake) Health() error { return f.health }
func (f fake) Reload() error { return f.reload }
func (f fake) Policy() any   { return map[string]string{"agent": "coder"} }
func (f fake) Test(method, url string) front.Verdict {
	d := "deny"
	if method == "GET" {
		d = "allow"
	}
	return front.Verdict{Decision: d, Rule: "r", Host: url}
}

func TestControl(t *testing.T) {
	dir := t.TempDir()
	c := NewClient(dir)
	if err := c.Health(); !errors.Is(err, ErrNotRunning) {
		t.Errorf("before: %v", err)
	}
	for range 2 { // a socket left behind is replaced
		ln, err := Listen(dir)
		if err != nil {
			t.Fatal(err)
		}
		served := make(chan error, 1)
		go func() { served <- Serve(ln, fake{reload: errors.New("routes[1]: bad")}) }()
		info, err := os.Stat(filepath.Join(dir, socketName))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if err := c.Health(); err != nil {
			t.Errorf("health: %v", err)
		}
		if err := c.Reload(); err == nil || err.Error() != "routes[1]: bad" {
			t.Errorf("reload: %v", err)
		}
		if p, err := c.Policy(); err != nil || !strings.Contains(string(p), "coder") {
			t.Errorf("policy: %s, %v", p, err)
		}
		if v, ok, err := c.Test("GET", "https://x.com/?a=b&c"); err != nil || !ok || !strings.Contains(string(v), "b\\u0026c") {
			t.Errorf("test: %s, %v, %v", v, ok, err)
		}
		if _, ok, err := c.Test("POST", "https://x.com/"); err != nil || ok {
			t.Errorf("test of a denied one: %v, %v", ok, err)
		}
		ln.Close()
		if err := <-served; err != nil {
			t.Error(err)
		}
		c = NewClient(dir)
	}
}
