package trust

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// What an image may make us read. A large distribution's stores have 1,500 entries and 3 MB.
const (
	maxEntries = 50_000
	maxFile    = 8 << 20  // bytes of a file that is kept
	maxKept    = 64 << 20 // bytes of all files that are kept
	maxArchive = 1 << 30  // bytes of an archive
	maxHops    = 32       // links on the way to a file
)

// Areas returns the directories of a container in which systems keep their stores: what
// is to be copied out for [Store.Add]. Most images have two or three of them.
func Areas() []string {
	return []string{debianAnchors, "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/var/lib/ca-certificates"}
}

const debianAnchors = "/usr/local/share/ca-certificates"

// bundles are the files in which systems keep the roots of servers. The first is the one
// that is made where there is none.
var bundles = []string{
	"/etc/ssl/certs/ca-certificates.crt",                // Debian, Alpine, Arch, Gentoo
	"/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", // Fedora and its kin, from 7 on
	"/etc/pki/tls/certs/ca-bundle.crt",                  // the same, earlier
	"/etc/pki/tls/cert.pem",                             // their OpenSSL
	"/etc/ssl/cert.pem",                                 // Alpine's OpenSSL
	"/etc/ssl/ca-bundle.pem",                            // SUSE
	"/var/lib/ca-certificates/ca-bundle.pem",            // where that leads
	"/etc/ssl/certs/ca-bundle.crt",                      // Nix
	"/etc/ca-certificates/extracted/tls-ca-bundle.pem",  // Arch
}

// hashed are the directories in which OpenSSL looks for a root by its hash.
var hashed = []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}

// anchors are where a system's own tool finds what to put into its stores: with it there,
// the bottle's root stays when the agent runs that tool, or installs a package that does.
var anchors = []struct{ dir, suffix string }{
	{debianAnchors, ".crt"},                               // Debian, Alpine: update-ca-certificates
	{"/etc/pki/ca-trust/source/anchors", ".pem"},          // Fedora: update-ca-trust
	{"/etc/pki/trust/anchors", ".pem"},                    // SUSE: update-ca-certificates
	{"/etc/ca-certificates/trust-source/anchors", ".pem"}, // Arch: trust extract-compat
}

// entry is a file of the image.
type entry struct {
	kind     byte // a tar type: TypeDir, TypeReg, TypeSymlink
	link     string
	mode     int64
	uid, gid int
	content  []byte // of a file that is kept; nil if it is not
}

// Store is what an image holds of roots, by what was copied out of it. The zero value
// holds nothing.
type Store struct {
	entries map[string]entry
	kept    int64
	extra   []string
	// missing are paths that were asked for and are not there.
	missing map[string]bool
}

// AddExtra names further bundles of the image: [ImageFiles].
func (s *Store) AddExtra(files []string) { s.extra = append(s.extra, files...) }

func (s *Store) bundles() []string { return slices.Concat(bundles, s.extra) }

// Absent notes that there is nothing at a path.
func (s *Store) Absent(name string) {
	if s.missing == nil {
		s.missing = map[string]bool{}
	}
	s.missing[name] = true
}

// Add reads an archive of the path name as [runtime.Containers.CopyFrom] writes it, names
// beginning with name's last element. It comes from the image: what is larger than any
// store is an error, and what is none of certificates is not kept.
func (s *Store) Add(name string, archive io.Reader) error {
	if s.entries == nil {
		s.entries = map[string]entry{}
	}
	limited := &io.LimitedReader{R: archive, N: maxArchive}
	r := tar.NewReader(limited)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if limited.N == 0 {
			return fmt.Errorf("%s in the image is larger than %d MiB, which no store of certificates is", name, maxArchive>>20)
		}
		if err != nil {
			return fmt.Errorf("reading %s of the image: %w", name, err)
		}
		full := path.Join(path.Dir(name), h.Name)
		if full != name && !strings.HasPrefix(full, strings.TrimSuffix(name, "/")+"/") {
			return fmt.Errorf("reading %s of the image: the archive holds %q, which is not in there", name, h.Name)
		}
		if len(s.entries) >= maxEntries {
			return fmt.Errorf("%s in the image has more than %d files, which no store of certificates has", name, maxEntries)
		}
		e := entry{kind: h.Typeflag, link: h.Linkname, mode: h.Mode, uid: h.Uid, gid: h.Gid}
		switch h.Typeflag {
		case tar.TypeReg:
			e.content, err = s.keep(full, name, h.Size, r)
			if err != nil {
				return fmt.Errorf("reading %s of the image: %w", full, err)
			}
		case tar.TypeDir, tar.TypeSymlink:
		case tar.TypeLink:
			// The file it means has an entry of its own; both names lead there.
			e.kind, e.link = tar.TypeSymlink, path.Join("/", path.Dir(name), h.Linkname)
		default:
			continue
		}
		s.entries[full] = e
	}
}

