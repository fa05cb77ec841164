package core_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/core"
	"github.com/bottle-run/bottle/internal/needs"
	"github.com/bottle-run/bottle/runtime/fake"
)

const copiedText = `
bottles: {dev: {image: img, workspace: {path: src, ignore: [private]}}}
agents: {coder: {bottle: dev}}
`

// copiedBench launches a bottle with a copy of files below src.
func copiedBench(t *testing.T, files map[string]string) (*bench, *core.Bottle, fake.Files) {
	t.Helper()
	all := map[string]string{}
	for name, content := range files {
		all["src/"+name] = content
	}
	b := newBench(t, all)
	bottle, err := b.launch(t.Context(), copiedText, core.Wishes{})
	must(t, err)
	t.Cleanup(func() { must(t, bottle.Close(context.Background())) })
	inside, err := b.Files("bottle-coder")
	must(t, err)
	return b, bottle, inside
}

func put(t *testing.T, f fake.Files, name, content string) {
	t.Helper()
	mode := fs.FileMode(0o644)
	if target, ok := strings.CutPrefix(content, "-> "); ok {
		must(t, f.WriteFile("/workspace/"+name, fake.Node{Mode: fs.ModeSymlink | 0o777, Link: target}))
		return
	}
	if strings.HasPrefix(content, "#!") {
		mode = 0o755
	}
	must(t, f.WriteFile("/workspace/"+name, fake.Node{Mode: mode, Content: []byte(content)}))
}

// patchOf is the whole patch, with the names whose originals are lost.
func patchOf(t *testing.T, d *core.Diff) (text string, lost []string) {
	t.Helper()
	var out bytes.Buffer
	for _, c := range d.Changes {
		_, err := d.Patch(&out, c)
		var original *core.OriginalError
		switch {
		case errors.As(err, &original):
			lost = append(lost, original.Name)
		case err != nil:
			t.Fatal(err)
		}
	}
	return out.String(), lost
}

func TestThePatchMakesTheAgentsTreeOfTheUsers(t *testing.T) {
	git := needs.Program(t, "git", "git")
	b, bottle, files := copiedBench(t, map[string]string{
		"same": "same\n", "edit": "one\ntwo\nthree\n", "gone": "bye\n", "mode": "#!/bin/sh\n", "deep/x": "x", ".gitignore": "*.o\n", ".git/config": "[core]\n",
	})
	put(t, files, "edit", "one\n2\nthree")
	files.Remove("/workspace/gone")
	put(t, files, "mode", "#!/bin/sh\n")
	put(t, files, "new/dir/bin", "\x00\x01binary")
	put(t, files, "link", "-> deep/x")
	put(t, files, "out", "-> /etc/passwd")
	put(t, files, "evil\n+++ b/name\x1b[2J", "hostile\n")
	put(t, files, "built.o", "object")
	put(t, files, "private/key", "k")
	put(t, files, ".git/hooks/post-checkout", "#!/bin/sh\nrm -rf /\n")
	put(t, files, "sub/.GIT/config", "x")

	d, err := bottle.Diff(t.Context(), core.DiffOptions{})
	must(t, err)
	defer func() { must(t, d.Close()) }()
	var names []string
	for _, c := range d.Changes {
		names = append(names, c.Status()+" "+c.Name)
	}
	want := []string{"M edit", "A evil\n+++ b/name\x1b[2J", "D gone", "A link", "M mode", "A new/dir/bin", "A out"}
	if !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	notes := strings.Join(d.Notes, "; ")
	if !strings.Contains(notes, "out is a link to /etc/passwd, out of the workspace") || !strings.Contains(notes, "left out, as your ignore files have it: 2 of the new files") {
		t.Errorf("notes %q", d.Notes)
	}
	text, lost := patchOf(t, d)
	if len(lost) > 0 || strings.ContainsRune(text, 0x1b) {
		t.Errorf("lost %q in\n%s", lost, text)
	}
	cmd := exec.Command(git, "apply", "--whitespace=nowarn", "-")
	cmd.Dir, cmd.Stdin = filepath.Join(b.dir, "src"), strings.NewReader(text)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_CEILING_DIRECTORIES="+b.dir, "GIT_DIR="+b.dir+"/none")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git apply: %v\n%s\n%s", err, out, text)
	}
	for name, want := range map[string]string{"edit": "one\n2\nthree", "new/dir/bin": "\x00\x01binary", "evil\n+++ b/name\x1b[2J": "hostile\n", "same": "same\n"} {
		if got, err := os.ReadFile(filepath.Join(b.dir, "src", name)); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	if target, err := os.Readlink(filepath.Join(b.dir, "src/link")); err != nil || target != "deep/x" {
		t.Errorf("the link: %q, %v", target, err)
	}
	// With All, what is ignored is there, and .git is not.
	all, err := bottle.Diff(t.Context(), core.DiffOptions{All: true})
	must(t, err)
	defer func() { must(t, all.Close()) }()
	if len(all.Changes) != len(d.Changes)+2 || all.Tree != d.Tree || len(d.Tree) != 64 {
		t.Errorf("%d changes of %s, %d of %s", len(all.Changes), all.Tree, len(d.Changes), d.Tree)
	}
}

