// Package unpack lays down on the host what comes out of a bottle.
//
// The archive is the agent's, and the agent is hostile. Whatever it holds, no
// file outside of the destination is read or changed: every operation goes through
// an [os.Root]; symbolic links are made last, so that nothing is written through
// them; links that lead out of what is copied are left out and noted, as devices,
// FIFOs and sockets are. Owners and set-user-ID bits are not kept. What already
// exists at a file's place is replaced, a link itself and not what it points to.
//
// The package cannot make the content harmless: a script is the agent's script, and
// a git repository has the agent's hooks and configuration, which git runs. The
// latter is noted.
package unpack

import (
	"archive/tar"
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
	"time"
)

// Options bound what is laid down.
type Options struct {
	// MaxBytes bounds the content of all files together; 0 means DefaultMaxBytes.
	MaxBytes int64
	// MaxEntries bounds the number of files; 0 means DefaultMaxEntries.
	MaxEntries int
}

// The default bounds: an archive of a few bytes can describe a file of any size.
const (
	DefaultMaxBytes   = 64 << 30
	DefaultMaxEntries = 4 << 20
)

// Result says what was laid down.
type Result struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
	// Notes tell what was left out and why.
	Notes []string `json:"notes,omitempty"`
}

// maxNotes bounds the notes: the agent decides how many there would be.
const maxNotes = 50

