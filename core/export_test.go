package core_test

import (
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
)

// laid lists the files of a directory, with what they hold.
func laid(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	must(t, filepath.WalkDir(dir, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, _ := filepath.Rel(dir, file)
		if e.Type()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(file)
			found[name] = "-> " + target
			return err
		}
		content, err := os.ReadFile(file)
		if info, _ := e.Info(); info.Mode()&0o100 != 0 {
			content = append(content, " (runs)"...)
		}
		found[name] = string(content)
		return err
	}))
	return found
}

func TestTheWorkspaceIsLaidDownInANewDirectory(t *testing.T) {
	b, bottle, files := copiedBench(t, map[string]string{"same": "same", "tool": "x", ".vscode/tasks.json": "mine", ".gitignore": "*.o\n", ".git/config": "mine"})
	put(t, files, "tool", "#!new")
	put(t, files, "deep/new", "new")
	put(t, files, "x.o", "object")
	put(t, files, "deep/link", "-> ../same")
	put(t, files, ".git/hooks/post-checkout", "#!evil")
	put(t, files, "sub/.git", "gitdir: /elsewhere")
	dir := filepath.Join(b.dir, "out")
	result, err := bottle.Export(t.Context(), core.ExportOptions{Dir: dir})
	must(t, err)
	want := map[string]string{
		"same": "same", "tool": "#!new (runs)", ".vscode/tasks.json": "mine", ".gitignore": "*.o\n", "deep/new": "new", "deep/link": "-> ../same",
	}
	got := laid(t, dir)
	if len(got) != len(want) || result.Files != len(want) || result.Dir != dir {
		t.Errorf("got %q, %+v", got, result)
	}
	for name, content := range want {
		if got[name] != content {
			t.Errorf("%s: %q, want %q", name, got[name], content)
		}
	}
	// What exists is not touched.
	if _, err := bottle.Export(t.Context(), core.ExportOptions{Dir: dir}); core.KindOf(err) != core.KindInput || !strings.Contains(err.Error(), "nothing is overwritten") {
		t.Errorf("again: %v", err)
	}
}

