package workspace

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sys/unix"
)

var errNotDir = unix.ENOTDIR

// Options say what to leave out.
type Options struct {
	// Ignore holds patterns over those of the ignore files.
	Ignore []string
	// NoGitIgnore leaves .gitignore files unread.
	NoGitIgnore bool
	// All leaves no ignore file read.
	All bool
}

// Tree is what belongs to the copy, as it was when it was scanned.
type Tree struct {
	Root    string
	Files   int   // regular files
	Bytes   int64 // their content
	Ignored int   // files and whole directories that patterns left out
	Notes   []string

	entries []entry
	top     entry // the root itself
}

// entry is a file, directory or link of the copy; name is slash-separated.
type entry struct {
	name  string
	mode  fs.FileMode
	mtime time.Time
}

// Holds reports whether a file, wherever links lead to it from, is one of the copy's.
func (t *Tree) Holds(file string) (bool, error) {
	file, err := filepath.EvalSymlinks(file)
	if err != nil {
		return false, err
	}
	name, err := filepath.Rel(t.Root, file)
	if err != nil {
		return false, err
	}
	name = filepath.ToSlash(name)
	return slices.ContainsFunc(t.entries, func(e entry) bool { return e.name == name && e.mode.IsRegular() }), nil
}

// Mode is the mode of what the copy holds at a slash-separated name below its root, "." being
// the root itself. Nothing there is false.
func (t *Tree) Mode(name string) (fs.FileMode, bool) {
	if name == "." {
		return t.top.mode, true
	}
	i := slices.IndexFunc(t.entries, func(e entry) bool { return e.name == name })
	if i < 0 {
		return 0, false
	}
	return t.entries[i].mode, true
}

// maxUnreadable is how many unreadable files are named before it stops.
const maxUnreadable = 10

type scanner struct {
	tree    *Tree
	ignores ignores
	all     bool
	errs    *multierror.Error
}

// Scan walks the directory root, which must exist.
func Scan(ctx context.Context, root string, opts Options) (*Tree, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	// The root itself may be reached through links, what is in it may not.
	if root, err = filepath.EvalSymlinks(root); err != nil {
		return nil, err
	}
	info, err := os.Stat(root)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, &fs.PathError{Op: "copy", Path: root, Err: errors.New("it is not a directory")}
	}
	s := scanner{all: opts.All, tree: &Tree{Root: root, top: entry{mode: info.Mode(), mtime: info.ModTime()}}}
	for _, line := range opts.Ignore {
		if p, ok := parsePattern(line); ok {
			s.ignores.manifest = append(s.ignores.manifest, rules{patterns: []pattern{p}})
		}
	}
	if s.ignores.useGit = !opts.NoGitIgnore && !opts.All; s.ignores.useGit {
		if err := s.ignores.above(root); err != nil {
			return nil, err
		}
	}
	if err := s.dir(ctx, "."); err != nil {
		return nil, err
	}
	return s.tree, s.errs.ErrorOrNil()
}

func (s *scanner) note(format string, args ...any) {
	s.tree.Notes = append(s.tree.Notes, fmt.Sprintf(format, args...))
}

// unreadable records a file that cannot be copied; it fails when there are many.
func (s *scanner) unreadable(err error) error {
	s.errs = multierror.Append(s.errs, err)
	if s.errs.Len() >= maxUnreadable {
		return s.errs
	}
	return nil
}

func (s *scanner) dir(ctx context.Context, dir string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	files, err := os.ReadDir(filepath.Join(s.tree.Root, filepath.FromSlash(dir)))
	if err != nil {
		return s.unreadable(err)
	}
	if !s.all {
		leave, err := s.ignores.enter(s.tree.Root, dir)
		defer leave()
		if err != nil {
			return s.unreadable(err)
		}
	}
	for _, f := range files {
		name := path.Join(dir, f.Name())
		if s.ignores.ignored(name, f.IsDir()) {
			s.tree.Ignored++
			continue
		}
		info, err := f.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone since the directory was read
		}
		if err != nil {
			if err := s.unreadable(err); err != nil {
				return err
			}
			continue
		}
		if err := s.add(ctx, name, info); err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) add(ctx context.Context, name string, info fs.FileInfo) error {
	full := filepath.Join(s.tree.Root, filepath.FromSlash(name))
	e := entry{name: name, mode: info.Mode(), mtime: info.ModTime()}
	switch {
	case info.IsDir():
		s.tree.entries = append(s.tree.entries, e)
		return s.dir(ctx, name)
	case info.Mode()&fs.ModeSymlink != 0:
		s.tree.entries = append(s.tree.entries, e)
	case info.Mode().IsRegular():
		if err := unix.Access(full, unix.R_OK); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return s.unreadable(&fs.PathError{Op: "read", Path: full, Err: err})
		}
		if path.Base(name) == ".git" {
			s.note("%q belongs to a git repository elsewhere: the copy has no history", name)
		}
		s.tree.entries = append(s.tree.entries, e)
		s.tree.Files++
		s.tree.Bytes += info.Size()
	default:
		s.note("%q is left out: it is %s", name, kind(info.Mode()))
	}
	return nil
}

func kind(m fs.FileMode) string {
	switch {
	case m&fs.ModeSocket != 0:
		return "a socket"
	case m&fs.ModeNamedPipe != 0:
		return "a FIFO"
	case m&fs.ModeDevice != 0:
		return "a device"
	}
	return "a special file"
}
