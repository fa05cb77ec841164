package manifest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Load reads the manifest at path.
func Load(path string) (*Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{File: path, Msg: "the manifest cannot be read: " + reason(err)}
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, &Error{File: path, Msg: "the manifest cannot be read: " + reason(err)}
	}
	return Parse(path, data)
}

// reason is err without the path that the message already has.
func reason(err error) string {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return pathErr.Err.Error()
	}
	return err.Error()
}

// Parse reads a manifest from memory; file is its name in errors, and the place
// that relative paths start from.
func Parse(file string, data []byte) (*Manifest, error) {
	m := &Manifest{file: file, positions: map[string]Position{}}
	d := &decoder{errorList: errorList{file: file}, positions: m.positions}
	if len(data) > maxBytes {
		d.add(Position{}, "the manifest is larger than 1 MiB")
		return nil, d.err()
	}
	if doc := d.document(data); doc != nil {
		d.decode(doc, reflect.ValueOf(m).Elem(), "", "the manifest")
		d.validate(m)
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return m, nil
}

var yamlError = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// document parses the one document in data; nil means an error was reported.
func (d *decoder) document(data []byte) *yaml.Node {
	reader := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err := reader.Decode(&doc)
	if err == nil {
		switch next := reader.Decode(&second); {
		case next == nil:
			d.add(pos(&second), "a second YAML document begins here: a manifest is one")
			return nil
		case !errors.Is(next, io.EOF):
			err = next
		}
	}
	if errors.Is(err, io.EOF) || err == nil && (len(doc.Content) == 0 || doc.Content[0].Tag == "!!null") {
		d.add(Position{Line: 1, Column: 1}, "the manifest is empty: it needs bottles and agents")
		return nil
	}
	if err != nil {
		at, msg := Position{}, err.Error()
		if m := yamlError.FindStringSubmatch(msg); m != nil {
			at.Line, _ = strconv.Atoi(m[1])
			msg = m[2]
		}
		d.add(at, "this is not YAML: %s%s", msg, tabAdvice(data, at.Line))
		return nil
	}
	return doc.Content[0]
}

// tabAdvice names the commonest cause of a YAML syntax error.
func tabAdvice(data []byte, line int) string {
	lines := bytes.Split(data, []byte("\n"))
	for _, n := range []int{line - 1, line} {
		if n >= 0 && n < len(lines) && strings.HasPrefix(strings.TrimLeft(string(lines[n]), " "), "\t") {
			return " (the line is indented with a tab; YAML wants spaces)"
		}
	}
	return ""
}

// Position returns where in the file the value at the given keys is. It is the
// nearest enclosing value's if the keys were not given.
func (m *Manifest) Position(keys ...string) Position {
	for n := len(keys); n >= 0; n-- {
		path := ""
		for _, k := range keys[:n] {
			path += "/" + k
		}
		if p, ok := m.positions[path]; ok {
			return p
		}
	}
	return Position{}
}

// Errorf makes an error at the place of the value at the given keys.
func (m *Manifest) Errorf(keys []string, format string, args ...any) *Error {
	l := errorList{file: m.file}
	l.add(m.Position(keys...), format, args...)
	return l.errs[0]
}
