package trust

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"path"
	"slices"
)

// Write is a file to put into a container. No part of its path is a link.
type Write struct {
	Path     string
	Mode     int64
	UID, GID int
	Content  []byte
}

// Refresh returns what has to be written so that the image's own stores hold further roots,
// in the place of its update-ca-certificates or update-ca-trust: each bundle with them at its
// end, a file named by hash for each in OpenSSL's directories, and the place where the
// system's own tool finds them again. Owners and modes of what there is stay. An image that has
// no bundle gets Debian's, which Go and GnuTLS look for too. label is part of names.
//
// Java's cacerts and NSS databases are not touched: see the package's doc.
func (s *Store) Refresh(label string, roots []*x509.Certificate) ([]Write, error) {
	var writes []Write
	text := PEM(roots)
	list := s.files()
	for _, f := range list {
		content := bytes.TrimRight(slices.Clone(f.content), "\n")
		if len(content) > 0 {
			content = append(content, '\n')
		}
		writes = append(writes, Write{f.path, f.mode & 0o7777, f.uid, f.gid, append(content, text...)})
	}
	if len(list) == 0 {
		// Where a link to nowhere is, its target is made.
		if full, _, known := s.resolve(bundles[0]); !known {
			writes = append(writes, Write{Path: full, Mode: 0o644, Content: text})
		}
	}
	byHash, err := s.byHash(roots)
	if err != nil {
		return nil, err
	}
	return append(append(writes, byHash...), s.anchors(label, roots)...), nil
}

// byHash are the files for OpenSSL's directories.
func (s *Store) byHash(roots []*x509.Certificate) ([]Write, error) {
	var writes []Write
	var dirs []string
	for i, d := range hashed {
		full, e, known := s.resolve(d)
		// Debian's is made if it is missing.
		if (known && e.kind == tar.TypeDir || !known && i == 0) && !slices.Contains(dirs, full) {
			dirs = append(dirs, full)
		}
	}
	for _, dir := range dirs {
		taken := map[string]bool{}
		for _, c := range roots {
			hash, err := SubjectHash(c)
			if err != nil {
				return nil, err
			}
			// Roots of one subject are told apart by a number without gaps.
			for n := 0; ; n++ {
				name := path.Join(dir, fmt.Sprintf("%s.%d", hash, n))
				if _, there := s.entries[name]; there || taken[name] {
					continue
				}
				taken[name] = true
				writes = append(writes, Write{Path: name, Mode: 0o644, Content: PEM([]*x509.Certificate{c})})
				break
			}
		}
	}
	return writes, nil
}

// anchors are the files for the system's own tool, in the directories that there are: one
// certificate a file, as Debian's wants it.
func (s *Store) anchors(label string, roots []*x509.Certificate) []Write {
	var writes []Write
	for i, a := range anchors {
		full, e, known := s.resolve(a.dir)
		// Debian's and Alpine's is made if it is missing: the package may be installed later.
		if !(known && e.kind == tar.TypeDir || i == 0 && !known) {
			continue
		}
		for n, c := range roots {
			name := label
			if n > 0 {
				name = fmt.Sprintf("%s-%d", label, n+1)
			}
			writes = append(writes, Write{Path: path.Join(full, name+a.suffix), Mode: 0o644, Content: PEM([]*x509.Certificate{c})})
		}
	}
	return writes
}

// PEM writes certificates one after the other.
func PEM(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Buffer's Write does not fail
	}
	return b.Bytes()
}
