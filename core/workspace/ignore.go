package workspace

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
)

// pattern is one line of an ignore file.
type pattern struct {
	re      *regexp.Regexp
	include bool // the line began with "!"
	dirOnly bool // it ended with "/"
	base    bool // it is matched against the last element alone
}

// parsePatterns reads the lines of an ignore file. What cannot match anything
// (an unclosed bracket) is skipped, as git does.
func parsePatterns(text string) []pattern {
	var patterns []pattern
	for line := range strings.SplitSeq(strings.TrimPrefix(text, "\ufeff"), "\n") {
		if p, ok := parsePattern(strings.TrimSuffix(line, "\r")); ok {
			patterns = append(patterns, p)
		}
	}
	return patterns
}

func parsePattern(line string) (pattern, bool) {
	var p pattern
	if strings.HasPrefix(line, "#") {
		return p, false
	}
	line = trimBlanks(line)
	line, p.include = strings.CutPrefix(line, "!")
	line, p.dirOnly = strings.CutSuffix(line, "/")
	if line == "" {
		return p, false
	}
	p.base = !strings.Contains(line, "/")
	expr, ok := translate(strings.TrimPrefix(line, "/"), p.base)
	if !ok {
		return p, false
	}
	re, err := regexp.Compile(`(?s)\A` + expr + `\z`)
	p.re = re
	return p, err == nil
}

// trimBlanks drops blanks at the end that no backslash protects.
func trimBlanks(s string) string {
	for strings.HasSuffix(s, " ") && !escapedAt(s, len(s)-1) {
		s = s[:len(s)-1]
	}
	return s
}

// escapedAt reports whether an odd number of backslashes precede s[i].
func escapedAt(s string, i int) bool {
	n := 0
	for i > 0 && s[i-1] == '\\' {
		i, n = i-1, n+1
	}
	return n%2 == 1
}

// translate makes a regular expression of a glob; false means that the glob
// matches nothing.
func translate(glob string, base bool) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(glob); {
		rest := glob[i:]
		after := strings.TrimLeft(rest, "*")
		stars := len(rest) - len(after)
		// Two stars or more between slashes stand for any number of directories.
		deep := !base && stars >= 2 && (i == 0 || glob[i-1] == '/')
		switch c := glob[i]; {
		case deep && strings.HasPrefix(after, "/"):
			b.WriteString(`(?:.*/)?`)
			i += stars + 1
		case deep && after == "":
			b.WriteString(`.+`)
			i += stars
		case stars > 0:
			b.WriteString(`[^/]*`)
			i += stars
		case c == '?':
			b.WriteString(`[^/]`)
			i++
		case c == '[':
			class, n, ok := bracket(rest)
			if !ok {
				return "", false
			}
			b.WriteString(class)
			i += n
		case c == '\\':
			if i+1 == len(glob) {
				return "", false
			}
			b.WriteString(regexp.QuoteMeta(firstRune(glob[i+1:])))
			i += 1 + len(firstRune(glob[i+1:]))
		default:
			r := firstRune(rest)
			b.WriteString(regexp.QuoteMeta(r))
			i += len(r)
		}
	}
	return b.String(), true
}

func firstRune(s string) string {
	for i := range s {
		if i > 0 {
			return s[:i]
		}
	}
	return s
}

// posixClasses are the names that may stand in [[:name:]].
var posixClasses = map[string]bool{
	"alnum": true, "alpha": true, "blank": true, "cntrl": true, "digit": true, "graph": true,
	"lower": true, "print": true, "punct": true, "space": true, "upper": true, "xdigit": true,
}

// bracket translates a bracket expression at the start of s and returns its
// length.
func bracket(s string) (class string, n int, ok bool) {
	var b strings.Builder
	i := 1
	negated := i < len(s) && (s[i] == '!' || s[i] == '^')
	if negated {
		i++
	}
	// A slash is never matched by a bracket expression.
	empty := true
	for first := true; ; first = false {
		if i >= len(s) {
			return "", 0, false
		}
		if s[i] == ']' && !first {
			i++
			break
		}
		if name, found := strings.CutPrefix(s[i:], "[:"); found {
			name, _, closed := strings.Cut(name, ":]")
			if closed && posixClasses[name] {
				b.WriteString("[:" + name + ":]")
				i += len(name) + 4
				empty = false
				continue
			}
			if closed {
				return "", 0, false
			}
		}
		low, size, valid := bracketRune(s[i:])
		if !valid {
			return "", 0, false
		}
		i += size
		high := low
		if i+1 < len(s) && s[i] == '-' && s[i+1] != ']' {
			high, size, valid = bracketRune(s[i+1:])
			if !valid {
				return "", 0, false
			}
			i += 1 + size
		}
		if low > high {
			continue
		}
		empty = false
		b.WriteString(classRune(low) + "-" + classRune(high))
	}
	switch {
	case empty && negated:
		return `[^/]`, i, true
	case empty:
		return `[^\x00-\x{10FFFF}]`, i, true
	case negated:
		return `[^/` + b.String() + `]`, i, true
	}
	return withoutSlash(b.String()), i, true
}

// withoutSlash is the class of the given members except the slash.
func withoutSlash(members string) string {
	re := regexp.MustCompile(`\A[` + members + `]\z`)
	if !re.MatchString("/") {
		return `[` + members + `]`
	}
	// RE2 has no subtraction: cut the slash out of the complement's complement.
	var b strings.Builder
	b.WriteString(`[`)
	start := rune(-1)
	for r := rune(0); r <= 0x80; r++ {
		in := r < 0x80 && r != '/' && re.MatchString(string(r))
		switch {
		case in && start < 0:
			start = r
		case !in && start >= 0:
			b.WriteString(classRune(start) + "-" + classRune(r-1))
			start = -1
		}
	}
	if b.Len() == 1 {
		return `[^\x00-\x{10FFFF}]`
	}
	b.WriteString(`]`)
	return b.String()
}

