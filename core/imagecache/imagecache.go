// Package imagecache keeps what a launch has read out of an image, so that the next one need
// not ask the engine for it: its users, its roots of certificates, which directories there are.
//
// # Promises
//
//   - What is kept is about the content of an image, by its digest, and what else decides
//     what a new container shows of it: it does not go stale.
//   - It is a cache. What cannot be read, or is cut short, is as if it had never been there;
//     the oldest go when there are many.
//   - It holds files of images, and nothing of a bottle's: no configuration and no secret.
package imagecache

import (
	"bytes"
	"crypto/sha256"
	"encoding/gob"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

const (
	// MaxEntry bounds what is kept of an image, in bytes.
	MaxEntry = 8 << 20
	// maxEntries is how many images are remembered.
	maxEntries = 32
	// format changes when an entry means something else than it did.
	format = 1
	suffix = ".image"
)

// Key is what decides what a new container shows.
type Key struct {
	// Engine is the engine, with its version: some write into a new container.
	Engine string
	// Image is the digest that the engine knows the image by.
	Image string
	// Spec is whatever else of the container's specification there is to it.
	Spec []string
}

// Cache is a directory of what is kept. A nil one keeps nothing.
type Cache struct{ dir string }

// New returns the cache in a directory, which is made when something is kept.
func New(dir string) *Cache { return &Cache{dir} }

// Entry is what is known of one image. It is safe for concurrent use; a nil one knows
// nothing and takes nothing.
type Entry struct {
	cache *Cache
	name  string

	mu      sync.Mutex
	content content
	size    int
	changed bool
}

type content struct {
	Archives map[string]archive // by path
	Dirs     map[string]bool    // whether there is such a directory
}

type archive struct {
	Absent bool
	Bytes  []byte
}

// Load returns what is known of an image: never nil, but from a nil cache or without a digest.
func (c *Cache) Load(k Key) *Entry {
	if c == nil || k.Image == "" {
		return nil
	}
	e := &Entry{cache: c, name: k.name(), content: content{map[string]archive{}, map[string]bool{}}}
	path := filepath.Join(c.dir, e.name)
	data, err := os.ReadFile(path)
	if err != nil || len(data) < sha256.Size || len(data) > 2*MaxEntry {
		return e
	}
	sum := sha256.Sum256(data[sha256.Size:])
	var read content
	if !bytes.Equal(sum[:], data[:sha256.Size]) || gob.NewDecoder(bytes.NewReader(data[sha256.Size:])).Decode(&read) != nil {
		return e
	}
	for name, a := range read.Archives {
		e.content.Archives[name] = a
		e.size += len(name) + len(a.Bytes)
	}
	for name, there := range read.Dirs {
		e.content.Dirs[name] = there
		e.size += len(name)
	}
	now := time.Now()
	_ = os.Chtimes(path, now, now) // by it the oldest is found
	return e
}

func (k Key) name() string {
	h := sha256.New()
	for _, s := range append([]string{fmt.Sprint(format), k.Engine, k.Image}, k.Spec...) {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)) + suffix
}

// Archive returns the archive of a path, as the engine gave it. If known is false nothing
// is known of the path; if there is, there may be nothing at it.
func (e *Entry) Archive(path string) (data []byte, there, known bool) {
	if e == nil {
		return nil, false, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	a, known := e.content.Archives[path]
	return a.Bytes, known && !a.Absent, known
}

// Keep notes the archive of a path, which is not to be changed any more.
func (e *Entry) Keep(path string, data []byte) { e.note(path, archive{Bytes: data}) }

// Absent notes that there is nothing at a path.
func (e *Entry) Absent(path string) { e.note(path, archive{Absent: true}) }

func (e *Entry) note(path string, a archive) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if size := len(path) + len(a.Bytes); e.size+size <= MaxEntry {
		e.content.Archives[path] = a
		e.size, e.changed = e.size+size, true
	}
}

// Dir reports whether there is a directory at a path, if that is known.
func (e *Entry) Dir(path string) (there, known bool) {
	if e == nil {
		return false, false
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	there, known = e.content.Dirs[path]
	return there, known
}

// NoteDir notes whether there is a directory at a path.
func (e *Entry) NoteDir(path string, there bool) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.size+len(path) <= MaxEntry {
		e.content.Dirs[path] = there
		e.size, e.changed = e.size+len(path), true
	}
}

// Save keeps what is new, for as long as there is room.
func (e *Entry) Save() error {
	if e == nil {
		return nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.changed {
		return nil
	}
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(e.content); err != nil {
		return err
	}
	sum := sha256.Sum256(body.Bytes())
	dir := e.cache.dir
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, "new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(append(sum[:], body.Bytes()...))
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, e.name))
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	e.changed = false
	return e.cache.prune()
}

// unfinished is how long a file may be in the making.
const unfinished = time.Hour

// prune removes the oldest entries beyond the limit, and what a killed process left.
func (c *Cache) prune() error {
	list, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	type file struct {
		path string
		time time.Time
	}
	var kept []file
	var gone []string
	for _, f := range list {
		info, err := f.Info()
		if err != nil {
			continue // removed meanwhile
		}
		path := filepath.Join(c.dir, f.Name())
		switch {
		case filepath.Ext(f.Name()) == suffix:
			kept = append(kept, file{path, info.ModTime()})
		case time.Since(info.ModTime()) > unfinished:
			gone = append(gone, path)
		}
	}
	slices.SortFunc(kept, func(a, b file) int { return b.time.Compare(a.time) })
	for _, f := range kept[min(len(kept), maxEntries):] {
		gone = append(gone, f.path)
	}
	var errs []error
	for _, path := range gone {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
