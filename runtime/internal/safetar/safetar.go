// Package safetar passes tar streams between the host and a hostile container.
//
// It reads an archive, refuses what could reach outside the directory that it
// is extracted into, and writes the rest anew, entry by entry, so that both ends
// see one canonical form (differences between tar parsers have been escapes:
// CVE-2018-15664, CVE-2021-43784 and their like). It holds one buffer, not the
// archive.
//
// It does not protect against symbolic links that already exist where the
// archive is extracted: who extracts resolves those.
package safetar

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
)

// Error reports an archive that was refused and the entry that was the reason.
type Error struct {
	Entry  string
	Reason string
}

func (e *Error) Error() string {
	if e.Entry == "" {
		return "archive refused: " + e.Reason
	}
	return fmt.Sprintf("archive refused: entry %q %s", e.Entry, e.Reason)
}

// Direction tells which end of the copy is the untrusted one.
type Direction int

const (
	// Into is an archive on its way into a container: special files are refused.
	Into Direction = iota
	// OutOf is an archive that comes out of a container: special files, which a
	// container may well hold, are left out.
	OutOf
)

// Filter returns a reader of the checked archive. Its Read returns an *Error for
// an archive that is refused; the stream ends there, before anything of the
// offending entry. Closing it ends the reading of r.
func Filter(r io.Reader, d Direction) io.ReadCloser {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(copyChecked(pw, r, d)) }()
	return pr
}

func copyChecked(w io.Writer, r io.Reader, d Direction) error {
	in, out := tar.NewReader(r), tar.NewWriter(w)
	c := checker{direction: d, links: map[string]bool{}, files: map[string]bool{}}
	buf := make([]byte, 256<<10)
	for {
		hdr, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if errors.Is(err, tar.ErrHeader) {
				return &Error{Reason: "it is not a tar archive, or damaged: " + err.Error()}
			}
			return err
		}
		keep, err := c.check(hdr)
		if err != nil {
			return err
		}
		if !keep {
			continue
		}
		if err := out.WriteHeader(hdr); err != nil {
			return &Error{Entry: hdr.Name, Reason: "cannot be written again: " + err.Error()}
		}
		if _, err := io.CopyBuffer(onlyWriter{out}, in, buf); err != nil {
			return err
		}
	}
	return out.Close()
}

// onlyWriter hides ReadFrom, with which tar.Writer would bypass the buffer.
type onlyWriter struct{ io.Writer }

type checker struct {
	direction Direction
	links     map[string]bool // names that were a symbolic link
	files     map[string]bool // names that were a regular file
}

// check decides whether an entry is kept and brings its names into their one
// form: relative, clean, with a slash after a directory.
func (c *checker) check(hdr *tar.Header) (keep bool, err error) {
	name, reason := cleanName(hdr.Name)
	if reason != "" {
		return false, &Error{hdr.Name, reason}
	}
	for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
		if c.links[dir] {
			return false, &Error{hdr.Name, fmt.Sprintf("lies below %q, which the archive makes a symbolic link", dir)}
		}
	}
	switch hdr.Typeflag {
	case tar.TypeReg:
		c.files[name] = true
	case tar.TypeGNUSparse:
		// The reader has filled the holes in.
		hdr.Typeflag = tar.TypeReg
		c.files[name] = true
	case tar.TypeDir:
	case tar.TypeSymlink:
		if hdr.Linkname == "" || strings.ContainsRune(hdr.Linkname, 0) {
			return false, &Error{hdr.Name, "is a symbolic link to nowhere"}
		}
		c.links[name] = true
	case tar.TypeLink:
		target, reason := cleanName(hdr.Linkname)
		if reason == "" && !c.files[target] {
			reason = "is no file that came before it"
		}
		if reason != "" {
			return false, &Error{hdr.Name, fmt.Sprintf("is a hard link to %q, which %s", hdr.Linkname, reason)}
		}
		hdr.Linkname = target
		c.files[name] = true
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		if c.direction == OutOf {
			return false, nil
		}
		return false, &Error{hdr.Name, "is a device or FIFO"}
	case tar.TypeXGlobalHeader:
		return false, nil
	default:
		return false, &Error{hdr.Name, fmt.Sprintf("has the unknown type %q", hdr.Typeflag)}
	}
	if hdr.Typeflag == tar.TypeDir && name != "." {
		name += "/"
	}
	hdr.Name = name
	canonical(hdr)
	return true, nil
}

// canonical leaves the choice of format to the writer and drops what only one
// parser would understand.
func canonical(hdr *tar.Header) {
	hdr.Format = tar.FormatPAX
	kept := map[string]string{}
	for k, v := range hdr.PAXRecords {
		if strings.HasPrefix(k, "SCHILY.xattr.") {
			kept[k] = v
		}
	}
	hdr.PAXRecords = kept
}

func cleanName(name string) (clean, reason string) {
	switch {
	case name == "":
		return "", "has no name"
	case strings.ContainsRune(name, 0):
		return "", "has a NUL in its name"
	case strings.HasPrefix(name, "/"):
		return "", "has an absolute name"
	}
	for _, element := range strings.Split(name, "/") {
		if element == ".." {
			return "", `has a ".." in its name`
		}
	}
	return path.Clean(name), ""
}
