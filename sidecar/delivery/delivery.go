// Package delivery is how a sidecar gets what it needs: one JSON document on the standard
// input of its own process when it starts, kept as files in memory-backed storage. To that
// it answers with a line of its log: that it is ready, or why it is not, and then it ends. A
// change at run time is the same document on the standard input of `bottle-sidecar put`.
//
// # Promises
//
//   - Nothing of a document is on a command line, in an environment or in anything that an
//     engine records, and a document does not print.
//   - Reading is strict and bounded. Errors never quote the input.
//   - A document is taken up as a whole or not at all: [Store.Put] gives the way back.
//   - A member that is not given leaves what was given before as it is.
package delivery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/bottle-run/bottle/sidecar/secrets"
)

// Dir is where a sidecar keeps its files and its control socket: a tmpfs of its container.
const Dir = "/run/bottle"

// Marker is in every program that takes documents of this form, so that one that is too
// old, or another program, is told before it is started. The number grows when a program
// of either side would not understand the other.
const Marker = "dev.bottle.sidecar.delivery=2;"

// StdinFlag has a sidecar take its first document from its standard input.
const StdinFlag = "--stdin"

// The names of the files in a directory such as [Dir]. A configuration names them by
// their paths, see [Path].
const (
	Config         = "config.json"
	CACert         = "ca.pem"
	CAKey          = "ca.key"
	FirewallCA     = "firewall-ca.pem"
	CorporateRoots = "corporate-roots.pem"
	Secrets        = "secrets"
)

// Path returns where a file lies in a sidecar's container.
func Path(name string) string { return Dir + "/" + name }

// In returns where a file lies below a directory.
func In(dir, name string) string { return filepath.Join(dir, name) }

// MaxDocument bounds a document, in bytes.
const MaxDocument = 8 << 20

// Document is what is delivered. The zero value of a member leaves what is there.
type Document struct {
	// Config is the sidecar's configuration, see package config.
	Config json.RawMessage `json:"config,omitempty"`
	// CACert and CAKey are the authority that the sidecar signs with, in PEM. They cannot
	// change while it runs.
	CACert string `json:"ca_cert,omitempty"`
	CAKey  string `json:"ca_key,omitempty"`
	// FirewallCA is the certificate of the authority of the firewall, in PEM.
	FirewallCA string `json:"firewall_ca,omitempty"`
	// CorporateRoots are certificates beside the system's, in PEM.
	CorporateRoots string `json:"corporate_roots,omitempty"`
	// Secrets replace those of the same names. Others that were delivered stay: who
	// changes a policy later does not know them.
	Secrets []secrets.Secret `json:"secrets,omitempty"`
}

// String hides the content.
func (Document) String() string { return "[delivery]" }

// GoString hides the content.
func (Document) GoString() string { return "[delivery]" }

// Encode writes a document as [Decode] reads it.
func (d Document) Encode() ([]byte, error) {
	data, err := json.Marshal(d)
	if err != nil {
		return nil, errors.New("encoding a delivery: its configuration is no valid JSON")
	}
	if len(data) > MaxDocument {
		return nil, fmt.Errorf("encoding a delivery: it has %d bytes, and %d may be delivered", len(data), MaxDocument)
	}
	return data, nil
}

// Decode reads a document: one JSON object of known members, each at most once, and
// nothing after it.
func Decode(r io.Reader) (Document, error) {
	fail := func(format string, args ...any) (Document, error) {
		return Document{}, fmt.Errorf("reading the delivery: "+format, args...)
	}
	data, err := io.ReadAll(io.LimitReader(r, MaxDocument+1))
	if err != nil {
		return fail("%w", err)
	}
	if len(data) > MaxDocument {
		return fail("it has more than %d bytes", MaxDocument)
	}
	var doc Document
	var list json.RawMessage
	members := map[string]any{
		"config": &doc.Config, "ca_cert": &doc.CACert, "ca_key": &doc.CAKey, "firewall_ca": &doc.FirewallCA,
		"corporate_roots": &doc.CorporateRoots, "secrets": &list,
	}
	d := json.NewDecoder(bytes.NewReader(data))
	if tok, err := d.Token(); err != nil || tok != json.Delim('{') {
		return fail("it is no JSON object")
	}
	seen := map[string]bool{}
	for d.More() {
		tok, err := d.Token()
		name, ok := tok.(string)
		if err != nil || !ok {
			return fail("it is no valid JSON at byte %d", d.InputOffset())
		}
		into, known := members[name]
		switch {
		case !known:
			return fail("there is no member of the name that is at byte %d", d.InputOffset())
		case seen[name]:
			return fail("%s is given twice", name)
		}
		seen[name] = true
		if err := d.Decode(into); err != nil {
			return fail("%s is not of the form that it should be of", name)
		}
	}
	if _, err := d.Token(); err != nil {
		return fail("it is no valid JSON at byte %d", d.InputOffset())
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fail("something follows the JSON")
	}
	if seen["config"] && (len(doc.Config) == 0 || doc.Config[0] != '{') {
		return fail("config is no JSON object")
	}
	if seen["secrets"] {
		if doc.Secrets, err = decodeSecrets(list); err != nil {
			return Document{}, err
		}
	}
	return doc, nil
}

// decodeSecrets checks a list as a file of secrets is checked.
func decodeSecrets(list json.RawMessage) ([]secrets.Secret, error) {
	if len(list) == 0 || list[0] != '[' {
		return nil, errors.New("reading the delivery: secrets is no list")
	}
	set, err := secrets.Decode(bytes.NewReader(secretsFile(list)))
	if err != nil {
		return nil, err
	}
	all := make([]secrets.Secret, 0, len(set))
	for _, name := range set.Names() {
		all = append(all, set[name])
	}
	return all, nil
}

func secretsFile(list []byte) []byte {
	return append(append([]byte(`{"secrets":`), list...), '}')
}
