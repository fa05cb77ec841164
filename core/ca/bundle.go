package ca

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"time"
)

// maxRoots bounds how many certificates of an image are taken into a bundle: the
// image's file is not trusted to be small.
const maxRoots = 2000

// File is a PEM file: what is read, and the name for errors about it.
type File struct {
	Name string
	Data []byte
}

// PEMError is a mistake in a PEM file.
type PEMError struct {
	File string
	Line int // of the block that is wrong, from 1
	Err  error
}

func (e *PEMError) Error() string { return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Err) }

// Unwrap returns the mistake.
func (e *PEMError) Unwrap() error { return e.Err }

// Roots reads the certificates of authorities in a PEM file that an operator gave.
// Text outside of blocks is ignored, as usual in such files; anything else is an error
// of type [*PEMError]: no block at all, a block cut off, a private key, a certificate
// that cannot be parsed, has expired, or is no authority's.
func Roots(f File, now time.Time) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	rest := f.Data
	for {
		// The line is where BEGIN stands, not where the text before it starts.
		start := bytes.Index(rest, []byte("-----BEGIN "))
		if start < 0 {
			break
		}
		line := 1 + bytes.Count(f.Data[:len(f.Data)-len(rest)+start], []byte("\n"))
		fail := func(err error) ([]*x509.Certificate, error) {
			return nil, &PEMError{File: f.Name, Line: line, Err: err}
		}
		end := bytes.Index(rest[start:], []byte("-----END "))
		if end < 0 {
			return fail(errors.New("the PEM block has no end"))
		}
		block, after := pem.Decode(rest[start:])
		if block == nil || len(rest)-len(after)-start < end || bytes.Count(rest[start:len(rest)-len(after)], []byte("-----BEGIN ")) != 1 {
			return fail(errors.New("the PEM block is malformed"))
		}
		rest = after
		switch {
		case block.Type == "CERTIFICATE":
		case block.Type == "TRUSTED CERTIFICATE":
			return fail(errors.New("this is OpenSSL's own form of a certificate: convert it with openssl x509 -in FILE -out FILE.pem"))
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return fail(errors.New("this is a private key: it has no place among roots and would be handed to the agent"))
		default:
			return fail(fmt.Errorf("this is a %s, not a certificate", block.Type))
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			return fail(fmt.Errorf("parsing the certificate: %w", err))
		case cert.BasicConstraintsValid && !cert.IsCA:
			return fail(fmt.Errorf("the certificate of %q is no authority's", cert.Subject))
		case now.After(cert.NotAfter):
			return fail(fmt.Errorf("the certificate of %q has expired on %s", cert.Subject, cert.NotAfter.UTC().Format(time.DateOnly)))
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, &PEMError{File: f.Name, Line: 1, Err: errors.New("there is no PEM certificate in it")}
	}
	return certs, nil
}

// imageRoots reads what can be read of an image's own roots. The rest is counted, not
// refused: an image with one odd root must still start.
func imageRoots(data []byte) (certs []*x509.Certificate, skipped int) {
	for len(certs) < maxRoots {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			skipped++
			continue
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			skipped++
			continue
		}
		certs = append(certs, cert)
	}
	return certs, skipped
}

// Bundle is the set of roots that the tools inside a bottle are to trust.
type Bundle struct {
	// Certs are the roots, the bottle's own first, each once.
	Certs []*x509.Certificate
	// Skipped counts what was in the image's file and could not be read.
	Skipped int
}

// NewBundle joins the bottle's own authority, an image's own roots (may be empty) and
// the corporate ones. Most clients take a bundle *instead* of their store: without the
// image's roots they would trust the bottle alone.
func NewBundle(own *x509.Certificate, image []byte, corporate []File, now time.Time) (*Bundle, error) {
	b := &Bundle{}
	seen := map[string]bool{}
	add := func(certs ...*x509.Certificate) {
		for _, c := range certs {
			if !seen[string(c.Raw)] {
				seen[string(c.Raw)] = true
				b.Certs = append(b.Certs, c)
			}
		}
	}
	add(own)
	for _, f := range corporate {
		certs, err := Roots(f, now)
		if err != nil {
			return nil, fmt.Errorf("reading corporate roots: %w", err)
		}
		add(certs...)
	}
	certs, skipped := imageRoots(image)
	add(certs...)
	b.Skipped = skipped
	return b, nil
}

// PEM returns the bundle as one PEM file, each certificate after a line that names it.
func (b *Bundle) PEM() []byte {
	var out bytes.Buffer
	for _, c := range b.Certs {
		// Names come from certificates of the image: no line of theirs may look like PEM.
		name := strings.Map(func(r rune) rune {
			if r < ' ' || r == 0x7f {
				return '?'
			}
			return r
		}, c.Subject.String())
		fmt.Fprintf(&out, "# %s\n", name)
		// Writing to a bytes.Buffer cannot fail.
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return out.Bytes()
}
