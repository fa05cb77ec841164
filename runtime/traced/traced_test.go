package traced_test

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
	"github.com/bottle-run/bottle/runtime/fake"
	"github.com/bottle-run/bottle/runtime/traced"
)

// log keeps what was told.
type log struct {
	mu    sync.Mutex
	open  int
	calls []traced.Call
}

func (l *log) begin(_ context.Context, _ traced.Call) func(traced.Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open++
	return func(c traced.Call) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.open--
		l.calls = append(l.calls, c)
	}
}

// TestConformance holds that the decorator changes nothing.
func TestConformance(t *testing.T) {
	e := fake.New()
	e.Handle(probe.Path, func(ctx context.Context, p *fake.Process) int {
		if len(p.Args) < 2 || !probe.Pure(p.Args[1]) {
			_, _ = fmt.Fprintf(p.Stderr, "probe %q needs a kernel\n", p.Args)
			return 125
		}
		return probe.Main(ctx, &probe.Call{Args: p.Args[1:], Env: p.Env, Stdin: p.Stdin, Stdout: p.Stdout, Stderr: p.Stderr})
	})
	l := &log{}
	rt := traced.New(e, l.begin)
	foreign := func(_ context.Context, names conformance.Names, _ []byte) (func(context.Context) error, error) {
		e.AddForeign("networks", names.Network)
		e.AddForeign("containers", names.Container)
		e.AddImage(names.Image, runtime.ImageConfig{}, nil, nil)
		return func(context.Context) error {
			e.RemoveForeign("networks", names.Network)
			e.RemoveForeign("containers", names.Container)
			e.RemoveForeign("images", names.Image)
			return nil
		}, nil
	}
	conformance.RunT(t, func(*testing.T) runtime.Runtime { return rt }, conformance.Options{Foreign: foreign})
	if l.open != 0 || len(l.calls) < 100 {
		t.Errorf("%d calls have ended, %d have not", len(l.calls), l.open)
	}
}

func TestNothingThatMayBeSecretIsTold(t *testing.T) {
	e := fake.New()
	e.AddImage("img", runtime.ImageConfig{}, map[string]string{"/bin/x": "x"}, nil)
	e.Handle("/bin/x", func(ctx context.Context, p *fake.Process) int {
		if len(p.Args) > 1 && p.Args[1] == "canary-argument" {
			_, _ = io.Copy(p.Stdout, p.Stdin)
			return 3
		}
		<-ctx.Done()
		return 0
	})
	l := &log{}
	rt := runtime.Checked(traced.New(e, l.begin))
	ctx := t.Context()
	_, err := rt.Run(ctx, runtime.ContainerSpec{
		Name: "c", Image: "img", Entrypoint: []string{"/bin/x"}, Command: []string{"canary-command"}, Env: map[string]string{"A": "canary-variable"},
		Files: []runtime.File{{Path: "/etc/f", Content: []byte("canary-content")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = rt.Exec(ctx, "c", runtime.ExecSpec{Command: []string{"/bin/x", "canary-argument"}, Stdin: strings.NewReader("canary-input"), Env: map[string]string{"B": "canary-variable"}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = rt.Exec(ctx, "c", runtime.ExecSpec{Command: []string{strings.Repeat("canary", 20)}})
	if err == nil {
		t.Error("a command that is not there runs")
	}
	archive, err := rt.CopyFrom(ctx, "c", "/etc/f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tar.NewReader(archive).Next(); err != nil {
		t.Error(err)
	}
	if l.open != 1 {
		t.Errorf("%d calls are open while a stream is", l.open)
	}
	if err := archive.Close(); err != nil {
		t.Error(err)
	}
	_ = archive.Close()
	if err := rt.RemoveContainer(ctx, "c"); err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%+v", l.calls); strings.Contains(text, "canary") || l.open != 0 {
		t.Errorf("%d open: %s", l.open, text)
	}
	want := []string{"Run c", "Exec c x", "Exec c", "CopyFrom c /etc/f", "RemoveContainer c"}
	var got []string
	for _, c := range l.calls {
		got = append(got, strings.TrimSpace(c.Method+" "+c.Object+" "+c.Detail))
	}
	if strings.Join(got, "; ") != strings.Join(want, "; ") {
		t.Errorf("got %q", got)
	}
	if c := l.calls[2]; c.Failed != "not found" {
		t.Errorf("%+v", c)
	}
	if c := l.calls[3]; c.Bytes == 0 {
		t.Errorf("%+v", c)
	}
}

func TestACallThatPanicsHasEnded(t *testing.T) {
	l := &log{}
	rt := traced.New(nil, l.begin) // every call panics
	for _, f := range []func(){
		func() { _, _ = rt.Info(t.Context()) },
		func() { _, _ = rt.CopyFrom(t.Context(), "c", "/") },
		func() { _ = rt.CopyTo(t.Context(), "c", "/", strings.NewReader("")) },
		func() { _, _ = rt.LoadImage(t.Context(), strings.NewReader("")) },
	} {
		if err := func() (err error) {
			defer func() {
				if recover() != nil {
					err = errors.New("panic")
				}
			}()
			f()
			return nil
		}(); err == nil {
			t.Error("it does not panic")
		}
	}
	if l.open != 0 || len(l.calls) != 4 || l.calls[0].Failed != "panic" {
		t.Errorf("%+v", l)
	}
}