// Extract reads an archive, whose entries are all called NAME or NAME/…, and lays
// it down in dir under the name as. The archive is read to its end or to the first
// error; what was laid down by then stays.
func Extract(ctx context.Context, archive io.Reader, dir *os.Root, as string, opts Options) (Result, error) {
	if !filepath.IsLocal(as) || strings.ContainsAny(as, `/\`) || as == "." {
		return Result{}, fmt.Errorf("%q is no name of a file", as)
	}
	x := &extractor{ctx: ctx, dir: dir, as: as, opts: opts, files: map[string]bool{}}
	if x.opts.MaxBytes == 0 {
		x.opts.MaxBytes = DefaultMaxBytes
	}
	if x.opts.MaxEntries == 0 {
		x.opts.MaxEntries = DefaultMaxEntries
	}
	err := x.read(tar.NewReader(archive))
	if err == nil {
		err = x.finish()
	}
	return x.result, err
}

type extractor struct {
	ctx     context.Context
	dir     *os.Root
	as      string
	opts    Options
	result  Result
	entries int
	files   map[string]bool // regular files laid down, for hard links
	links   []link
	dirs    []directory
}

type link struct{ name, target string }

type directory struct {
	name  string
	mode  fs.FileMode
	mtime time.Time
}

func (x *extractor) note(format string, args ...any) {
	switch n := len(x.result.Notes); {
	case n < maxNotes:
		x.result.Notes = append(x.result.Notes, fmt.Sprintf(format, args...))
	case n == maxNotes:
		x.result.Notes = append(x.result.Notes, "and more, which are not listed")
	}
}

func (x *extractor) read(r *tar.Reader) error {
	for {
		if err := context.Cause(x.ctx); err != nil {
			return err
		}
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			if x.entries == 0 {
				return errors.New("the archive is empty")
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if x.entries++; x.entries > x.opts.MaxEntries {
			return fmt.Errorf("there are more than %d files: stopped", x.opts.MaxEntries)
		}
		name, err := x.place(h.Name)
		if err == nil {
			err = x.entry(r, h, name)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
}

// place is where an entry of the archive goes, below the destination.
func (x *extractor) place(name string) (string, error) {
	clean := path.Clean(name)
	if !fs.ValidPath(clean) || clean == "." || strings.ContainsRune(name, 0) || !filepath.IsLocal(filepath.FromSlash(clean)) {
		return "", errors.New("the archive holds a name that leads out of it")
	}
	_, below, _ := strings.Cut(clean, "/")
	return path.Join(x.as, below), nil
}

func (x *extractor) entry(r io.Reader, h *tar.Header, name string) error {
	switch h.Typeflag {
	case tar.TypeDir:
		if path.Base(name) == ".git" {
			x.note("%q is a git repository with the agent's configuration and hooks: git runs them", name)
		}
		x.dirs = append(x.dirs, directory{name, h.FileInfo().Mode().Perm() | 0o700, h.ModTime})
		return x.mkdir(name)
	case tar.TypeReg, tar.TypeGNUSparse:
		return x.file(r, h, name)
	case tar.TypeLink:
		return x.hardLink(h, name)
	case tar.TypeSymlink:
		x.links = append(x.links, link{name, h.Linkname})
		return nil
	}
	x.note("%q is left out: it is neither a file, a directory nor a link", name)
	return nil
}

// mkdir makes a directory and those above it; a link or file in its place goes.
func (x *extractor) mkdir(name string) error {
	for i := 0; i <= len(name); i++ {
		if i < len(name) && name[i] != '/' {
			continue
		}
		part := name[:i]
		info, err := x.dir.Lstat(part)
		if err == nil && info.IsDir() {
			continue
		}
		if err == nil {
			err = x.dir.Remove(part)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := x.dir.Mkdir(part, 0o700); err != nil {
			return err
		}
	}
	return nil
}

// clear removes what is at a file's place.
func (x *extractor) clear(name string) error {
	if parent := path.Dir(name); parent != "." {
		if err := x.mkdir(parent); err != nil {
			return err
		}
	}
	info, err := x.dir.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("there is a directory in its place")
	}
	delete(x.files, name)
	return x.dir.Remove(name)
}

func (x *extractor) file(r io.Reader, h *tar.Header, name string) error {
	if h.Size > x.opts.MaxBytes-x.result.Bytes {
		return fmt.Errorf("there is more than %d bytes: stopped", x.opts.MaxBytes)
	}
	if err := x.clear(name); err != nil {
		return err
	}
	f, err := x.dir.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, r)
	x.result.Bytes += n
	if err == nil {
		err = f.Chmod(h.FileInfo().Mode().Perm())
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	x.files[name] = true
	x.result.Files++
	return x.dir.Chtimes(name, h.ModTime, h.ModTime)
}

func (x *extractor) hardLink(h *tar.Header, name string) error {
	target, err := x.place(h.Linkname)
	if err != nil {
		return err
	}
	// Only to what this archive holds: another file of the destination is not the
	// agent's to give a second name.
	if !x.files[target] || target == name {
		x.note("%q is left out: it is a hard link to %q, which is not part of the copy", name, h.Linkname)
		return nil
	}
	if err := x.clear(name); err != nil {
		return err
	}
	if err := x.dir.Link(target, name); err != nil {
		return err
	}
	x.files[name] = true
	x.result.Files++
	return nil
}

// finish makes the links and sets what writing would have changed, deepest first.
func (x *extractor) finish() error {
	for _, l := range x.links {
		if !x.inside(l) {
			x.note("%q is left out: it is a link to %q, out of the copy", l.name, l.target)
			continue
		}
		if err := x.clear(l.name); err != nil {
			return fmt.Errorf("%q: %w", l.name, err)
		}
		if err := x.dir.Symlink(l.target, l.name); err != nil {
			return fmt.Errorf("%q: %w", l.name, err)
		}
	}
	for _, d := range slices.Backward(x.dirs) {
		// It may have become something else by a later entry of the same name.
		if info, err := x.dir.Lstat(d.name); err != nil || !info.IsDir() {
			continue
		}
		if err := errors.Join(x.dir.Chmod(d.name, d.mode), x.dir.Chtimes(d.name, d.mtime, d.mtime)); err != nil {
			return fmt.Errorf("%q: %w", d.name, err)
		}
	}
	return nil
}

// inside reports whether a link stays within the copy, whatever other links do:
// it is relative and climbs no higher than its own directory's depth, and there is
// no climbing after a descent, which another link could turn elsewhere.
func (x *extractor) inside(l link) bool {
	if l.target == "" || path.IsAbs(l.target) || strings.ContainsAny(l.target, "\x00\\") || filepath.IsAbs(l.target) {
		return false
	}
	depth, descended := strings.Count(l.name, "/"), false
	for part := range strings.SplitSeq(l.target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 1 || descended {
				return false
			}
		default:
			descended = true
		}
	}
	// The copy itself may not be a link.
	return strings.Contains(l.name, "/")
}
