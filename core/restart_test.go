package core_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/runtime/faulty"
)

const restartText = `
bottles:
  dev: {image: img, workspace: work, forward: [TOKEN], limits: {pids: 77}}
agents: {coder: {bottle: dev, prompt: do it, env: {PLAIN: "1"}}}
`

func restartBench(t *testing.T) (*bench, *core.Bottle) {
	t.Helper()
	b := newBench(t, map[string]string{"work/a.txt": "a", "work/dir/b.txt": "b"})
	b.env["TOKEN"] = "token-value-kestrel"
	bottle, err := b.launch(t.Context(), restartText, core.Wishes{})
	if err != nil {
		t.Fatal(err)
	}
	return b, bottle
}

func write(t *testing.T, b *core.Bottle, dir, name, content string) {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o600, Size: int64(len(content)), Uid: 1000, Gid: 1001}); err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write([]byte(content))
	_ = w.Close()
	if err := b.CopyTo(t.Context(), dir, &archive); err != nil {
		t.Fatal(err)
	}
}

func getenv(t *testing.T, b *core.Bottle, name string) string {
	t.Helper()
	var out bytes.Buffer
	if _, err := b.Exec(t.Context(), core.ExecOptions{Command: []string{"getenv", name}, Stdout: &out}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestARestartedBottleGoesOnWithWhatItHad(t *testing.T) {
	b, bottle := restartBench(t)
	write(t, bottle, "/workspace/dir", "new.txt", "made by the agent")
	write(t, bottle, "/home/robot/.bottle", "prompt.md", "changed by the agent")
	write(t, bottle, "/home/robot", "notes", "kept")
	write(t, bottle, "/home/robot", "rest", "lost")
	// Another process restarts it, without the operator's environment and files.
	delete(b.env, "TOKEN")
	other, err := core.Open(t.Context(), b.rt, "coder", b.observe)
	if err != nil {
		t.Fatal(err)
	}
	before, err := b.Snapshot("bottle-coder")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Restart(t.Context(), core.RestartOptions{Observer: b.observe, Keep: []string{"~/notes"}}); err != nil {
		t.Fatal(err)
	}
	if restarted, err := bottle.Follow(t.Context()); err != nil || !restarted {
		t.Fatal(restarted, err)
	}
	if restarted, err := bottle.Follow(t.Context()); err != nil || restarted {
		t.Error("it was restarted once", err)
	}
	after, err := b.Snapshot("bottle-coder.restart-1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Snapshot("bottle-coder"); err == nil {
		t.Error("the old container is there")
	}
	if after.Spec.Limits != before.Spec.Limits || after.Spec.Env["PLAIN"] != "1" || after.Spec.Hostname != "coder" || strings.Contains(fmt.Sprintf("%+v", after.Spec), "kestrel") {
		t.Errorf("%+v", after.Spec)
	}
	for _, it := range []*core.Bottle{bottle, other} {
		for name, want := range map[string]string{
			"/workspace/a.txt": "a", "/workspace/dir/new.txt": "made by the agent", "/home/robot/.bottle/prompt.md": "changed by the agent", "/home/robot/notes": "kept",
		} {
			if got := readBack(t, it, name); got != want {
				t.Errorf("%s: %q", name, got)
			}
		}
		if _, err := it.CopyFrom(t.Context(), "/home/robot/rest"); err == nil {
			t.Error("what is not kept is there")
		}
		if got := getenv(t, it, "TOKEN"); got != "token-value-kestrel" {
			t.Errorf("TOKEN is %q", got)
		}
	}
	list, err := core.List(t.Context(), b.rt)
	if err != nil || len(list) != 1 || list[0].Name != "coder" || list[0].State != "running" {
		t.Errorf("%+v, %v", list, err)
	}
	if err := other.Restart(t.Context(), core.RestartOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Snapshot("bottle-coder.restart-2"); err != nil {
		t.Error(err)
	}
	if got := readBack(t, other, "/workspace/dir/new.txt"); got != "made by the agent" {
		t.Errorf("%q", got)
	}
	// Who launched it removes the container that it did not make.
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.empty()
	for _, e := range b.events {
		if e.State == core.StateFailed {
			t.Errorf("%+v", e)
		}
	}
}

func TestASealedBottleIsRestarted(t *testing.T) {
	b, _ := sealedBench(t)
	bottle, err := b.launchSealed(t.Context(), sealedText)
	if err != nil {
		t.Fatal(err)
	}
	before, err := b.Snapshot("bottle-coder")
	if err != nil {
		t.Fatal(err)
	}
	if err := bottle.Restart(t.Context(), core.RestartOptions{}); err != nil {
		t.Fatal(err)
	}
	after, err := b.Snapshot("bottle-coder.restart-1")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(after.Spec.Env), fmt.Sprint(before.Spec.Env); got != want {
		t.Errorf("variables:\n%s\nwant\n%s", got, want)
	}
	if got, want := fmt.Sprint(after.Spec.Files), fmt.Sprint(before.Spec.Files); got != want {
		t.Error("the files that it starts with differ: it trusts something else")
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.empty()
}

func TestWhateverGoesWrongInARestartTheBottleIsThere(t *testing.T) {
	for _, way := range []string{"fail", "do, fail unavailable", "hang"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			for k := 1; ; k++ {
				b, bottle := restartBench(t)
				rt := faulty.New(b.rt, faulty.MustParse(fmt.Sprintf("*@%d = %s", k+1, way))) // one is Open's
				ctx, cancel := context.WithCancel(t.Context())
				clearing, stop := context.WithCancel(t.Context())
				hit := false
				rt.OnCall(func(c faulty.Call) {
					if c.Rule != "" {
						hit = true
						if way == "hang" {
							time.AfterFunc(5*time.Millisecond, cancel)
							time.AfterFunc(500*time.Millisecond, stop)
						}
					}
				})
				other, err := core.Open(ctx, rt, "coder", nil)
				if err != nil {
					cancel()
					stop()
					continue // it was a call of Open's
				}
				err = other.Restart(ctx, core.RestartOptions{Teardown: clearing})
				stop()
				cancel()
				if !hit {
					if err != nil {
						t.Fatal(err)
					}
					if k < 10 {
						t.Errorf("a restart is only %d calls", k)
					}
					return
				}
				list, listed := core.List(t.Context(), b.rt)
				if listed != nil || len(list) != 1 || list[0].State != "running" {
					t.Fatalf("call %d: %v: %+v, %v", k, err, list, listed)
				}
				if _, err := bottle.Follow(t.Context()); err != nil {
					t.Fatal(err)
				}
				if got := readBack(t, bottle, "/workspace/a.txt"); got != "a" {
					t.Errorf("call %d: %q", k, got)
				}
				if err := bottle.Restart(t.Context(), core.RestartOptions{Force: true}); err != nil {
					t.Errorf("call %d: it cannot be restarted again: %v", k, err)
				}
				if err := bottle.Close(t.Context()); err != nil {
					t.Errorf("call %d: %v", k, err)
				}
				b.empty()
			}
		})
	}
}

func TestWhatCannotBeRestartedIsSaid(t *testing.T) {
	b, bottle := restartBench(t)
	var failed *core.LaunchError
	for _, keep := range []string{"notes", "/", "/.bottle/run", "/.bottle"} {
		if err := bottle.Restart(t.Context(), core.RestartOptions{Keep: []string{keep}}); !errors.As(err, &failed) || core.KindOf(failed.Err) != core.KindInput || failed.Teardown != nil {
			t.Errorf("%s: %v", keep, err)
		}
	}
	// Another one has begun, and was killed.
	s, err := b.Snapshot("bottle-coder")
	if err != nil {
		t.Fatal(err)
	}
	spec := s.Spec
	spec.Name = "bottle-coder.restart-1"
	if _, err := b.rt.Run(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	err = bottle.Restart(t.Context(), core.RestartOptions{})
	if core.KindOf(err) != core.KindName && !strings.Contains(fmt.Sprint(err), "--force") {
		t.Error(err)
	}
	if list, err := core.List(t.Context(), b.rt); err != nil || len(list) != 1 {
		t.Errorf("%+v, %v", list, err)
	}
	if restarted, err := bottle.Follow(t.Context()); restarted || err != nil {
		t.Errorf("half a restart is followed: %v", err)
	}
	if err := bottle.Restart(t.Context(), core.RestartOptions{Force: true}); err != nil {
		t.Error(err)
	}
	// One of another version of bottle.
	s, err = b.Snapshot("bottle-coder.restart-1")
	if err != nil {
		t.Fatal(err)
	}
	spec = s.Spec
	spec.Name, spec.Labels = "bottle-old", map[string]string{core.LabelBottle: "old", core.LabelLaunch: "1234567890", core.LabelRole: core.RoleAgent, core.LabelCommand: "[]"}
	spec.Networks = nil
	if _, err := b.rt.Run(t.Context(), spec); err != nil {
		t.Fatal(err)
	}
	old, err := core.Open(t.Context(), b.rt, "old", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Restart(t.Context(), core.RestartOptions{}); core.KindOf(err) != core.KindUnsupported || !strings.Contains(err.Error(), "another version") {
		t.Error(err)
	}
	if err := old.Close(t.Context()); err != nil {
		t.Error(err)
	}
	// Its agent's container is gone.
	if err := b.rt.RemoveContainer(t.Context(), "bottle-coder.restart-1"); err != nil {
		t.Fatal(err)
	}
	if err := bottle.Restart(t.Context(), core.RestartOptions{}); core.KindOf(err) != core.KindNotFound {
		t.Error(err)
	}
	if err := bottle.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.empty()
}
