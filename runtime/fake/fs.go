package fake

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Node is a file, directory or symbolic link of a container.
type Node struct {
	Mode    fs.FileMode // type and permission bits
	UID     int
	GID     int
	ModTime time.Time
	Content []byte // of a regular file; not to be changed
	Link    string // of a symbolic link

	children map[string]*Node
}

// tree is the file system of a container or image. Its methods take absolute
// paths; symbolic links are resolved below the root. The engine's lock guards
// that of a container.
type tree struct {
	root *Node
}

func newTree() *tree { return &tree{root: newDir(0o755)} }

func newDir(mode fs.FileMode) *Node {
	return &Node{Mode: fs.ModeDir | mode, ModTime: time.Now(), children: map[string]*Node{}}
}

// clone copies the nodes; contents are shared, since nobody changes them.
func (t *tree) clone() *tree { return &tree{root: t.root.clone()} }

func (n *Node) clone() *Node {
	c := *n
	c.children = maps.Clone(n.children)
	for name, child := range c.children {
		c.children[name] = child.clone()
	}
	return &c
}

const maxLinks = 40

// lookup finds the node of a path. With follow, a symbolic link at the end is
// followed too. It returns the node's clean path.
func (t *tree) lookup(name string, follow bool) (*Node, string, error) {
	links := 0
	return t.walk(name, follow, &links)
}

func (t *tree) walk(name string, follow bool, links *int) (*Node, string, error) {
	node, at := t.root, "/"
	parts := strings.Split(path.Clean("/"+name), "/")[1:]
	for i, part := range parts {
		if part == "" {
			continue
		}
		if !node.Mode.IsDir() {
			return nil, "", &fs.PathError{Op: "open", Path: name, Err: syscall.ENOTDIR}
		}
		child := node.children[part]
		if child == nil {
			return nil, "", &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		last := i == len(parts)-1
		if child.Mode&fs.ModeSymlink != 0 && (!last || follow) {
			if *links++; *links > maxLinks {
				return nil, "", &fs.PathError{Op: "open", Path: name, Err: syscall.ELOOP}
			}
			target := child.Link
			if !path.IsAbs(target) {
				target = path.Join(at, target)
			}
			return t.walk(path.Join(append([]string{target}, parts[i+1:]...)...), follow, links)
		}
		node, at = child, path.Join(at, part)
	}
	return node, at, nil
}

// mkdirs makes the directory and those above it that are missing.
func (t *tree) mkdirs(name string) (*Node, error) {
	if node, _, err := t.lookup(name, true); err == nil {
		if !node.Mode.IsDir() {
			return nil, &fs.PathError{Op: "mkdir", Path: name, Err: syscall.ENOTDIR}
		}
		return node, nil
	}
	parent, err := t.mkdirs(path.Dir(path.Clean("/" + name)))
	if err != nil {
		return nil, err
	}
	base := path.Base(name)
	if parent.children[base] != nil {
		return nil, &fs.PathError{Op: "mkdir", Path: name, Err: fs.ErrExist}
	}
	dir := newDir(0o755)
	parent.children[base] = dir
	return dir, nil
}

// put places a node at a path whose parent is made if it is missing. A
// directory that is there already keeps what it holds.
func (t *tree) put(name string, node *Node) error {
	name = path.Clean("/" + name)
	if name == "/" {
		return nil
	}
	parent, err := t.mkdirs(path.Dir(name))
	if err != nil {
		return err
	}
	base := path.Base(name)
	old := parent.children[base]
	if old != nil && old.Mode.IsDir() && node.Mode.IsDir() {
		node.children = old.children
	} else if old != nil && old.Mode.IsDir() {
		return &fs.PathError{Op: "create", Path: name, Err: syscall.EISDIR}
	}
	parent.children[base] = node
	return nil
}

// remove removes the path with all it holds.
func (t *tree) remove(name string) {
	if parent, _, err := t.lookup(path.Dir(path.Clean("/"+name)), true); err == nil {
		delete(parent.children, path.Base(name))
	}
}

// header describes the node for an archive.
func (n *Node) header(name string) *tar.Header {
	h := &tar.Header{
		Name: name, Mode: int64(n.Mode.Perm()), Uid: n.UID, Gid: n.GID, ModTime: n.ModTime, Format: tar.FormatPAX,
	}
	if n.Mode&fs.ModeSetuid != 0 {
		h.Mode |= 0o4000
	}
	if n.Mode&fs.ModeSetgid != 0 {
		h.Mode |= 0o2000
	}
	if n.Mode&fs.ModeSticky != 0 {
		h.Mode |= 0o1000
	}
	switch {
	case n.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case n.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, n.Link
	default:
		h.Typeflag, h.Size = tar.TypeReg, int64(len(n.Content))
	}
	return h
}

// write writes the node and what is below it.
func (n *Node) write(w *tar.Writer, name string) error {
	if err := w.WriteHeader(n.header(name)); err != nil {
		return err
	}
	if n.Mode.IsRegular() {
		_, err := w.Write(n.Content)
		return err
	}
	for _, child := range slices.Sorted(maps.Keys(n.children)) {
		if err := n.children[child].write(w, path.Join(name, child)); err != nil {
			return err
		}
	}
	return nil
}

// digest adds the node and what is below it to a sum and returns the size of the
// contents.
func (n *Node) digest(w io.Writer, name string) int64 {
	_, _ = fmt.Fprintf(w, "%q %o %d %d %q %x\n", name, n.Mode, n.UID, n.GID, n.Link, sha256.Sum256(n.Content))
	size := int64(len(n.Content))
	for _, child := range slices.Sorted(maps.Keys(n.children)) {
		size += n.children[child].digest(w, path.Join(name, child))
	}
	return size
}