func bracketRune(s string) (r rune, size int, ok bool) {
	if s != "" && s[0] == '\\' {
		if len(s) == 1 {
			return 0, 0, false
		}
		c := firstRune(s[1:])
		return []rune(c)[0], 1 + len(c), true
	}
	c := firstRune(s)
	if c == "" {
		return 0, 0, false
	}
	return []rune(c)[0], len(c), true
}

func classRune(r rune) string {
	const hex = "0123456789ABCDEF"
	out := ""
	for r > 0 || out == "" {
		out = string(hex[r%16]) + out
		r /= 16
	}
	return `\x{` + out + `}`
}

// rules are the patterns of one source, whose paths are relative to dir, itself
// relative to the workspace ("" for its root, ".." elements are put in prefix).
type rules struct {
	patterns []pattern
	// dir is the directory of the file below the workspace's root.
	dir string
	// prefix is the path of the workspace's root below the file's directory, for
	// a file above the workspace.
	prefix string
}

// match says what the rules make of a path: decided is false if nothing.
func (r rules) match(name string, isDir bool) (ignored, decided bool) {
	full := path.Join(r.prefix, name)
	if r.dir != "" {
		var below bool
		if full, below = strings.CutPrefix(name, r.dir+"/"); !below {
			return false, false
		}
	}
	for i := len(r.patterns) - 1; i >= 0; i-- {
		p := r.patterns[i]
		subject := full
		if p.base {
			subject = path.Base(full)
		}
		if (isDir || !p.dirOnly) && p.re.MatchString(subject) {
			return !p.include, true
		}
	}
	return false, false
}

// layer is a stack of rules of one kind; the last that decides wins.
type layer []rules

func (l layer) match(name string, isDir bool) (ignored, decided bool) {
	for i := len(l) - 1; i >= 0; i-- {
		if ignored, decided = l[i].match(name, isDir); decided {
			return ignored, true
		}
	}
	return false, false
}

// ignores decides for a whole workspace. The layers grow on the way down and
// are cut again on the way up.
type ignores struct {
	manifest, bottle, git layer
	useGit                bool
}

func (g *ignores) ignored(name string, isDir bool) bool {
	for _, l := range []layer{g.manifest, g.bottle} {
		if ignored, decided := l.match(name, isDir); decided {
			return ignored
		}
	}
	if path.Base(name) == ".git" {
		return false
	}
	ignored, _ := g.git.match(name, isDir)
	return ignored
}

// enter reads the ignore files of a directory; the function it returns forgets
// them again.
func (g *ignores) enter(root, dir string) (leave func(), err error) {
	bottle, git := len(g.bottle), len(g.git)
	g.bottle, err = readRules(g.bottle, filepath.Join(root, filepath.FromSlash(dir), ".bottleignore"), dir, "")
	if err == nil && g.useGit {
		g.git, err = readRules(g.git, filepath.Join(root, filepath.FromSlash(dir), ".gitignore"), dir, "")
	}
	return func() { g.bottle, g.git = g.bottle[:bottle], g.git[:git] }, err
}

// maxIgnoreFile bounds an ignore file, in bytes.
const maxIgnoreFile = 1 << 20

func readRules(l layer, file, dir, prefix string) (layer, error) {
	info, err := os.Lstat(file)
	// git reads no ignore file through a symbolic link either.
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errNotDir) || err == nil && !info.Mode().IsRegular() {
		return l, nil
	}
	if err == nil && info.Size() > maxIgnoreFile {
		return l, &fs.PathError{Op: "read", Path: file, Err: errors.New("the ignore file is larger than 1 MiB")}
	}
	if err != nil {
		return l, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return l, err
	}
	if dir == "." {
		dir = ""
	}
	return append(l, rules{patterns: parsePatterns(string(text)), dir: dir, prefix: prefix}), nil
}

// above reads what applies to the workspace from outside of it: the ignore files
// of the git work tree that it is in, and the repository's own excludes.
func (g *ignores) above(root string) error {
	top, gitDir := workTree(root)
	if top == "" {
		return nil
	}
	prefix, err := filepath.Rel(top, root)
	if err != nil {
		return err
	}
	prefix = filepath.ToSlash(prefix)
	if prefix == "." {
		prefix = ""
	}
	if g.git, err = readRules(g.git, filepath.Join(gitDir, "info", "exclude"), "", prefix); err != nil {
		return err
	}
	for at, rest := top, prefix; rest != ""; {
		if g.git, err = readRules(g.git, filepath.Join(at, ".gitignore"), "", rest); err != nil {
			return err
		}
		first, next, _ := strings.Cut(rest, "/")
		at, rest = filepath.Join(at, first), next
	}
	return nil
}

// workTree finds the git work tree that root is in, and its repository if that is
// a directory of its own; both are "" outside of one.
func workTree(root string) (top, gitDir string) {
	for at := root; ; {
		git := filepath.Join(at, ".git")
		if info, err := os.Lstat(git); err == nil {
			if !info.IsDir() {
				git = ""
			}
			return at, git
		}
		up := filepath.Dir(at)
		if up == at {
			return "", ""
		}
		at = up
	}
}
