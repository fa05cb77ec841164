package console

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/fake"
	"github.com/bottle-run/bottle/runtime/faulty"
	"github.com/bottle-run/bottle/sidecar/config"
	"github.com/bottle-run/bottle/sidecar/policy"
	"github.com/bottle-run/bottle/sidecar/supervise/change"
)

// watched is a terminal of which all that is written is kept.
type watched struct {
	t        *testing.T
	terminal *os.File
	tty      *os.File
	mu       sync.Mutex
	text     strings.Builder
}

func open(t *testing.T) *watched {
	t.Helper()
	terminal, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close(); _ = terminal.Close() })
	if err := pty.Setsize(terminal, &pty.Winsize{Rows: 24, Cols: 80}); err != nil {
		t.Fatal(err)
	}
	w := &watched{t: t, terminal: terminal, tty: tty}
	go func() {
		p := make([]byte, 4096)
		for {
			n, err := terminal.Read(p)
			w.mu.Lock()
			w.text.Write(p[:n])
			w.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return w
}

// until returns when a text has been written since the last call.
func (w *watched) until(text string) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		w.mu.Lock()
		found := strings.Contains(w.text.String(), text)
		if found {
			w.text.Reset()
		}
		w.mu.Unlock()
		if found {
			return
		}
	}
	w.t.Fatalf("%q was never shown: %q", text, w.text.String())
}

func TestAnEngineThatGoesAwayIsSaidAndAskedAgain(t *testing.T) {
	rt := faulty.New(runtime.Checked(fake.New()), faulty.Plan{})
	w := open(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{Runtime: rt, Host: core.Host{LookupEnv: os.LookupEnv}, By: "op@host", Input: w.tty, Output: w.tty})
	}()
	w.until("No bottle with supervise runs")
	rt.SetPlan(faulty.MustParse("ListContainers = fail unavailable"))
	w.until("THE ENGINE DOES NOT ANSWER, it is asked again")
	rt.SetPlan(faulty.Plan{})
	w.until("0 waiting in 0 bottles")
	stopped := errors.New("told to stop")
	cancel(stopped)
	if err := <-ended; !errors.Is(err, stopped) {
		t.Error(err)
	}
	w.until("\x1b[?1049l")
}

func TestItEndsWithQ(t *testing.T) {
	w := open(t)
	ended := make(chan error, 1)
	go func() {
		ended <- Run(t.Context(), Options{Runtime: runtime.Checked(fake.New()), Host: core.Host{LookupEnv: os.LookupEnv}, Input: w.tty, Output: w.tty})
	}()
	w.until("No bottle with supervise runs")
	if _, err := w.terminal.WriteString("q"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	w.until("\x1b[?1049l")
}

func TestAnEditorGetsPlainTextAndGivesAChange(t *testing.T) {
	c := change.Change{Kind: config.ProposeAllow, Allow: &change.Allow{Add: []policy.Rule{{Host: "a\x1b[2J\u202e.example"}}}}
	file, remove, err := forEditor(c)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if i := strings.IndexFunc(string(text), func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }); i >= 0 {
		t.Errorf("%q", text[i:])
	}
	back, err := edited(file)
	if err != nil || change.Revision(back) != change.Revision(c) {
		t.Errorf("%+v, %v", back, err)
	}
	if err := os.WriteFile(file, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := edited(file); err == nil || !strings.Contains(err.Error(), "is not taken") {
		t.Error(err)
	}
	remove()
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Error("the file stays")
	}
	t.Setenv("VISUAL", "")
	t.Setenv("EDITOR", "touch -a")
	t.Chdir(t.TempDir())
	if err := editor("a file").Run(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat("a file"); err != nil {
		t.Error(err)
	}
}