func TestWhatWouldRunByItselfIsRefusedUnlessItIsNamed(t *testing.T) {
	b, bottle, files := copiedBench(t, map[string]string{"a": "a", ".envrc": "mine"})
	put(t, files, "a", "changed")
	put(t, files, ".envrc", "evil")
	put(t, files, "sub/.VSCode/tasks.json", "evil")
	put(t, files, "out", "-> /etc/passwd")
	put(t, files, "bare/HEAD", "ref: refs/heads/x")
	put(t, files, "bare/config", "[core] fsmonitor = evil")
	put(t, files, "bare/objects/x", "")
	put(t, files, "bare/refs/x", "")
	dir := filepath.Join(b.dir, "out")
	var refused *core.RefusedError
	_, err := bottle.Export(t.Context(), core.ExportOptions{Dir: dir})
	if !errors.As(err, &refused) || len(refused.Files) != 4 || core.KindOf(err) != core.KindInput {
		t.Fatalf("got %v", err)
	}
	for i, start := range []string{".envrc: direnv", "bare/HEAD: it makes", "out: it is a link to /etc/passwd", "sub/.VSCode/tasks.json: Visual"} {
		if !strings.HasPrefix(refused.Files[i], start) {
			t.Errorf("%q", refused.Files[i])
		}
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
	// A link that leads out cannot be allowed.
	_, err = bottle.Export(t.Context(), core.ExportOptions{Dir: dir, Allow: []string{".envrc", "sub/", "bare", "out"}})
	if !errors.As(err, &refused) || len(refused.Files) != 1 {
		t.Errorf("got %v", err)
	}
	result, err := bottle.Export(t.Context(), core.ExportOptions{Dir: dir, Allow: []string{".envrc"}, Skip: true})
	must(t, err)
	got := laid(t, dir)
	if got[".envrc"] != "evil" || got["a"] != "changed" || got["out"] != "" || got["sub/.VSCode/tasks.json"] != "" || got["bare/HEAD"] != "" || len(result.LeftOut) != 3 {
		t.Errorf("got %q, %+v", got, result)
	}
}

func TestChangesBecomeACommitOnANewBranch(t *testing.T) {
	git := needs.Program(t, "git", "git")
	b, bottle, files := copiedBench(t, map[string]string{"sub/keep": "k", "edit": "old", "gone": "g", "dir/x": "x", "dirty": "old", "mine": "old"})
	src := filepath.Join(b.dir, "src")
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command(git, append([]string{"-C", src, "-c", "user.name=x", "-c", "user.email=x@y"}, args...)...)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("git %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("init", "-q", "-b", "main")
	b.write("src/.git/hooks/post-commit", "#!/bin/sh\ntouch ran\n")
	must(t, os.Chmod(filepath.Join(src, ".git/hooks/post-commit"), 0o755))
	run("add", ".")
	b.write("src/dirty", "at head")
	run("add", "dirty")
	run("-c", "core.hooksPath=/dev/null", "commit", "-q", "-m", "x")
	b.write("src/mine", "not committed")
	put(t, files, "edit", "#!new\x00binary")
	files.Remove("/workspace/gone")
	files.Remove("/workspace/dir/x")
	files.Remove("/workspace/dir")
	put(t, files, "dir", "-> sub")
	put(t, files, "dirty", "by the agent")
	put(t, files, "e\nvil\x1b \"q\"", "done\n")
	put(t, files, "žluť", "z")
	result, err := bottle.Export(t.Context(), core.ExportOptions{Branch: "agent/work", Message: "work"})
	must(t, err)
	if result.Files != 7 || !slices.ContainsFunc(result.Notes, func(n string) bool { return strings.HasPrefix(n, "dirty is not at HEAD") }) {
		t.Errorf("%+v", result)
	}
	if got := run("-c", "core.quotePath=true", "diff", "--no-renames", "--name-status", "HEAD", "agent/work"); got != "D\tdir/x\nA\tdir\nM\tdirty\nA\t\"e\\nvil\\033 \\\"q\\\"\"\nM\tedit\nD\tgone\nA\t\"\\305\\276lu\\305\\245\"\n" && got != "A\tdir\nD\tdir/x\nM\tdirty\nA\t\"e\\nvil\\033 \\\"q\\\"\"\nM\tedit\nD\tgone\nA\t\"\\305\\276lu\\305\\245\"\n" {
		t.Errorf("%q", got)
	}
	if got := run("show", "-s", "--format=%H %P %an <%ae> %s", "agent/work"); got != result.Commit+" "+strings.TrimSpace(run("rev-parse", "HEAD"))+" coder <agent@bottle.invalid> work\n" {
		t.Errorf("%q", got)
	}
	if got := run("cat-file", "blob", "agent/work:e\nvil\x1b \"q\""); got != "done\n" {
		t.Errorf("%q", got)
	}
	if got := run("ls-tree", "agent/work", "edit"); !strings.HasPrefix(got, "100755") {
		t.Errorf("%q", got)
	}
	// The user's work tree, index, branch and hooks are as they were.
	if got := run("status", "--porcelain"); got != " M mine\n" || strings.TrimSpace(run("rev-parse", "--abbrev-ref", "HEAD")) != "main" {
		t.Errorf("%q", got)
	}
	if _, err := os.Lstat(filepath.Join(src, "ran")); err == nil {
		t.Error("a hook ran")
	}
	if refs := run("for-each-ref", "--format=%(refname)"); refs != "refs/heads/agent/work\nrefs/heads/main\n" {
		t.Errorf("references %q", refs)
	}
	for _, name := range []string{"agent/work", "main", "-x", "a..b", "a b", ""} {
		if _, err := bottle.Export(t.Context(), core.ExportOptions{Branch: name}); core.KindOf(err) != core.KindInput {
			t.Errorf("branch %q: %v", name, err)
		}
	}
}

func TestABranchNeedsARepository(t *testing.T) {
	needs.Program(t, "git", "git")
	_, bottle, files := copiedBench(t, map[string]string{"a": "a"})
	put(t, files, "a", "b")
	t.Setenv("GIT_CEILING_DIRECTORIES", "/")
	if _, err := bottle.Export(t.Context(), core.ExportOptions{Branch: "x"}); core.KindOf(err) != core.KindInput || !strings.Contains(err.Error(), "--to") {
		t.Errorf("got %v", err)
	}
}
