package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/bottle-run/bottle/core/changes"
	"github.com/bottle-run/bottle/core/patch"
	"github.com/bottle-run/bottle/core/workspace"
)

// DiffOptions say what is compared.
type DiffOptions struct {
	// All shows what the agent has added although ignore files leave it out.
	All bool
	// MaxBytes bounds the contents that are taken out; 0 means changes.DefaultMaxBytes.
	MaxBytes int64
}

// Diff is what the agent has changed in its copy of the user's files. Close it.
type Diff struct {
	// Source is the directory of which it had a copy, Target where that was. Tree is the digest
	// of the copy as it was given.
	Source, Target, Tree string
	Changes              []changes.Change
	// Notes say what is not shown, and what the user should look at.
	Notes []string

	snapshot *changes.Snapshot
	// shown reports whether a file that is there now is looked at.
	shown func(changes.File) bool
	originals
}

// Diff compares the agent's copy of the user's files with what it was given: not with what the
// directory holds by now. What belongs to git repositories is left out, and files that were added
// and that the ignore files leave out.
//
// A bottle without a workspace, and one whose record of it the agent has changed, is of KindInput.
func (b *Bottle) Diff(ctx context.Context, opts DiffOptions) (*Diff, error) {
	d, err := b.diff(ctx, opts, false)
	if err != nil {
		return nil, err
	}
	for _, c := range d.Changes {
		if c.New != nil && c.New.Kind == changes.Symlink && changes.LeadsOut(c.Name, d.snapshot.Target(c.Name)) {
			d.note("%s is a link to %s, out of the workspace", patch.Quote(c.Name), patch.Quote(d.snapshot.Target(c.Name)))
		}
	}
	return d, nil
}

// diff is Diff that keeps the contents of unchanged files too, if it is told to.
func (b *Bottle) diff(ctx context.Context, opts DiffOptions, whole bool) (*Diff, error) {
	record, err := b.record(ctx)
	if err != nil {
		return nil, err
	}
	d := &Diff{Source: b.copied.Source, Target: b.copied.Target, Tree: record.Tree(), originals: originals{ctx: ctx, dir: b.copied.Source}}
	ignored := func(string) bool { return false }
	if !opts.All {
		if ignored, err = workspace.Ignored(d.Source, workspace.Options{Ignore: record.Ignore, NoGitIgnore: !record.GitIgnore}); err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				return nil, withKind(KindInput, err)
			}
			ignored = func(string) bool { return false }
			d.note("%s is not there any more: its ignore files are not heeded", d.Source)
		}
	}
	given := map[string]changes.File{}
	for _, f := range record.Files {
		given[f.Name] = f
	}
	d.shown = func(f changes.File) bool {
		if _, ok := given[f.Name]; ok {
			return true
		}
		return patch.CheckName(f.Name) == nil && !ignored(f.Name)
	}
	d.snapshot, err = b.snapshot(ctx, changes.Options{MaxBytes: opts.MaxBytes, Keep: func(f changes.File) bool {
		old, ok := given[f.Name]
		return (whole || !ok || !changes.Same(old, f)) && d.shown(f)
	}})
	if err != nil {
		return nil, err
	}
	skipped := 0
	for _, c := range d.snapshot.Compare(record) {
		if c.New != nil && !d.shown(*c.New) {
			if patch.CheckName(c.Name) == nil {
				skipped++
			}
			continue
		}
		d.Changes = append(d.Changes, c)
	}
	if skipped > 0 {
		d.note("left out, as your ignore files have it: %d of the new files (--all takes them)", skipped)
	}
	return d, nil
}

// Close gives back what was kept.
func (d *Diff) Close() error { return d.snapshot.Close() }

// maxDiffNotes bounds the notes: the agent decides how many there would be.
const maxDiffNotes = 50

func (d *Diff) note(format string, args ...any) {
	switch n := len(d.Notes); {
	case n < maxDiffNotes:
		d.Notes = append(d.Notes, fmt.Sprintf(format, args...))
	case n == maxDiffNotes:
		d.Notes = append(d.Notes, "and more, which are not listed")
	}
}

// maxPatched bounds a file of which a patch is made, in bytes: all of it is held in memory.
const maxPatched = 256 << 20

