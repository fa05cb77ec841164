package manifest

import (
	"math"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

func (l *StringList) fromNode(d *decoder, n *yaml.Node, path, what string) {
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		var s string
		d.decodeScalar(n, reflect.ValueOf(&s).Elem(), what)
		*l = StringList{s}
		d.positions[path+"/0"] = pos(n)
		return
	}
	d.decodeSlice(n, reflect.ValueOf((*[]string)(l)).Elem(), path, what)
}

func (s *Size) fromNode(d *decoder, n *yaml.Node, _, what string) {
	if n.Kind != yaml.ScalarNode {
		d.add(pos(n), "%s: want a size such as 512MiB, got %s", what, describe(n))
		return
	}
	v, ok := ParseSize(n.Value)
	if !ok {
		d.add(pos(n), "%s: want a size such as 512MiB or 4GiB, got %s", what, describe(n))
		return
	}
	*s = v
}

var (
	sizePattern = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)$`)
	sizeUnits   = map[string]float64{
		"": 1, "b": 1,
		"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
		"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
		"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
	}
)

// ParseSize reads a positive number of bytes: a number with one of the units B,
// K, M, G, T, KiB, MiB, GiB, TiB (powers of 1024) and KB, MB, GB, TB (powers of
// 1000), in either case.
func ParseSize(s string) (Size, bool) {
	m := sizePattern.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return 0, false
	}
	unit, ok := sizeUnits[strings.ToLower(m[2])]
	if !ok {
		return 0, false
	}
	v, err := strconv.ParseFloat(m[1], 64)
	v *= unit
	if err != nil || v < 1 || v >= math.MaxInt64 {
		return 0, false
	}
	return Size(v), true
}

func (m *Mode) fromNode(d *decoder, n *yaml.Node, _, what string) {
	// yaml reads 0644 as an octal number; the text is the same either way.
	text := strings.TrimPrefix(n.Value, "0o")
	v, err := strconv.ParseUint(text, 8, 32)
	if n.Kind != yaml.ScalarNode || err != nil || v > 0o777 || v == 0 {
		d.add(pos(n), "%s: want permissions in octal such as \"0644\", got %s", what, describe(n))
		return
	}
	*m = Mode(v)
}

func (w *Workspace) fromNode(d *decoder, n *yaml.Node, path, what string) {
	switch {
	case n.Kind == yaml.ScalarNode && n.Tag == "!!bool" && n.Value == "false":
		w.None = true
	case n.Kind == yaml.ScalarNode && n.Tag == "!!bool":
		d.add(pos(n), "%s: want a directory, a mapping or false, got %s", what, describe(n))
	case n.Kind == yaml.ScalarNode:
		d.decodeScalar(n, reflect.ValueOf(&w.Path).Elem(), what)
		d.positions[path+"/path"] = pos(n)
	default:
		d.decodeStruct(n, reflect.ValueOf(w).Elem(), path, what)
	}
}

func (t *Tmpfs) fromNode(d *decoder, n *yaml.Node, path, what string) {
	if n.Kind == yaml.ScalarNode {
		d.decodeScalar(n, reflect.ValueOf(&t.Path).Elem(), what)
		d.positions[path+"/path"] = pos(n)
		return
	}
	d.decodeStruct(n, reflect.ValueOf(t).Elem(), path, what)
}
