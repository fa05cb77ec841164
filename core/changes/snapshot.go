package changes

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
)

// Options bound what is read.
type Options struct {
	// MaxBytes bounds the contents that are kept, together; 0 means DefaultMaxBytes.
	MaxBytes int64
	// MaxFiles bounds the number of entries; 0 means DefaultMaxFiles.
	MaxFiles int
	// Keep says whether a file's content is wanted; nil keeps all. One that is not kept has
	// its digest all the same.
	Keep func(File) bool
}

// The default bounds.
const (
	DefaultMaxBytes = 4 << 30
	DefaultMaxFiles = 4 << 20
)

// Snapshot is what was there when it was read.
type Snapshot struct {
	// Dirs are the names of directories.
	Dirs map[string]bool

	files map[string]stored
	spool *os.File
}

type stored struct {
	File
	at   int64
	kept bool
	// target is a symbolic link's; alias is the name of which this is a hard link.
	target, alias string
}

// Read reads an archive whose entries are all called NAME or NAME/…, to its end. Close it.
func Read(ctx context.Context, archive io.Reader, opts Options) (*Snapshot, error) {
	if opts.MaxBytes == 0 {
		opts.MaxBytes = DefaultMaxBytes
	}
	if opts.MaxFiles == 0 {
		opts.MaxFiles = DefaultMaxFiles
	}
	spool, err := os.CreateTemp("", "bottle-")
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Dirs: map[string]bool{}, files: map[string]stored{}, spool: spool}
	err = os.Remove(spool.Name())
	if err == nil {
		err = (&reader{Snapshot: s, opts: opts}).all(ctx, tar.NewReader(archive))
	}
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (r *reader) all(ctx context.Context, t *tar.Reader) error {
	for n := 0; ; n++ {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the archive: %w", err)
		}
		if n >= r.opts.MaxFiles {
			return fmt.Errorf("there are more than %d files", r.opts.MaxFiles)
		}
		if err := r.entry(h, t); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
}

// Close gives back what was kept.
func (s *Snapshot) Close() error { return s.spool.Close() }

type reader struct {
	*Snapshot
	opts Options
	size int64 // of the spool
}

// below is an entry's name below the first element.
func below(name string) (string, error) {
	name = path.Clean(name)
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == ".." || strings.ContainsRune(part, 0) {
			return "", errors.New("the archive holds a name that leads out of it")
		}
	}
	_, rest, _ := strings.Cut(name, "/")
	return rest, nil
}

func (r *reader) entry(h *tar.Header, content io.Reader) error {
	name, err := below(h.Name)
	if err != nil {
		return err
	}
	if name == "" {
		if h.Typeflag != tar.TypeDir {
			return errors.New("the workspace is no directory any more")
		}
		return nil
	}
	// The archive was made while the agent works: a name may come twice.
	delete(r.files, name)
	delete(r.Dirs, name)
	switch h.Typeflag {
	case tar.TypeDir:
		r.Dirs[name] = true
	case tar.TypeSymlink:
		r.files[name] = stored{File: LinkTo(name, h.Linkname), kept: true, target: h.Linkname}
	case tar.TypeLink:
		target, err := below(h.Linkname)
		if err != nil {
			return err
		}
		f, ok := r.files[target]
		if !ok {
			return fmt.Errorf("it is a hard link to %q, which is not there", h.Linkname)
		}
		f.Name = name
		if f.alias == "" {
			f.alias = target
		}
		r.files[name] = f
	case tar.TypeReg, tar.TypeGNUSparse:
		return r.file(h, name, content)
	}
	return nil // devices, FIFOs and sockets are nothing that could be taken out
}

func (r *reader) wants(f File) bool { return r.opts.Keep == nil || r.opts.Keep(f) }

