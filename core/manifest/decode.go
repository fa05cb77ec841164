package manifest

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds on a document: aliases let a small file describe a huge or endless one.
const (
	maxNodes = 100_000
	maxDepth = 50
	maxBytes = 1 << 20
)

// decoder fills Go values from YAML nodes by the tags of this package's types.
type decoder struct {
	errorList
	positions map[string]Position
	nodes     int
	gaveUp    bool
}

// custom is a type that reads itself.
type custom interface {
	fromNode(d *decoder, n *yaml.Node, path string, what string)
}

func pos(n *yaml.Node) Position { return Position{Line: n.Line, Column: n.Column} }

// enter resolves an alias and counts the node; false means the document is too
// large or too deep, which has then been reported.
func (d *decoder) enter(n *yaml.Node, path string) (*yaml.Node, bool) {
	if d.gaveUp {
		return nil, false
	}
	d.nodes++
	if d.nodes > maxNodes || strings.Count(path, "/") > maxDepth {
		d.gaveUp = true
		d.add(pos(n), "the manifest is too large or too deep (aliases count each time they are used)")
		return nil, false
	}
	for i := 0; n.Kind == yaml.AliasNode && i < maxDepth; i++ {
		n = n.Alias
	}
	return n, true
}

// decode reads n into v. path is where in the document, by keys; what names it
// in errors.
func (d *decoder) decode(n *yaml.Node, v reflect.Value, path, what string) {
	d.positions[path] = pos(n)
	n, ok := d.enter(n, path)
	if !ok {
		return
	}
	if c, ok := v.Addr().Interface().(custom); ok {
		c.fromNode(d, n, path, what)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		d.decodeStruct(n, v, path, what)
	case reflect.Map:
		d.decodeMap(n, v, path, what, keyAny)
	case reflect.Slice:
		d.decodeSlice(n, v, path, what)
	case reflect.Pointer:
		elem := reflect.New(v.Type().Elem())
		d.decode(n, elem.Elem(), path, what)
		v.Set(elem)
	default:
		d.decodeScalar(n, v, what)
	}
}

func (d *decoder) decodeStruct(n *yaml.Node, v reflect.Value, path, what string) {
	fields, names := fieldsOf(v.Type())
	seen := map[string]bool{}
	d.eachPair(n, what, func(key, value *yaml.Node) {
		f, ok := fields[key.Value]
		if !ok {
			d.add(pos(key), "unknown key %q in %s: %s", key.Value, what, choice(key.Value, names))
			return
		}
		seen[key.Value] = true
		at := path + "/" + key.Value
		if value.Kind == yaml.ScalarNode && value.Tag == "!!null" {
			d.positions[at] = pos(value)
			d.add(pos(value), "%s: no value given: give one or leave the key out", key.Value)
			return
		}
		field := v.FieldByIndex(f.Index)
		if rule := f.Tag.Get("key"); rule != "" {
			d.positions[at] = pos(value)
			if value, ok := d.enter(value, at); ok {
				d.decodeMap(value, field, at, key.Value, rule)
			}
			return
		}
		d.decode(value, field, at, key.Value)
		if words := strings.Fields(f.Tag.Get("enum")); len(words) > 0 && !slices.Contains(words, field.String()) {
			d.add(pos(value), "%s: %s is not known: %s", key.Value, describe(value), choice(value.Value, words))
		}
		if m := f.Tag.Get("min"); m != "" {
			d.checkMin(value, field, key.Value, m)
		}
		if f.Tag.Get("item") == "env" {
			for i, name := range field.Interface().([]string) {
				if msg := checkEnvName(name); msg != "" {
					d.add(d.positions[at+"/"+strconv.Itoa(i)], "%s: %s", key.Value, msg)
				}
			}
		}
	})
	if n.Kind != yaml.MappingNode {
		return
	}
	for _, name := range names {
		if fields[name].Tag.Get("required") == "true" && !seen[name] {
			d.add(pos(n), "%s has no key %q, which it needs", what, name)
		}
	}
}

func (d *decoder) checkMin(n *yaml.Node, v reflect.Value, what, least string) {
	bound, err := strconv.ParseFloat(least, 64)
	if err != nil {
		panic("manifest: bad min tag on " + what)
	}
	got := 0.0
	if v.CanInt() {
		got = float64(v.Int())
	} else {
		got = v.Float()
	}
	// A zero bound means "more than nothing".
	if got < bound || bound == 0 && got <= 0 {
		d.add(pos(n), "%s: %s is too small", what, n.Value)
	}
}

// The rules for keys of a mapping: the `key` tag.
const (
	keyAny  = "any"
	keyName = "name" // of a bottle or agent
	keyEnv  = "env"  // of an environment variable
	keyGit  = "git"  // dotted name of a git setting
)

