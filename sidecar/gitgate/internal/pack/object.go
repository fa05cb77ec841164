package pack

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Mode is the mode of an entry of a tree.
type Mode uint32

// The modes of git.
const (
	ModeTree      Mode = 0o040000
	ModeFile      Mode = 0o100644
	ModeExec      Mode = 0o100755
	ModeGroup     Mode = 0o100664 // what very old versions wrote
	ModeSymlink   Mode = 0o120000
	ModeSubmodule Mode = 0o160000
)

// TreeEntry is an entry of a tree.
type TreeEntry struct {
	Mode Mode
	Name string
	ID   ID
}

// ErrObject is wrapped by errors of objects that are not what their type says.
var ErrObject = errors.New("malformed object")

// WalkTree shows the entries of a tree.
func (f Format) WalkTree(tree []byte, visit func(TreeEntry) error) error {
	for len(tree) > 0 {
		space := bytes.IndexByte(tree, ' ')
		if space < 0 || space > 6 {
			return fmt.Errorf("%w: an entry of a tree has no mode", ErrObject)
		}
		mode, err := strconv.ParseUint(string(tree[:space]), 8, 32)
		if err != nil || tree[0] == '+' {
			return fmt.Errorf("%w: an entry of a tree has the mode %q", ErrObject, tree[:space])
		}
		tree = tree[space+1:]
		end := bytes.IndexByte(tree, 0)
		if end < 0 || len(tree) < end+1+f.size {
			return fmt.Errorf("%w: a tree ends within an entry", ErrObject)
		}
		e := TreeEntry{Mode: Mode(mode), Name: string(tree[:end]), ID: f.ID(tree[end+1:])}
		if err := visit(e); err != nil {
			return err
		}
		tree = tree[end+1+f.size:]
	}
	return nil
}

// CheckEntry says whether an entry of a tree is one that every git can check out and that
// stays within its directory.
func CheckEntry(e TreeEntry) error {
	switch e.Mode {
	case ModeTree, ModeFile, ModeExec, ModeGroup, ModeSymlink, ModeSubmodule:
	default:
		return fmt.Errorf("%w: %q has the mode %o, which git does not have", ErrObject, e.Name, e.Mode)
	}
	if e.Name == "" || e.Name == "." || e.Name == ".." || strings.Contains(e.Name, "/") || isDotGit(e.Name) {
		return fmt.Errorf("%w: %q cannot be the name of a file in a repository", ErrObject, e.Name)
	}
	return nil
}

// isDotGit reports whether some file system takes a name for .git: without regard to case,
// with the characters that HFS+ ignores, and by what NTFS cuts off or shortens
// (CVE-2014-9390).
func isDotGit(name string) bool { return means(name, ".git") || shortened(name, "git~1") }

// IsGitmodules reports whether some file system takes a name for .gitmodules.
func IsGitmodules(name string) bool {
	if means(name, ".gitmodules") {
		return true
	}
	lower := strings.ToLower(name)
	return strings.HasPrefix(lower, "gitmod~") || strings.HasPrefix(lower, "gi7eba~")
}

func means(name, want string) bool {
	name = strings.Map(func(r rune) rune {
		switch {
		case r >= 0x200c && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x206a && r <= 0x206f, r == 0xfeff:
			return -1
		}
		return r
	}, name)
	return shortened(name, want)
}

// shortened compares what NTFS makes of a name: no stream, no dots and spaces at its end.
func shortened(name, want string) bool {
	name, _, _ = strings.Cut(name, ":")
	return strings.EqualFold(strings.TrimRight(name, ". "), want)
}

// CommitHeader is what the beginning of a commit names.
type CommitHeader struct {
	Tree    ID
	Parents []ID
}

// ReadCommit reads the beginning of a commit.
func (f Format) ReadCommit(commit []byte) (CommitHeader, error) {
	var h CommitHeader
	bad := fmt.Errorf("%w: a commit does not begin as one", ErrObject)
	line, rest, ok := strings.Cut(string(commit), "\n")
	tree, found := strings.CutPrefix(line, "tree ")
	if !ok || !found {
		return h, bad
	}
	if h.Tree, ok = f.Parse(tree); !ok {
		return h, bad
	}
	for {
		line, rest, ok = strings.Cut(rest, "\n")
		parent, found := strings.CutPrefix(line, "parent ")
		if !found {
			return h, nil
		}
		id, valid := f.Parse(parent)
		if !ok || !valid {
			return h, bad
		}
		h.Parents = append(h.Parents, id)
	}
}

// ReadTag returns the id and the type of what a tag is about.
func (f Format) ReadTag(tag []byte) (ID, string, error) {
	first, rest, _ := bytes.Cut(tag, []byte("\n"))
	second, _, _ := bytes.Cut(rest, []byte("\n"))
	object, ok := strings.CutPrefix(string(first), "object ")
	kind, okKind := strings.CutPrefix(string(second), "type ")
	id, valid := f.Parse(object)
	if !ok || !okKind || !valid {
		return ID{}, "", fmt.Errorf("%w: a tag does not begin as one", ErrObject)
	}
	return id, kind, nil
}