// keep reads a file that may be one of certificates.
func (s *Store) keep(full, asked string, size int64, r io.Reader) ([]byte, error) {
	ext := path.Ext(full)
	if size > maxFile || full != asked && ext != ".pem" && ext != ".crt" && ext != ".cer" && !slices.Contains(s.extra, full) {
		return nil, nil
	}
	if s.kept += size; s.kept > maxKept {
		return nil, fmt.Errorf("there is more than %d MiB of certificates, which no store has", maxKept>>20)
	}
	content := make([]byte, size)
	_, err := io.ReadFull(r, content)
	return content, err
}

// resolve follows links. It gives the path that it ended at; known says whether there is
// an entry for it. An unknown one may be elsewhere in the image, or nowhere.
func (s *Store) resolve(name string) (full string, e entry, known bool) {
	rest := strings.Split(strings.Trim(path.Clean(name), "/"), "/")
	full = "/"
	for hops := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			full = path.Dir(full)
			continue
		}
		next := path.Join(full, part)
		if e, known = s.entries[next]; !known || e.kind != tar.TypeSymlink {
			full = next
			continue
		}
		if hops++; hops > maxHops {
			return next, entry{}, false
		}
		// The link's own ".." are of where it lies once it is resolved: path.Clean would
		// be wrong about them.
		to := strings.FieldsFunc(e.link, func(r rune) bool { return r == '/' })
		to = slices.DeleteFunc(to, func(p string) bool { return p == "." })
		rest = slices.Concat(to, rest)
		if path.IsAbs(e.link) {
			full = "/"
		}
	}
	e, known = s.entries[full]
	return full, e, known
}

// Missing returns the paths that the image's bundles lead to and that were not copied out
// yet, nor noted as [Store.Absent]: links out of the areas, and what variables name. A file that
// was copied out may be a link again.
func (s *Store) Missing() []string {
	var list []string
	for _, b := range s.bundles() {
		full, _, known := s.resolve(b)
		if !known && !s.covered(full) && !slices.Contains(list, full) {
			list = append(list, full)
		}
	}
	return list
}

// covered reports whether all there is at a resolved path is known.
func (s *Store) covered(full string) bool {
	for ; full != "/"; full = path.Dir(full) {
		if _, known := s.entries[full]; known || s.missing[full] {
			return true
		}
	}
	return false
}

// file is a bundle of the image at its real path.
type file struct {
	path string
	entry
}

// files are the bundles that there are, each once.
func (s *Store) files() []file {
	var list []file
	for _, b := range s.bundles() {
		full, e, known := s.resolve(b)
		if known && e.kind == tar.TypeReg && e.content != nil && !slices.ContainsFunc(list, func(f file) bool { return f.path == full }) {
			list = append(list, file{full, e})
		}
	}
	return list
}

// Roots returns the image's own roots: all of its bundles, as PEM.
func (s *Store) Roots() []byte {
	var all []byte
	for _, f := range s.files() {
		all = append(append(all, f.content...), '\n')
	}
	return all
}

// IsDir reports whether a path is known to be a directory of the image. It is false for what
// was not copied out.
func (s *Store) IsDir(name string) bool {
	full, e, known := s.resolve(name)
	return full == name && known && e.kind == tar.TypeDir
}