func (d *decoder) decodeMap(n *yaml.Node, v reflect.Value, path, what, rule string) {
	m := reflect.MakeMap(v.Type())
	d.eachPair(n, what, func(key, value *yaml.Node) {
		if msg := checkKey(rule, key.Value); msg != "" {
			d.add(pos(key), "%s: %s", what, msg)
		}
		elem := reflect.New(v.Type().Elem()).Elem()
		label := what + " " + strconv.Quote(key.Value)
		if rule == keyName {
			label = strings.TrimSuffix(what, "s") + " " + strconv.Quote(key.Value)
		}
		at := path + "/" + key.Value
		if value.Kind == yaml.ScalarNode && value.Tag == "!!null" {
			d.positions[at] = pos(value)
			d.add(pos(value), "%s: no value given%s", label, nullAdvice(rule))
			return
		}
		d.decode(value, elem, at, label)
		m.SetMapIndex(reflect.ValueOf(key.Value), elem)
	})
	v.Set(m)
}

func nullAdvice(rule string) string {
	if rule == keyEnv {
		return `: write "" for an empty value, or name the variable in forward to take the host's`
	}
	return ""
}

func checkKey(rule, key string) string {
	switch rule {
	case keyName:
		if !nameValid(key) {
			return fmt.Sprintf("%q is no name: letters, digits, '-', '_' and '.', beginning with a letter or digit, at most 63", key)
		}
	case keyEnv:
		return checkEnvName(key)
	case keyGit:
		return checkGitName(key)
	}
	return ""
}

func (d *decoder) decodeSlice(n *yaml.Node, v reflect.Value, path, what string) {
	if n.Kind != yaml.SequenceNode {
		d.add(pos(n), "%s: want a list, got %s%s", what, describe(n), listAdvice(n))
		return
	}
	list := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, item := range n.Content {
		d.decode(item, list.Index(i), path+"/"+strconv.Itoa(i), fmt.Sprintf("%s, item %d", what, i+1))
	}
	v.Set(list)
}

func listAdvice(n *yaml.Node) string {
	if n.Kind == yaml.ScalarNode && n.Value != "" && !strings.Contains(n.Value, "\n") {
		words := strings.Fields(n.Value)
		for i, w := range words {
			words[i] = strconv.Quote(w)
		}
		return ": write [" + strings.Join(words, ", ") + "]"
	}
	return ""
}

func (d *decoder) decodeScalar(n *yaml.Node, v reflect.Value, what string) {
	if n.Kind != yaml.ScalarNode {
		d.add(pos(n), "%s: want %s, got %s", what, wanted(v.Kind()), describe(n))
		return
	}
	wrong := false
	switch v.Kind() {
	case reflect.String:
		switch {
		case n.Tag == "!!null":
			wrong = true
		case strings.ContainsRune(n.Value, 0):
			d.add(pos(n), "%s: a NUL byte cannot be in it", what)
		default:
			v.SetString(n.Value)
		}
	case reflect.Bool:
		b := n.Value == "true"
		wrong = !b && n.Value != "false"
		v.SetBool(b)
	case reflect.Int64:
		i, err := strconv.ParseInt(n.Value, 10, 64)
		wrong = err != nil
		v.SetInt(i)
	case reflect.Float64:
		f, err := strconv.ParseFloat(n.Value, 64)
		// NaN and the infinities parse, and are no amounts.
		wrong = err != nil || f != f || f-f != 0
		v.SetFloat(f)
	default:
		panic("manifest: a type that the decoder does not know: " + v.Type().String())
	}
	if wrong {
		d.add(pos(n), "%s: want %s, got %s", what, wanted(v.Kind()), describe(n))
	}
}

// eachPair calls f for each key of a mapping, once per key.
func (d *decoder) eachPair(n *yaml.Node, what string, f func(key, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		d.add(pos(n), "%s: want a mapping (key: value), got %s", what, describe(n))
		return
	}
	first := map[string]Position{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		at := pos(n.Content[i])
		key, ok := d.enter(n.Content[i], "")
		if !ok {
			return
		}
		switch {
		case key.Kind != yaml.ScalarNode:
			d.add(at, "%s: a key must be a plain word, not %s", what, describe(key))
			continue
		case key.Tag == "!!merge":
			d.add(at, "%s: merge keys (<<) are not supported: repeat the keys", what)
			continue
		}
		if before, dup := first[key.Value]; dup {
			d.add(at, "%s: key %q is already given at line %d", what, key.Value, before.Line)
			continue
		}
		first[key.Value] = at
		f(key, n.Content[i+1])
	}
}

func wanted(k reflect.Kind) string {
	switch k {
	case reflect.Bool:
		return "true or false"
	case reflect.Int64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	default:
		return "a string"
	}
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.ScalarNode:
		if n.Tag == "!!null" {
			return "nothing"
		}
		value := []rune(n.Value)
		if len(value) > 40 {
			value = append(value[:40], '…')
		}
		return strconv.Quote(string(value))
	default:
		return "something else"
	}
}

// fieldsOf returns a struct's fields by YAML key, and the keys in order.
func fieldsOf(t reflect.Type) (map[string]reflect.StructField, []string) {
	fields := map[string]reflect.StructField{}
	var names []string
	for f := range t.Fields() {
		name := f.Tag.Get("yaml")
		if name == "" || name == "-" {
			continue
		}
		fields[name] = f
		names = append(names, name)
	}
	return fields, slices.Clip(names)
}
