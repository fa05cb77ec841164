package core

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/core/changes"
	"github.com/bottle-run/bottle/core/patch"
)

// toBranch makes a commit of what the agent has changed, on top of the repository's HEAD: nothing
// else of HEAD changes. The work tree and the index are not touched, no hook of the repository's
// is run but reference-transaction, and no filter: contents are committed as they are.
func (x *exporter) toBranch() error {
	g := gitRepo{x: x}
	ref := "refs/heads/" + x.opts.Branch
	if _, err := g.git(nil, "check-ref-format", ref); err != nil || strings.HasPrefix(x.opts.Branch, "-") {
		return Errorf(KindInput, "%q is no name of a branch", x.opts.Branch)
	}
	prefix, err := g.git(nil, "rev-parse", "--show-prefix")
	if err != nil {
		return Errorf(KindInput, "%s is no git repository, or git is not installed: export to a directory with --to: %w", x.diff.Source, err)
	}
	if _, err := g.git(nil, "rev-parse", "--verify", "--quiet", ref); err == nil {
		return Errorf(KindInput, "there is a branch %s, and nothing is overwritten: name another", x.opts.Branch)
	}
	parent, err := g.git(nil, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
	if err != nil {
		parent = "" // the first commit
	}
	taken := x.taken()
	if len(taken) == 0 {
		return Errorf(KindInput, "the agent has changed nothing: there is nothing to commit")
	}
	x.compareHead(&g, parent, taken)

	// A branch that somebody makes meanwhile is not overwritten: the commit is made under another
	// name first.
	temporary := "refs/bottle/export-" + newID()
	imported := g.imports(temporary, parent, prefix, taken)
	var commit string
	if imported == nil {
		commit, imported = g.git(nil, "rev-parse", "--verify", temporary+"^{commit}")
	}
	if imported == nil {
		_, imported = g.git(nil, "update-ref", "-m", "bottle export "+x.bottle.Name, ref, commit, strings.Repeat("0", len(commit)))
	}
	if _, err := g.git(nil, "update-ref", "-d", temporary); err != nil && imported == nil {
		imported = err
	}
	if imported != nil {
		return fmt.Errorf("commit to branch %s of %s: %w", x.opts.Branch, x.diff.Source, imported)
	}
	x.result.Branch, x.result.Commit = x.opts.Branch, commit
	return nil
}

// taken are the changes that are not left out.
func (x *exporter) taken() []changes.Change {
	var list []changes.Change
	for _, c := range x.diff.Changes {
		if !x.skipped[c.Name] {
			list = append(list, c)
			x.result.Files++
			if c.New != nil {
				x.result.Bytes += c.New.Size
			}
			if strings.HasPrefix(c.Name, ".github/workflows/") || c.Name == ".gitlab-ci.yml" {
				x.result.Notes = append(x.result.Notes, patch.Quote(c.Name)+" runs on your CI when the branch is pushed")
			}
		}
	}
	return list
}

// compareHead notes files that are not at HEAD what the agent was given: the commit has the
// agent's version all the same.
func (x *exporter) compareHead(g *gitRepo, parent string, taken []changes.Change) {
	if parent == "" {
		return
	}
	listed, err := g.git(nil, "ls-tree", "-r", "-z", "--name-only", "HEAD", ".")
	if err != nil {
		return // an empty directory of the repository
	}
	at := map[string]bool{}
	for name := range strings.SplitSeq(listed, "\x00") {
		at[name] = true
	}
	for _, c := range taken {
		differs := c.Old == nil && at[c.Name]
		if c.Old != nil && at[c.Name] {
			content, err := x.diff.fromGit("HEAD")(*c.Old)
			differs = err != nil || !sameContent(content, *c.Old)
		}
		if differs {
			x.result.Notes = append(x.result.Notes, patch.Quote(c.Name)+" is not at HEAD what the agent was given: the commit has the agent's version whole")
		}
	}
}

// gitRepo runs git in the user's repository.
type gitRepo struct{ x *exporter }

func (g *gitRepo) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(g.x.ctx, "git", append([]string{"-C", g.x.diff.Source}, args...)...) //nolint:gosec // no shell
	cmd.Env = gitEnv()
	return cmd
}

// gitEnv is the environment of git on the host: no variable turns it to another repository.
func gitEnv() []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains([]string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE", "GIT_PREFIX", "GIT_COMMON_DIR"}, name)
	})
	return append(env, "GIT_OPTIONAL_LOCKS=0", "GIT_NO_LAZY_FETCH=1", "LC_ALL=C")
}

// git returns what it prints, without the newline at its end.
func (g *gitRepo) git(stdin io.Reader, args ...string) (string, error) {
	cmd := g.command(args...)
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &out, &said
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("git %s: %w: %s", args[0], err, escaped(strings.TrimSpace(said.String())))
	}
	return strings.TrimSuffix(out.String(), "\n"), nil
}

// imports makes the commit.
func (g *gitRepo) imports(ref, parent, prefix string, taken []changes.Change) error {
	r, w := io.Pipe()
	go func() {
		buf := bufio.NewWriter(w)
		err := g.write(buf, ref, parent, prefix, taken)
		if err == nil {
			err = buf.Flush()
		}
		_ = w.CloseWithError(err) // it never fails
	}()
	_, err := g.git(r, "fast-import", "--quiet", "--done", "--date-format=now")
	_ = r.CloseWithError(errNotRead)
	return err
}

// write writes the commit in the form that git fast-import reads. What the agent chose, names and
// contents, is quoted and counted.
func (g *gitRepo) write(w *bufio.Writer, ref, parent, prefix string, taken []changes.Change) error {
	who := strings.Map(func(r rune) rune {
		if r < ' ' || r == '<' || r == '>' {
			return -1
		}
		return r
	}, g.x.bottle.Agent)
	message := orDefault(g.x.opts.Message, fmt.Sprintf("What %s changed in bottle %s", who, g.x.bottle.Name)) + "\n"
	_, _ = fmt.Fprintf(w, "commit %s\n", ref) // errors stay until Flush
	for _, role := range []string{"author", "committer"} {
		_, _ = fmt.Fprintf(w, "%s %s <agent@bottle.invalid> now\n", role, who)
	}
	_, _ = fmt.Fprintf(w, "data %d\n%s", len(message), message)
	if parent != "" {
		_, _ = fmt.Fprintf(w, "from %s\n", parent)
	}
	// What goes makes room for what comes.
	for _, c := range taken {
		if c.New == nil || c.Status() == changes.Retyped {
			_, _ = fmt.Fprintf(w, "D %s\n", importName(path.Join(prefix, c.Name)))
		}
	}
	for _, c := range taken {
		if c.New == nil {
			continue
		}
		content, size, err := g.x.diff.reader(*c.New)
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintf(w, "M %o inline %s\ndata %d\n", patchModes[c.New.Kind], importName(path.Join(prefix, c.Name)), size)
		if _, err := io.Copy(w, content); err != nil {
			return err
		}
		_, _ = w.WriteString("\n")
	}
	_, err := w.WriteString("done\n")
	return err
}

// importName quotes a name always: unquoted, a blank could end it.
func importName(name string) string {
	if q := patch.Quote(name); strings.HasPrefix(q, `"`) {
		return q
	}
	return `"` + name + `"`
}
