package manifest

import (
	"bytes"
	"reflect"
	"slices"
	"strings"
)

// Section is what a policy is made of: the keys egress and git of a bottle, with their
// places in the file that they came from.
type Section struct {
	// Egress and Git are nil if they were not given. One of them was.
	Egress *Egress
	Git    map[string]Repository

	whole  *Manifest
	prefix []string
}

// Errorf makes an error at the place of the value at the given keys, of which the first is
// "egress" or "git".
func (s *Section) Errorf(keys []string, format string, args ...any) *Error {
	return s.whole.Errorf(append(slices.Clone(s.prefix), keys...), format, args...)
}

// ParsePolicy reads the policy of an agent's bottle from memory; file is its name in errors.
// The document holds the keys egress and git of a bottle, or one of them; or it is the
// section egress by itself; or a whole manifest, of which nothing else is taken.
func ParsePolicy(file string, data []byte, agent string) (*Section, error) {
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
	case slices.Contains(keys, "egress") || slices.Contains(keys, "git"):
		var only struct {
			Egress *Egress               `yaml:"egress"`
			Git    map[string]Repository `yaml:"git" key:"name"`
		}
		d.decode(doc, reflect.ValueOf(&only).Elem(), "", "the file")
		return d.section(m, Bottle{Egress: only.Egress, Git: only.Git})
	default:
		e := &Egress{}
		d.decode(doc, reflect.ValueOf(e).Elem(), "/egress", "egress")
		return d.section(m, Bottle{Egress: e})
	}
}

func (d *decoder) section(m *Manifest, b Bottle) (*Section, error) {
	if b.Egress != nil {
		d.validateEgress(b, "")
	}
	d.validateGit(b, "")
	if err := d.err(); err != nil {
		return nil, err
	}
	return &Section{Egress: b.Egress, Git: b.Git, whole: m}, nil
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
	b := m.Bottles[a.Bottle]
	s := &Section{Egress: b.Egress, Git: b.Git, whole: m, prefix: []string{"bottles", a.Bottle}}
	if s.Egress == nil && s.Git == nil {
		return nil, s.Errorf(nil, "bottle %q has no egress: write egress: {} to deny everything", strings.TrimSpace(a.Bottle))
	}
	return s, nil
}