func TestTheHostsOwnChangesAreNotTheAgents(t *testing.T) {
	git := needs.Program(t, "git", "git")
	b, bottle, files := copiedBench(t, map[string]string{"mine": "old\n", "both": "old\n", "committed": "old\n", "theirs": "old\n"})
	src := filepath.Join(b.dir, "src")
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(git, append([]string{"-C", src, "-c", "user.name=x", "-c", "user.email=x@y"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
	}
	run("init", "-q")
	run("add", "committed")
	run("commit", "-q", "-m", "x")
	for _, name := range []string{"mine", "both", "committed", "added"} {
		b.write("src/"+name, "by the host\n")
	}
	for _, name := range []string{"both", "committed", "theirs"} {
		put(t, files, name, "by the agent\n")
	}
	d, err := bottle.Diff(t.Context(), core.DiffOptions{})
	must(t, err)
	defer func() { must(t, d.Close()) }()
	text, lost := patchOf(t, d)
	if len(d.Changes) != 3 || !slices.Equal(lost, []string{"both"}) {
		t.Errorf("%d changes, lost %q", len(d.Changes), lost)
	}
	if strings.Contains(text, "by the host") || strings.Count(text, "\n-old\n+by the agent\n") != 2 {
		t.Errorf("%s", text)
	}
}

func TestARecordThatTheAgentHasTouchedIsRefused(t *testing.T) {
	_, bottle, files := copiedBench(t, map[string]string{"a": "a"})
	record, err := files.ReadFile("/.bottle/workspace")
	must(t, err)
	for name, content := range map[string][]byte{"one bit": append(record[:len(record)-1:len(record)-1], record[len(record)-1]^1), "nothing": {}, "cut": record[:60]} {
		must(t, files.WriteFile("/.bottle/workspace", fake.Node{Mode: 0o444, Content: content}))
		if _, err := bottle.Diff(t.Context(), core.DiffOptions{}); core.KindOf(err) != core.KindInput || !strings.Contains(err.Error(), "has been changed") {
			t.Errorf("%s: %v", name, err)
		}
	}
	must(t, files.WriteFile("/.bottle/workspace", fake.Node{Mode: fs.ModeSymlink, Link: "/etc/passwd"}))
	if _, err := bottle.Diff(t.Context(), core.DiffOptions{}); err == nil {
		t.Error("a link is taken for the record")
	}
	files.Remove("/.bottle/workspace")
	if _, err := bottle.Diff(t.Context(), core.DiffOptions{}); core.KindOf(err) != core.KindInput {
		t.Errorf("removed: %v", err)
	}
}

func TestWithoutAWorkspaceThereIsNothingToCompare(t *testing.T) {
	b := newBench(t, nil)
	bottle, err := b.launch(t.Context(), small, core.Wishes{})
	must(t, err)
	if _, err := bottle.Diff(t.Context(), core.DiffOptions{}); core.KindOf(err) != core.KindInput || !strings.Contains(err.Error(), "without a workspace") {
		t.Errorf("got %v", err)
	}
	must(t, bottle.Close(t.Context()))
}

func TestWhatTheAgentWasGivenIsKnownAfterARestart(t *testing.T) {
	_, bottle, files := copiedBench(t, map[string]string{"a": "old", "b": "b"})
	put(t, files, "a", "new")
	before, err := bottle.Diff(t.Context(), core.DiffOptions{})
	must(t, err)
	defer func() { must(t, before.Close()) }()
	for range 2 {
		must(t, bottle.Restart(t.Context(), core.RestartOptions{}))
		d, err := bottle.Diff(t.Context(), core.DiffOptions{})
		must(t, err)
		if len(d.Changes) != 1 || d.Changes[0].Name != "a" || d.Tree != before.Tree {
			t.Errorf("%+v of %s, %s before", d.Changes, d.Tree, before.Tree)
		}
		must(t, d.Close())
	}
}
