package gitgate

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/sidecar/config"
)

var protocols = []string{"https", "ssh", "git", "file"}

func TestCloneAndFetch(t *testing.T) {
	w := newWorld(t)
	dir := w.bare("repo")
	g := w.gate(w.repositories("repo", nil), nil)
	head := w.git(dir, "rev-parse", "main")
	for _, kind := range protocols {
		for _, version := range []string{"0", "1", "2"} {
			t.Run(kind+" version "+version, func(t *testing.T) {
				v := "protocol.version=" + version
				whole := g.clone(kind, "-c", v)
				if got := w.git(whole, "rev-parse", "HEAD", "origin/other^0", "v1^0"); strings.Fields(got)[0] != head {
					t.Errorf("cloned: %s", got)
				}
				w.git(whole, "fsck", "--strict")

				shallow := g.clone(kind, "-c", v, "--depth=1", "--branch=main")
				if n := w.git(shallow, "rev-list", "--count", "HEAD"); n != "1" {
					t.Errorf("%s commits are in a shallow clone", n)
				}
				w.git(shallow, "fetch", "-q", "--deepen=1")
				if n := w.git(shallow, "rev-list", "--count", "HEAD"); n != "2" {
					t.Errorf("%s commits after deepening", n)
				}
				w.git(shallow, "fetch", "-q", "--unshallow", "--tags")
				w.git(shallow, "fsck", "--strict")
				if n := w.git(shallow, "rev-list", "--count", "HEAD"); n != "3" {
					t.Errorf("%s commits without shallowness", n)
				}
				single := g.clone(kind, "-c", v, "--single-branch", "--branch=other", "--no-tags")
				if refs := w.git(single, "for-each-ref", "--format=%(refname)"); strings.Contains(refs, "main") || strings.Contains(refs, "tags") {
					t.Errorf("a single branch: %s", refs)
				}
				// Something new, in both histories.
				w.write(filepath.Join(whole, "mine"), "mine")
				w.git(whole, "add", ".")
				w.git(whole, "commit", "-qm", "mine")
				up := filepath.Join(t.TempDir(), "up")
				w.git("", "clone", "-q", dir, up)
				branch := "new-" + kind + version
				var theirs strings.Builder
				for i := range 40 {
					fmt.Fprintf(&theirs, "commit refs/heads/%s\ncommitter T <t@example.com> %d +0000\ndata 6\ntheirs\n", branch, 1_700_000_000+i)
					if i == 0 {
						fmt.Fprintf(&theirs, "from refs/remotes/origin/other^0\n")
					}
					fmt.Fprintf(&theirs, "M 100644 inline theirs\ndata %d\n%s\n", i, strings.Repeat("x", i))
				}
				w.gitIn(up, theirs.String(), "fast-import", "--quiet")
				w.git(up, "push", "-q", "origin", branch)
				w.git(whole, "fetch", "-q", "origin")
				w.git(whole, "fsck", "--strict")
				if got, want := w.git(whole, "rev-parse", "origin/"+branch), w.git(up, "rev-parse", branch); got != want {
					t.Errorf("fetched %s, want %s", got, want)
				}
			})
		}
	}
	// An upstream that knows only version 0.
	old := w.repositories("repo", nil)[0]
	old.URL = w.urls["https"] + "/old/repo.git"
	behind := w.gate([]config.GitRepository{old}, nil)
	whole := behind.clone("https", "--depth=1")
	w.git(whole, "fetch", "-q", "--unshallow")
	w.git(whole, "fsck", "--strict")
	if log := g.records(); strings.Count(log, `"method":"fetch"`) < 60 || strings.Contains(log, `"decision":"deny"`) {
		t.Errorf("the audit log: %s", log)
	}
}
