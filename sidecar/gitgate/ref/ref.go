// Package ref knows the names of git's references: which are well formed, and which a
// pattern means.
package ref

import (
	"fmt"
	"strings"
)

// maxName is the longest name that is taken, in bytes: what a file name may be on the
// servers that keep one file a reference.
const maxName = 255

// Where references of a kind live.
const (
	Branches = "refs/heads/"
	Tags     = "refs/tags/"
	Notes    = "refs/notes/"
)

// Check says whether a full name is well formed: by git-check-ref-format, below refs/,
// and with no component that a command could take for an option.
func Check(name string) error {
	bad := func(why string) error { return fmt.Errorf("%q is no name of a reference: %s", clip(name), why) }
	switch {
	case !strings.HasPrefix(name, "refs/"):
		return bad("it is not below refs/")
	case strings.Count(name, "/") < 2:
		return bad("it has no part after refs/KIND/")
	case len(name) > maxName:
		return bad(fmt.Sprintf("it is longer than %d bytes", maxName))
	case strings.Contains(name, ".."):
		return bad("it holds two dots")
	case strings.Contains(name, "@{"):
		return bad("it holds @{")
	case strings.HasSuffix(name, "."):
		return bad("it ends in a dot")
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c == 0x7f || strings.IndexByte(`~^:?*[\`, c) >= 0 {
			return bad(fmt.Sprintf("it holds the character %q", c))
		}
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "":
			return bad("it has an empty part")
		case part[0] == '.':
			return bad("a part of it begins with a dot")
		case part[0] == '-':
			return bad("a part of it begins with a dash")
		case strings.HasSuffix(part, ".lock"):
			return bad("a part of it ends in .lock")
		}
	}
	return nil
}

func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}

// Pattern means names: * stands for any characters but a slash, ** for any.
type Pattern struct {
	text  string
	parts []string // what stands between the wildcards
	deep  []bool   // whether the wildcard after a part crosses slashes
}

// ParsePattern reads a pattern of what follows refs/heads/, say.
func ParsePattern(s string) (Pattern, error) {
	if strings.HasPrefix(s, "refs/") {
		return Pattern{}, fmt.Errorf("pattern %q: give the name as branches and tags have it, without refs/", s)
	}
	if strings.Contains(s, "***") {
		return Pattern{}, fmt.Errorf("pattern %q: more than two asterisks stand together", s)
	}
	if err := Check("refs/x/" + strings.ReplaceAll(strings.ReplaceAll(s, "**", "x"), "*", "x")); err != nil {
		return Pattern{}, fmt.Errorf("pattern %q can match no name: %w", s, err)
	}
	p := Pattern{text: s}
	for {
		before, after, ok := strings.Cut(s, "*")
		p.parts = append(p.parts, before)
		if !ok {
			return p, nil
		}
		s, ok = strings.CutPrefix(after, "*")
		p.deep = append(p.deep, ok)
	}
}

// String returns the pattern as it was written.
func (p Pattern) String() string { return p.text }

// Match reports whether a name is meant.
func (p Pattern) Match(name string) bool {
	if !strings.HasPrefix(name, p.parts[0]) {
		return false
	}
	// at holds where the wildcards so far may end: the work is bounded by the length of the
	// name times that of the pattern.
	at := map[int]bool{len(p.parts[0]): true}
	for i, deep := range p.deep {
		next := map[int]bool{}
		for start := range at {
			for end := start; end <= len(name); end++ {
				if strings.HasPrefix(name[end:], p.parts[i+1]) {
					next[end+len(p.parts[i+1])] = true
				}
				if end < len(name) && name[end] == '/' && !deep {
					break
				}
			}
		}
		at = next
	}
	return at[len(name)]
}
