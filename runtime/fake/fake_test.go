package fake_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/fake"
)

// hello greets on stdout and exits with 3.
func hello(_ context.Context, p *fake.Process) int {
	_, _ = fmt.Fprintf(p.Stdout, "hello %s\n", p.Getenv("WHO"))
	return 3
}

func engine(t *testing.T) *fake.Engine {
	t.Helper()
	e := fake.New()
	e.AddImage("base", runtime.ImageConfig{Entrypoint: []string{"/idle"}}, map[string]string{runtime.LabelManaged: "true"},
		map[string]string{"/idle": "", "/bin/hello": ""})
	e.Handle("hello", hello)
	return e
}

func run(t *testing.T, e *fake.Engine, spec runtime.ContainerSpec) runtime.Container {
	t.Helper()
	c, err := e.Run(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestAnExecRunsTheRegisteredProgram(t *testing.T) {
	e := engine(t)
	run(t, e, runtime.ContainerSpec{Name: "c", Image: "base", Env: map[string]string{"WHO": "you"}})
	var out bytes.Buffer
	status, err := e.Exec(t.Context(), "c", runtime.ExecSpec{Command: []string{"/bin/hello"}, Stdout: &out})
	if err != nil || status.Code != 3 || out.String() != "hello you\n" {
		t.Fatalf("got %v, %v, output %q", status, err, out.String())
	}
	_, err = e.Exec(t.Context(), "c", runtime.ExecSpec{Command: []string{"/bin/none"}})
	if !errdefs.IsNotFound(err) {
		t.Fatalf("a missing command: want NotFound, got %v", err)
	}
}

func TestASignalEndsAProcessThatDoesNotCatchIt(t *testing.T) {
	e := engine(t)
	run(t, e, runtime.ContainerSpec{Name: "c", Image: "base"})
	if err := e.Kill(t.Context(), "c", "SIGTERM"); err != nil {
		t.Fatal(err)
	}
	status, err := e.Wait(t.Context(), "c")
	if err != nil || status.Code != 143 {
		t.Fatalf("want exit status 143, got %v, %v", status, err)
	}
}

func TestAFaultFailsTheCallBeforeItHasAnEffect(t *testing.T) {
	e := engine(t)
	broken := errors.New("broken")
	e.SetFault(func(op, object string) error {
		if op == "Run" && object == "c" {
			return broken
		}
		return nil
	})
	_, err := e.Run(t.Context(), runtime.ContainerSpec{Name: "c", Image: "base"})
	var typed *runtime.Error
	if !errors.Is(err, broken) || !errors.As(err, &typed) || typed.Object != "c" {
		t.Fatalf("want the fault in a *runtime.Error about c, got %#v", err)
	}
	e.SetFault(nil)
	if list, err := e.ListContainers(t.Context(), runtime.Filter{}); err != nil || len(list) != 0 {
		t.Fatalf("want no container, got %v, %v", list, err)
	}
	if calls := e.Calls(); len(calls) != 2 || calls[0] != (fake.Call{Op: "Run", Object: "c"}) {
		t.Fatalf("calls: %v", calls)
	}
}

func TestABuildCopiesTheContextWithoutWhatIsIgnored(t *testing.T) {
	e := engine(t)
	dir := t.TempDir()
	for name, content := range map[string]string{
		"Dockerfile":    "ARG WHAT=one\nFROM base AS first\nARG WHAT\nENV SEEN=$WHAT\nCOPY . /src/\nFROM first\nCOPY --from=first /src/kept \\\n  /kept\nUSER 7\n",
		".dockerignore": "secret\n", "kept": "k", "secret": "s",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	img, err := e.BuildImage(t.Context(), runtime.BuildSpec{ContextDir: dir, Tags: []string{"built"}, Args: map[string]string{"WHAT": "two"}})
	if err != nil {
		t.Fatal(err)
	}
	if img.Config.User != "7" || img.Config.Env[0] != "SEEN=two" || img.Labels[runtime.LabelManaged] != "true" {
		t.Fatalf("image: %+v", img)
	}
	run(t, e, runtime.ContainerSpec{Name: "c", Image: "built"})
	files, err := e.Files("c")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := files.ReadFile("/kept"); err != nil || string(b) != "k" {
		t.Errorf("/kept: %q, %v", b, err)
	}
	if _, err := files.Stat("/src/secret"); err == nil {
		t.Error("/src/secret is there, though it is ignored")
	}
	archive, err := e.CopyFrom(t.Context(), "c", "/src")
	if err != nil {
		t.Fatal(err)
	}
	run(t, e, runtime.ContainerSpec{Name: "d", Image: "base"})
	if err := e.CopyTo(t.Context(), "d", "/", archive); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(archive); err != nil {
		t.Fatal(err)
	}
	if files, err = e.Files("d"); err != nil {
		t.Fatal(err)
	}
	if b, err := files.ReadFile("/src/kept"); err != nil || string(b) != "k" {
		t.Errorf("/src/kept after two copies: %q, %v", b, err)
	}
}
