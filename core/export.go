package core

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/core/changes"
	"github.com/bottle-run/bottle/core/patch"
)

// ExportOptions say what of an agent's work goes where.
type ExportOptions struct {
	// Dir is a directory that is made; Branch a new branch of the repository that the workspace
	// was copied from. One of them is given.
	Dir, Branch string
	// Message is that of the commit; there is one without.
	Message string
	// Allow names files, or directories, that are taken although they would run by themselves on
	// the host. Skip leaves out what is not taken, instead of taking nothing.
	Allow []string
	Skip  bool
	// All takes new files that the ignore files leave out.
	All bool
	// MaxBytes bounds what is taken out; 0 means changes.DefaultMaxBytes.
	MaxBytes int64
}

// Exported says what was taken out.
type Exported struct {
	Dir    string `json:"to,omitempty"`
	Branch string `json:"branch,omitempty"`
	Commit string `json:"commit,omitempty"`
	// Files and links; of a commit those that were changed, deletions too.
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// LeftOut are names with the reasons.
	LeftOut []string `json:"left_out,omitempty"`
	Notes   []string `json:"notes,omitempty"`
}

// RefusedError is an export of which nothing was written, because of files that are not safe to
// have on the host.
type RefusedError struct{ Files []string }

// Error lists them, as many as can be read.
func (e *RefusedError) Error() string {
	list := e.Files[:min(len(e.Files), maxRefused)]
	text := "nothing is exported, because of what the agent has made:\n  " + strings.Join(list, "\n  ")
	if more := len(e.Files) - len(list); more > 0 {
		text += fmt.Sprintf("\n  and %d more", more)
	}
	return text + "\nLook at it with bottle diff; then name each with --allow, or leave it out with --skip"
}

const maxRefused = 20

// Export takes the agent's work out of the bottle: all of the workspace into a new directory, or
// what was changed as a commit on a new branch. Nothing that exists is overwritten. What the agent
// has changed and what would run by itself on the host is refused unless it is named, links
// that lead out are refused, and no .git directory of the agent's is ever taken.
func (b *Bottle) Export(ctx context.Context, opts ExportOptions) (result Exported, err error) {
	d, err := b.diff(ctx, DiffOptions{All: opts.All, MaxBytes: opts.MaxBytes}, opts.Dir != "")
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	x := exporter{ctx: ctx, diff: d, opts: opts, bottle: b}
	if err := x.screen(); err != nil {
		return result, err
	}
	if opts.Dir != "" {
		err = x.toDir()
	} else {
		err = x.toBranch()
	}
	x.result.Notes = slices.Concat(d.Notes, x.result.Notes)
	return x.result, err
}

type exporter struct {
	ctx    context.Context //nolint:containedctx // it lives as long as one call
	bottle *Bottle
	diff   *Diff
	opts   ExportOptions
	// skipped are names that are left out.
	skipped map[string]bool
	result  Exported
}

// screen refuses what is not safe to have on the host.
func (x *exporter) screen() error {
	x.skipped = map[string]bool{}
	var refused []string
	for _, c := range x.diff.Changes {
		if c.New == nil {
			continue
		}
		why, allowable := x.danger(*c.New)
		if why == "" || allowable && x.allowed(c.Name) {
			continue
		}
		line := patch.Quote(c.Name) + ": " + why
		refused = append(refused, line)
		x.skipped[c.Name] = true
		x.result.LeftOut = append(x.result.LeftOut, line)
	}
	if len(refused) > 0 && !x.opts.Skip {
		return withKind(KindInput, &RefusedError{refused})
	}
	return nil
}

// danger says why a file is not safe to have on the host; allowable is whether the user may
// take it all the same.
func (x *exporter) danger(f changes.File) (why string, allowable bool) {
	if f.Kind == changes.Symlink {
		if target := x.diff.snapshot.Target(f.Name); changes.LeadsOut(f.Name, target) {
			return "it is a link to " + patch.Quote(target) + ", out of the workspace", false
		}
	}
	if why := runsByItself(f.Name); why != "" {
		return why, true
	}
	// git takes a directory with these three for a repository, and runs what its config names.
	dir, base := path.Split(f.Name)
	if strings.EqualFold(base, "HEAD") && x.diff.snapshot.Dirs[dir+"objects"] && x.diff.snapshot.Dirs[dir+"refs"] {
		return "it makes its directory a git repository, whose configuration git runs", true
	}
	return "", true
}

func (x *exporter) allowed(name string) bool {
	return slices.ContainsFunc(x.opts.Allow, func(a string) bool {
		a = path.Clean(a)
		return a == name || strings.HasPrefix(name, a+"/")
	})
}

// toDir lays the workspace down in a new directory.
func (x *exporter) toDir() (err error) {
	dir, err := filepath.Abs(x.opts.Dir)
	if err != nil {
		return withKind(KindInput, err)
	}
	if err := os.Mkdir(dir, 0o777); err != nil { //nolint:gosec // the user's umask decides
		if errors.Is(err, fs.ErrExist) {
			return Errorf(KindInput, "%s exists, and nothing is overwritten: name a directory that does not", dir)
		}
		return withKind(KindInput, err)
	}
	root, err := os.OpenRoot(dir)
	if err == nil {
		err = x.lay(root)
		err = errors.Join(err, root.Close())
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	x.result.Dir = dir
	return nil
}

func (x *exporter) lay(root *os.Root) error {
	var links []changes.File
	for _, f := range x.diff.snapshot.Files() {
		if err := context.Cause(x.ctx); err != nil {
			return err
		}
		if x.skipped[f.Name] || !x.diff.shown(f) {
			continue
		}
		x.result.Files++
		x.result.Bytes += f.Size
		if f.Kind == changes.Symlink {
			links = append(links, f) // last: nothing is written through one
			continue
		}
		if err := x.layFile(root, f); err != nil {
			return err
		}
	}
	for _, f := range links {
		target := x.diff.snapshot.Target(f.Name)
		if changes.LeadsOut(f.Name, target) {
			// The user's own, as it was given.
			x.result.Notes = append(x.result.Notes, patch.Quote(f.Name)+" is your own link to "+patch.Quote(target)+", out of the workspace: it is left out")
			x.result.Files--
			continue
		}
		name := filepath.FromSlash(f.Name)
		if err := root.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			return err
		}
		if err := root.Symlink(target, name); err != nil {
			return err
		}
	}
	return nil
}

func (x *exporter) layFile(root *os.Root, f changes.File) error {
	content, _, err := x.diff.reader(f)
	if err != nil {
		return err
	}
	name, mode := filepath.FromSlash(f.Name), fs.FileMode(0o666)
	if f.Kind == changes.Executable {
		mode = 0o777
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, content)
	return errors.Join(err, out.Close())
}
