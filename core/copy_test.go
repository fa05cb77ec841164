package core_test

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/core/unpack"
	"github.com/bottle-run/bottle/runtime/fake"
)

func TestCopiesGoWhereTheyShould(t *testing.T) {
	b := newBench(t, map[string]string{"file": "content", "tree/a": "aye", "tree/.gitignore": "*", "tree/sub/b": "bee"})
	bottle, err := b.launch(t.Context(), small, core.Wishes{})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ source, target, file, content string }{
		{"file", "/home/robot", "/home/robot/file", "content"},
		{"file", "/home/robot/", "/home/robot/file", "content"},
		{"file", "/home/robot/renamed", "/home/robot/renamed", "content"},
		{"file", "/home/robot/renamed", "/home/robot/renamed", "content"},
		{"file", "/new/dir/", "/new/dir/file", "content"},
		{"tree", "/home/robot", "/home/robot/tree/sub/b", "bee"},
		{"tree", "/other", "/other/.gitignore", "*"},
		{"tree/", "/home/robot/.", "/home/robot/tree/a", "aye"},
	} {
		if _, err := bottle.CopyIn(t.Context(), filepath.Join(b.dir, test.source), test.target); err != nil {
			t.Errorf("%s to %s: %v", test.source, test.target, err)
			continue
		}
		files, err := b.Files("bottle-robot")
		must(t, err)
		if n, err := files.Stat(test.file); err != nil || string(n.Content) != test.content || n.UID != 1000 || n.GID != 1001 {
			t.Errorf("%s to %s: %s is %+v, %v", test.source, test.target, test.file, n, err)
		}
	}
	for _, test := range []struct{ source, target, file string }{
		{"/home/robot/file", "out", "out"},
		{"/home/robot/file", ".", "file"},
		{"/home/robot/tree", "copy", "copy/sub/b"},
		{"/home/robot/tree/", "", "tree/sub/b"},
	} {
		dir := t.TempDir()
		if _, err := bottle.CopyOut(t.Context(), test.source, filepath.Join(dir, test.target), unpack.Options{}); err != nil {
			t.Errorf("%s to %s: %v", test.source, test.target, err)
			continue
		}
		if _, err := os.Stat(filepath.Join(dir, test.file)); err != nil {
			t.Errorf("%s to %s: %v", test.source, test.target, err)
		}
	}
	for name, err := range map[string]error{
		"a relative target":  second(bottle.CopyIn(t.Context(), b.dir, "x")),
		"a missing source":   second(bottle.CopyIn(t.Context(), b.dir+"/nowhere", "/x")),
		"a relative source":  second(bottle.CopyOut(t.Context(), "x", b.dir, unpack.Options{})),
		"a missing place":    second(bottle.CopyOut(t.Context(), "/home/robot/file", b.dir+"/no/where", unpack.Options{})),
		"the root, unnamed":  second(bottle.CopyOut(t.Context(), "/", b.dir, unpack.Options{})),
		"a file as a folder": second(bottle.CopyOut(t.Context(), "/home/robot/file", b.dir+"/x/", unpack.Options{})),
	} {
		if core.KindOf(err) != core.KindInput {
			t.Errorf("%s: %v (%s)", name, err, core.KindOf(err))
		}
	}
	if _, err := bottle.CopyOut(t.Context(), "/nowhere", b.dir, unpack.Options{}); core.KindOf(err) != core.KindNotFound {
		t.Errorf("a missing file in the bottle: %v (%s)", err, core.KindOf(err))
	}
	must(t, bottle.Close(t.Context()))
}

func second[T any](_ T, err error) error { return err }

// TestATerminalIsToldOfTheEndOfItsInput holds that the end arrives as the key, and
// that the input itself does not end before the command does.
func TestATerminalIsToldOfTheEndOfItsInput(t *testing.T) {
	b := newBench(t, nil)
	bottle, err := b.launch(t.Context(), small, core.Wishes{})
	if err != nil {
		t.Fatal(err)
	}
	var got string
	b.Handle("/.bottle/inside", func(_ context.Context, p *fake.Process) int {
		buf := make([]byte, 100)
		for !strings.HasSuffix(got, "\x04") {
			n, err := p.Stdin.Read(buf)
			got += string(buf[:n])
			if err != nil {
				return 1
			}
		}
		return 0
	})
	for name, input := range map[string]io.Reader{
		"the end by itself":     strings.NewReader("typed"),
		"the end with the last": iotest.DataErrReader(strings.NewReader("typed")),
		"one byte at a time":    iotest.OneByteReader(strings.NewReader("typed")),
	} {
		got = ""
		status, err := bottle.Exec(t.Context(), core.ExecOptions{Command: []string{"x"}, TTY: true, Stdin: input})
		if err != nil || status.Code != 0 || got != "typed\x04" {
			t.Errorf("%s: %q, %v, %v", name, got, status, err)
		}
	}
	got = ""
	// Another error of the input is an error.
	if status, err := bottle.Exec(t.Context(), core.ExecOptions{Command: []string{"x"}, TTY: true, Stdin: iotest.ErrReader(errors.New("unplugged"))}); err == nil && status.Code == 0 {
		t.Error("an error of the input is taken for its end")
	}
	must(t, bottle.Close(t.Context()))
}

// TestANamedUserGetsNothingOfTheAgents holds that the agent, which can write to
// its file of variables, cannot choose those of a command that runs as another user.
func TestANamedUserGetsNothingOfTheAgents(t *testing.T) {
	b := newBench(t, nil)
	bottle, err := b.launch(t.Context(), small, core.Wishes{Env: []string{"TOKEN=hidden"}})
	if err != nil {
		t.Fatal(err)
	}
	for user, want := range map[string]string{"": "hidden", "root": "", "robot": ""} {
		var out strings.Builder
		if _, err := bottle.Exec(t.Context(), core.ExecOptions{Command: []string{"getenv", "TOKEN"}, User: user, Stdout: &out}); err != nil || out.String() != want {
			t.Errorf("user %q has %q, want %q (%v)", user, out.String(), want, err)
		}
		out.Reset()
		own := map[string]string{"MINE": "given"}
		if _, err := bottle.Exec(t.Context(), core.ExecOptions{Command: []string{"getenv", "MINE"}, User: user, Env: own, Stdout: &out}); err != nil || out.String() != "given" {
			t.Errorf("user %q has %q of its own (%v)", user, out.String(), err)
		}
	}
	must(t, bottle.Close(t.Context()))
}