// Patch writes a change in the form that git apply takes. A file whose original is not known any
// more is an [OriginalError].
func (d *Diff) Patch(w io.Writer, c changes.Change) (patch.Stat, error) {
	p := patch.Change{Name: c.Name}
	var err error
	if c.Old != nil {
		if p.Old, err = d.before(*c.Old); err != nil {
			return patch.Stat{}, err
		}
	}
	if c.New != nil {
		if p.New, err = d.after(*c.New); err != nil {
			return patch.Stat{}, err
		}
	}
	return patch.Write(w, p)
}

var patchModes = map[changes.Kind]patch.Mode{changes.Regular: patch.Regular, changes.Executable: patch.Executable, changes.Symlink: patch.Symlink}

func (d *Diff) before(f changes.File) (*patch.Side, error) {
	content, err := d.original(f)
	return &patch.Side{Mode: patchModes[f.Kind], Content: content}, err
}

func (d *Diff) after(f changes.File) (*patch.Side, error) {
	content, err := d.content(f)
	return &patch.Side{Mode: patchModes[f.Kind], Content: content}, err
}

// content is what a file holds now.
func (d *Diff) content(f changes.File) ([]byte, error) {
	if f.Size > maxPatched {
		return nil, Errorf(KindInput, "%s has %s: it is too large for a patch: take it out with bottle export or bottle cp", patch.Quote(f.Name), bytesText(f.Size))
	}
	r, _, err := d.reader(f)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// reader reads what a file holds now.
func (d *Diff) reader(f changes.File) (io.Reader, int64, error) {
	r, err := d.snapshot.Content(f.Name)
	if alias := d.snapshot.Alias(f.Name); err != nil && alias != "" {
		// A second name of a file that is as it was given.
		f.Name = alias
		content, err := d.original(f)
		return bytes.NewReader(content), int64(len(content)), err
	}
	return r, f.Size, err
}

// OriginalError is a file of which it is not known any more what the agent was given.
type OriginalError struct{ Name string }

// Error says so.
func (e *OriginalError) Error() string {
	return fmt.Sprintf("%s has changed on this host since the launch, too: what the agent was given is not known any more", patch.Quote(e.Name))
}

// originals finds what the agent was given: in the directory it came from, if the file is as it
// was, or else in what that directory's git repository has of it.
type originals struct {
	ctx context.Context //nolint:containedctx // it lives as long as the call that made the diff
	dir string
}

func (o originals) original(f changes.File) ([]byte, error) {
	if f.Size > maxPatched {
		return nil, Errorf(KindInput, "%s had %s: it is too large for a patch", patch.Quote(f.Name), bytesText(f.Size))
	}
	for _, find := range []func(changes.File) ([]byte, error){o.fromDir, o.fromGit("HEAD"), o.fromGit("")} {
		content, err := find(f)
		if err == nil && sameContent(content, f) {
			return content, nil
		}
	}
	return nil, &OriginalError{f.Name}
}

func sameContent(content []byte, f changes.File) bool {
	return changes.SumOf(content) == f.Sum
}

func (o originals) fromDir(f changes.File) ([]byte, error) {
	root, err := os.OpenRoot(o.dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	name := filepath.FromSlash(f.Name)
	info, err := root.Lstat(name)
	switch {
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeSymlink != 0 && f.Kind == changes.Symlink:
		target, err := root.Readlink(name)
		return []byte(target), err
	case !info.Mode().IsRegular() || info.Size() != f.Size:
		return nil, fs.ErrNotExist
	}
	file, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }()
	return io.ReadAll(io.LimitReader(file, f.Size+1))
}

// fromGit asks the user's own repository, which the agent has never touched.
func (o originals) fromGit(revision string) func(changes.File) ([]byte, error) {
	return func(f changes.File) ([]byte, error) {
		cmd := exec.CommandContext(o.ctx, "git", "-C", o.dir, "cat-file", "blob", revision+":./"+f.Name) //nolint:gosec // no shell; the name cannot be an option
		cmd.Env = gitEnv()
		var out bytes.Buffer
		cmd.Stdout = &limitedWriter{w: &out, left: f.Size + 1}
		err := cmd.Run()
		return out.Bytes(), err
	}
}

// limitedWriter fails when more is written.
type limitedWriter struct {
	w    io.Writer
	left int64
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, io.ErrShortWrite
	}
	return l.w.Write(p)
}
