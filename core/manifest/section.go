package manifest

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
)

// Section is the key egress of a bottle, with its places in the file that it came from.
type Section struct {
	Egress *Egress

	whole  *Manifest
	prefix []string
}

// Errorf makes an error at the place of the value at the given keys, of which the first is
// "egress".
func (s *Section) Errorf(keys []string, format string, args ...any) *Error {
	return s.whole.Errorf(append(slices.Clone(s.prefix), keys...), format, args...)
}

// ParseEgress reads what may leave the bottle of an agent from memory; file is its name in
// errors. The document is the section egress by itself, with or without that key before
// it, or a whole manifest, of which nothing else is taken.
func ParseEgress(file string, data []byte, agent string) (*Section, error) {
	m := &Manifest{file: file, positions: map[string]Position{}}
	d := &decoder{errorList: errorList{file: file}, positions: m.positions}
	if len(data) > maxBytes {
		d.add(Position{}, "the file is larger than 1 MiB")
		return nil, d.err()
	}
	if len(bytes.TrimSpace(data)) == 0 {
		d.add(Position{Line: 1, Column: 1}, "the file is empty: write egress: {} to deny everything")
		return nil, d.err()
	}
	doc := d.document(data)
	if doc == nil {
		return nil, d.err()
	}
	var keys []string
	for i := 0; i < len(doc.Content); i += 2 {
		keys = append(keys, doc.Content[i].Value)
	}
	switch {
	case slices.Contains(keys, "bottles") || slices.Contains(keys, "agents"):
		return sectionOf(file, data, agent)
	case slices.Contains(keys, "egress"):
		var only struct {
			Egress *Egress `yaml:"egress" required:"true"`
		}
		d.decode(doc, reflect.ValueOf(&only).Elem(), "", "the file")
		return d.section(m, only.Egress)
	default:
		e := &Egress{}
		d.decode(doc, reflect.ValueOf(e).Elem(), "/egress", "egress")
		return d.section(m, e)
	}
}

func (d *decoder) section(m *Manifest, e *Egress) (*Section, error) {
	if e != nil {
		d.validateEgress(Bottle{Egress: e}, "")
	}
	if err := d.err(); err != nil {
		return nil, err
	}
	return &Section{Egress: e, whole: m}, nil
}

func sectionOf(file string, data []byte, agent string) (*Section, error) {
	m, err := Parse(file, data)
	if err != nil {
		return nil, err
	}
	a, ok := m.Agents[agent]
	if !ok {
		return nil, m.Errorf([]string{"agents"}, "there is no agent %q, which runs in the bottle", agent)
	}
	s := &Section{Egress: m.Bottles[a.Bottle].Egress, whole: m, prefix: []string{"bottles", a.Bottle}}
	if s.Egress == nil {
		return nil, s.Errorf(nil, "bottle %q has no egress: write egress: {} to deny everything", strings.TrimSpace(a.Bottle))
	}
	return s, nil
}