func (r *reader) file(h *tar.Header, name string, content io.Reader) error {
	f := stored{File: File{Name: name, Kind: Regular}, at: r.size}
	if h.Mode&0o100 != 0 {
		f.Kind = Executable
	}
	sum := sha256.New()
	// One byte more tells that there is too much, unless it is not wanted.
	limited := &capped{w: io.NewOffsetWriter(r.spool, r.size), left: r.opts.MaxBytes - r.size}
	n, err := io.Copy(io.MultiWriter(sum, limited), content)
	if err != nil {
		return err
	}
	f.Size = n
	sum.Sum(f.Sum[:0])
	if f.kept = r.wants(f.File); f.kept {
		if limited.left < 0 {
			return fmt.Errorf("what is to be taken out is larger than %d bytes: raise --limit", r.opts.MaxBytes)
		}
		r.size += n
	}
	r.files[name] = f
	return nil
}

// capped writes up to a number of bytes and swallows the rest; left is below 0 then.
type capped struct {
	w    io.Writer
	left int64
}

func (c *capped) Write(p []byte) (int, error) {
	if c.left >= 0 {
		if n := min(int64(len(p)), c.left); n > 0 {
			if _, err := c.w.Write(p[:n]); err != nil {
				return 0, err
			}
		}
		if c.left -= int64(len(p)); c.left < 0 {
			c.left = -1
		}
	}
	return len(p), nil
}

// Files are all files and links, by name.
func (s *Snapshot) Files() []File {
	list := make([]File, 0, len(s.files))
	for _, name := range slices.Sorted(maps.Keys(s.files)) {
		list = append(list, s.files[name].File)
	}
	return list
}

// Alias is the name of the file that this one was a hard link to, or empty. Its content may not
// have been wanted under that name.
func (s *Snapshot) Alias(name string) string { return s.files[name].alias }

// Target is where a symbolic link leads.
func (s *Snapshot) Target(name string) string { return s.files[name].target }

// LeadsOut reports whether a link of that name may lead out of the tree, whatever other links
// do: it is absolute, climbs too high, or climbs after a descent, which another link could turn
// elsewhere.
func LeadsOut(name, target string) bool {
	if target == "" || path.IsAbs(target) || strings.ContainsAny(target, "\x00\\") {
		return true
	}
	depth, descended := strings.Count(name, "/"), false
	for part := range strings.SplitSeq(target, "/") {
		switch part {
		case "", ".":
		case "..":
			if depth--; depth < 0 || descended {
				return true
			}
		default:
			descended = true
		}
	}
	return false
}

// Content is what a file holds, or a link's target; the file must have been kept.
func (s *Snapshot) Content(name string) (io.Reader, error) {
	f, ok := s.files[name]
	switch {
	case !ok || !f.kept:
		return nil, fmt.Errorf("the content of %q was not kept", name)
	case f.Kind == Symlink:
		return strings.NewReader(f.target), nil
	}
	return io.NewSectionReader(s.spool, f.at, f.Size), nil
}

// Change is what has become of a file. Old is nil if it was not given to the agent, New if
// it is not there any more.
type Change struct {
	Name     string
	Old, New *File
}

// The letters by which git calls changes.
const (
	Added    = "A"
	Deleted  = "D"
	Modified = "M"
	Retyped  = "T"
)

// Status is the letter of the change.
func (c Change) Status() string {
	switch {
	case c.Old == nil:
		return Added
	case c.New == nil:
		return Deleted
	case (c.Old.Kind == Symlink) != (c.New.Kind == Symlink):
		return Retyped
	}
	return Modified
}

// Same reports whether the file is as it was given.
func Same(a, b File) bool { return a.Kind == b.Kind && a.Sum == b.Sum && a.Size == b.Size }

// Compare gives the changes since a record, by name.
func (s *Snapshot) Compare(r *Record) []Change {
	var list []Change
	given := map[string]bool{}
	for _, old := range r.Files {
		given[old.Name] = true
		f, ok := s.files[old.Name]
		switch {
		case !ok:
			list = append(list, Change{Name: old.Name, Old: &old})
		case !Same(old, f.File):
			list = append(list, Change{Name: old.Name, Old: &old, New: &f.File})
		}
	}
	for _, f := range s.Files() {
		if !given[f.Name] {
			list = append(list, Change{Name: f.Name, New: &f})
		}
	}
	slices.SortFunc(list, func(a, b Change) int { return strings.Compare(a.Name, b.Name) })
	return list
}
