package manifest

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Edit is a change of one value of a manifest.
type Edit struct {
	// Keys lead to the value; what is missing on the way is made.
	Keys []string
	// List is the new list, if List is not nil. Without one, Value is the new value.
	List  []Item
	Value any
}

// Item is an item of a new list: one of the old list, with its comments, or a new one.
type Item struct {
	// Old is the index in the old list, -1 for a new item.
	Old int
	New any
}

// Apply makes edits in the text of a manifest, and leaves everything else as it is, comments
// and layout too. What cannot be changed so is an error, and so is a result that is no valid
// manifest, or in which anything else has changed.
func Apply(file string, data []byte, edits []Edit) ([]byte, error) {
	crlf := bytes.Contains(data, []byte("\r\n"))
	text := bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
	for _, e := range edits {
		var err error
		if text, err = apply(text, e); err != nil {
			return nil, fmt.Errorf("%s: %s cannot be changed here: %w: write it yourself", file, strings.Join(e.Keys, "."), err)
		}
	}
	if _, err := Parse(file, text); err != nil {
		return nil, fmt.Errorf("the changed manifest would not be valid: %w", err)
	}
	if crlf {
		text = bytes.ReplaceAll(text, []byte("\n"), []byte("\r\n"))
	}
	return text, nil
}

// errNotHere is of text that only a human can change well.
var errNotHere = errors.New("it is written in a way that bottle does not change")

func apply(text []byte, e Edit) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	// These begin a line in YAML, too.
	if bytes.ContainsAny(text, "\r\u0085\u2028\u2029") {
		return nil, errNotHere
	}
	if len(doc.Content) != 1 || doc.Content[0].Kind != yaml.MappingNode {
		return nil, errNotHere
	}
	at := doc.Content[0]
	// The innermost entry in block style is written anew, or one is added to a mapping.
	var parent, key, value *yaml.Node // of that entry
	block := at.Style&yaml.FlowStyle == 0
	if !block {
		return nil, errNotHere
	}
	var inserted bool
	for i, name := range e.Keys {
		last := i == len(e.Keys)-1
		k, v := entry(at, name)
		if v == nil {
			k, v = &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: name}, &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
			if block && !inserted && len(at.Content) > 0 {
				parent, key, value = at, k, v
				block, inserted = false, true // what is below is new
			}
			at.Content = append(at.Content, k, v)
		} else if block && !inserted {
			parent, key, value = at, k, v
		}
		if v.Kind == yaml.AliasNode || v.Anchor != "" {
			return nil, errNotHere
		}
		if last {
			made, err := e.node(v)
			if err != nil {
				return nil, err
			}
			*v = *made
			break
		}
		if v.Kind == yaml.ScalarNode && v.Tag == "!!null" {
			v.Kind, v.Tag, v.Value = yaml.MappingNode, "!!map", ""
		}
		if v.Kind != yaml.MappingNode {
			return nil, errNotHere
		}
		if len(v.Content) == 0 {
			v.Style &^= yaml.FlowStyle
			k.LineComment, v.LineComment = v.LineComment, ""
			block = false
		}
		block = block && v.Style&yaml.FlowStyle == 0
		at = v
	}
	out, err := splice(text, parent, key, value, inserted)
	if err != nil {
		return nil, err
	}
	return out, unchangedBeside(out, &doc)
}

// entry finds a key of a mapping.
func entry(n *yaml.Node, name string) (key, value *yaml.Node) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

// node is the new value in place of an old one.
func (e Edit) node(old *yaml.Node) (*yaml.Node, error) {
	made := &yaml.Node{}
	if e.List == nil {
		if err := made.Encode(e.Value); err != nil {
			return nil, err
		}
		made.LineComment = old.LineComment
		return made, nil
	}
	if old.Kind == yaml.SequenceNode {
		*made = *old
		made.Content = nil
	} else {
		made.Kind, made.Tag = yaml.SequenceNode, "!!seq"
	}
	for _, it := range e.List {
		if it.Old >= 0 {
			if it.Old >= len(old.Content) {
				return nil, errNotHere
			}
			made.Content = append(made.Content, old.Content[it.Old])
			continue
		}
		n := &yaml.Node{}
		if err := n.Encode(it.New); err != nil {
			return nil, err
		}
		made.Content = append(made.Content, n)
	}
	if len(made.Content) == 0 || len(old.Content) == 0 && len(made.Content) > 0 {
		made.Style = 0
	}
	return made, nil
}

// splice writes one entry of a mapping in block style anew, or adds it behind the others.
func splice(text []byte, parent, key, value *yaml.Node, inserted bool) ([]byte, error) {
	if parent == nil {
		return nil, errNotHere
	}
	lines := strings.SplitAfter(string(text), "\n")
	column := parent.Content[0].Column
	from, to := 0, 0
	if inserted {
		last := parent.Content[len(parent.Content)-4]
		_, to = span(lines, last, column)
		from = to
	} else {
		from, to = span(lines, key, column)
	}
	// What stands above and below an entry is not written with it.
	k := *key
	k.HeadComment, k.FootComment = "", ""
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	if err := enc.Encode(&yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Content: []*yaml.Node{&k, value}}); err != nil {
		return nil, err
	}
	if err := enc.Close(); err != nil {
		return nil, err
	}
	indent := strings.Repeat(" ", column-1)
	var b strings.Builder
	for _, l := range lines[:from] {
		b.WriteString(l)
	}
	if from > 0 && !strings.HasSuffix(lines[from-1], "\n") {
		b.WriteString("\n")
	}
	for l := range strings.Lines(out.String()) {
		if l != "\n" {
			b.WriteString(indent)
		}
		b.WriteString(l)
	}
	for _, l := range lines[to:] {
		b.WriteString(l)
	}
	return []byte(b.String()), nil
}

// span is where an entry of a mapping in block style stands: from its key to what is
// indented less, without what stands apart at its end.
func span(lines []string, key *yaml.Node, column int) (from, to int) {
	from = key.Line - 1
	to = from + 1
	for i := from + 1; i < len(lines); i++ {
		l := strings.TrimRight(lines[i], "\n")
		bare := strings.TrimLeft(l, " ")
		indent := len(l) - len(bare)
		belongs := indent >= column || indent == column-1 && strings.HasPrefix(bare, "- ") || indent == column-1 && strings.ContainsAny(bare[:min(1, len(bare))], "]}")
		switch {
		case bare == "", !belongs && indent == column-1 && bare[0] == '#':
			continue // it belongs to what follows
		case !belongs:
			return from, to
		}
		to = i + 1
	}
	return from, to
}

// unchangedBeside compares a text with the document that it should be.
func unchangedBeside(text []byte, doc *yaml.Node) error {
	want, err := yaml.Marshal(doc)
	var a, b any
	if err == nil {
		err = yaml.Unmarshal(want, &a)
	}
	if err == nil {
		err = yaml.Unmarshal(text, &b)
	}
	if err != nil || !reflect.DeepEqual(a, b) {
		return errNotHere
	}
	return nil
}
