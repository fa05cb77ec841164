package buildcontext

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/moby/patternmatcher"
)

// Tar streams the context. Errors on the way are returned by Read. The caller
// closes the stream, at the end or before it.
func (c *Context) Tar() io.ReadCloser {
	r, w := io.Pipe()
	go func() { w.CloseWithError(c.write(w)) }()
	return r
}

func (c *Context) write(w io.Writer) error {
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return kind("build context", err)
	}
	defer root.Close() //nolint:errcheck // only read
	t := &stream{Context: c, root: root, tw: tar.NewWriter(w), written: map[string]bool{}}
	if c.ignore != nil {
		if err := t.control(ignoreName, c.ignore); err != nil {
			return err
		}
	}
	if c.outside {
		if err := t.control(c.Dockerfile, c.content); err != nil {
			return err
		}
	}
	if err := t.dir(".", patternmatcher.MatchInfo{}); err != nil {
		return err
	}
	return t.tw.Close()
}

// stream is one walk over the context.
type stream struct {
	*Context
	root *os.Root
	tw   *tar.Writer
	// written holds the directories whose headers were written, which for an
	// excluded one happens when something below it is not excluded.
	written map[string]bool
}

// control writes a file that is not the context's own.
func (t *stream) control(name string, content []byte) error {
	h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(t.tw, bytes.NewReader(content))
	return err
}

// dir writes what a directory holds, in lexical order.
func (t *stream) dir(name string, parent patternmatcher.MatchInfo) error {
	entries, err := fs.ReadDir(t.root.FS(), name)
	if err != nil {
		return kind("build context", err)
	}
	for _, e := range entries {
		if err := t.entry(path.Join(name, e.Name()), e.IsDir(), parent); err != nil {
			return err
		}
	}
	return nil
}

func (t *stream) entry(name string, isDir bool, parent patternmatcher.MatchInfo) error {
	excluded, info, err := t.matcher.MatchesUsingParentResults(name, parent)
	if err != nil {
		return fmt.Errorf("match %s: %w", name, err)
	}
	switch {
	case isDir:
		if !excluded {
			if err := t.parents(name + "/x"); err != nil {
				return err
			}
		} else if !t.mayHoldIncluded(name) {
			return nil
		}
		return t.dir(name, info)
	case name == ignoreName && t.ignore != nil:
		return nil // written already
	case name == t.Dockerfile:
		// The engine needs it even if COPY must not see it.
	case excluded:
		return nil
	}
	if err := t.parents(name); err != nil {
		return err
	}
	return t.leaf(name)
}

// mayHoldIncluded reports whether something below an excluded directory can be
// wanted: the Dockerfile, or what a "!" pattern brings back.
func (t *stream) mayHoldIncluded(dir string) bool {
	below := dir + "/"
	if strings.HasPrefix(t.Dockerfile, below) {
		return true
	}
	for _, p := range t.matcher.Patterns() {
		if !p.Exclusion() {
			continue
		}
		// Up to its first wildcard the pattern is a plain path.
		fixed := p.String()
		wild := strings.IndexAny(fixed, `*?[\`)
		if wild >= 0 {
			fixed = fixed[:wild]
		}
		if strings.HasPrefix(fixed, below) || wild >= 0 && strings.HasPrefix(below, fixed) {
			return true
		}
	}
	return false
}

// parents writes the headers of name's directories that are still missing.
func (t *stream) parents(name string) error {
	for i := range len(name) {
		if name[i] != '/' || t.written[name[:i]] {
			continue
		}
		dir := name[:i]
		info, err := t.root.Lstat(dir)
		if err != nil {
			return kind("build context", err)
		}
		if !info.IsDir() {
			return fmt.Errorf("build context: %s changed while it was read", dir)
		}
		h := header(dir+"/", info)
		h.Typeflag = tar.TypeDir
		if err := t.tw.WriteHeader(h); err != nil {
			return err
		}
		t.written[dir] = true
	}
	return nil
}

// leaf writes a file or symbolic link. A device, FIFO or socket is left out: no
// COPY can use it.
func (t *stream) leaf(name string) error {
	info, err := t.root.Lstat(name)
	if err != nil {
		return kind("build context", err)
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := t.root.Readlink(name)
		if err != nil {
			return kind("build context", err)
		}
		h := header(name, info)
		h.Typeflag, h.Linkname = tar.TypeSymlink, target
		return t.tw.WriteHeader(h)
	case info.Mode().IsRegular():
		return t.file(name)
	}
	return nil
}

func (t *stream) file(name string) error {
	f, err := t.root.OpenFile(name, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return kind("build context", err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return kind("build context", err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("build context: %s changed while it was read", name)
	}
	h := header(name, info)
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if err := t.tw.WriteHeader(h); err != nil {
		return err
	}
	// A file that grows meanwhile is cut; one that shrinks cannot be sent.
	n, err := io.Copy(t.tw, io.LimitReader(f, h.Size))
	if err == nil && n < h.Size {
		err = fmt.Errorf("build context: %s became shorter while it was read", name)
	}
	return err
}

// header has what all entries have in common. Owners are root's, as COPY makes
// them anyhow, so that a build does not depend on who runs it.
func header(name string, info fs.FileInfo) *tar.Header {
	mode := int64(info.Mode().Perm())
	for bit, value := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if info.Mode()&bit != 0 {
			mode |= value
		}
	}
	// Whole seconds: builders' caches look at them, and many keep no fractions.
	return &tar.Header{Name: name, Mode: mode, ModTime: info.ModTime().Truncate(time.Second), Format: tar.FormatPAX}
}
