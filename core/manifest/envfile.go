package manifest

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"
)

// ParseEnvFile reads lines of NAME=value:
//
//   - Blank lines, and lines whose first character is #, are skipped. "export "
//     before a name is allowed. Blanks around the name and the value are dropped.
//   - An unquoted value ends at the line's end or at a # after a blank.
//   - A value in single quotes is taken as it is, over several lines too.
//   - A value in double quotes may span lines; \n \r \t \" \\ \$ are escapes, and
//     any other escape is an error. After the closing quote only a comment may
//     follow.
//   - Nothing is expanded: $HOME is five characters.
//   - A name given twice has the later value.
//
// Errors are as those of [Parse]. No error holds a value.
func ParseEnvFile(file string, data []byte) (map[string]string, error) {
	p := &envParser{errorList: errorList{file: file}, rest: strings.TrimPrefix(string(data), "\ufeff"), line: 1, column: 1}
	if !utf8.Valid(data) {
		p.add(Position{}, "the file is not UTF-8 text")
		return nil, p.err()
	}
	if i := strings.IndexByte(p.rest, 0); i >= 0 {
		p.add(Position{Line: 1 + strings.Count(p.rest[:i], "\n")}, "the file holds a NUL byte")
		return nil, p.err()
	}
	env := map[string]string{}
	for p.rest != "" {
		p.assignment(env)
	}
	if err := p.err(); err != nil {
		return nil, err
	}
	return env, nil
}

// LoadEnvFile reads the file at path as [ParseEnvFile] does.
func LoadEnvFile(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, &Error{File: path, Msg: "the env file cannot be read: " + reason(err)}
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, &Error{File: path, Msg: "the env file cannot be read: " + reason(err)}
	}
	if len(data) > maxBytes {
		return nil, &Error{File: path, Msg: "the env file is larger than 1 MiB"}
	}
	return ParseEnvFile(path, data)
}

type envParser struct {
	errorList
	rest         string
	line, column int
}

func (p *envParser) at() Position { return Position{Line: p.line, Column: p.column} }

// take consumes n bytes.
func (p *envParser) take(n int) string {
	s := p.rest[:n]
	p.rest = p.rest[n:]
	last := s
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		p.line += strings.Count(s, "\n")
		p.column = 1
		last = s[i+1:]
	}
	p.column += utf8.RuneCountInString(last)
	return s
}

func (p *envParser) blanks() {
	p.take(len(p.rest) - len(strings.TrimLeft(p.rest, " \t\r")))
}

// lineEnd consumes up to and including the newline and returns what came before.
func (p *envParser) lineEnd() string {
	i := strings.IndexByte(p.rest, '\n')
	if i < 0 {
		return p.take(len(p.rest))
	}
	return strings.TrimSuffix(p.take(i+1), "\n")
}

func (p *envParser) assignment(env map[string]string) {
	p.blanks()
	if p.rest == "" || p.rest[0] == '#' || p.rest[0] == '\n' {
		p.lineEnd()
		return
	}
	if after, ok := strings.CutPrefix(p.rest, "export"); ok && after != strings.TrimLeft(after, " \t") {
		p.take(len("export"))
		p.blanks()
	}
	start := p.at()
	end := strings.IndexAny(p.rest, "=\n")
	if end < 0 || p.rest[end] == '\n' {
		p.lineEnd()
		p.add(start, "want NAME=value: there is no = on the line")
		return
	}
	name := strings.TrimRight(p.take(end), " \t")
	p.take(1)
	if msg := checkEnvName(name); msg != "" {
		// What stands before the = is no value, yet may be one if the line is
		// broken: it is not repeated.
		if !envPattern.MatchString(name) {
			msg = "what stands before = is no name of a variable: letters, digits and '_', not beginning with a digit"
		}
		p.add(start, "%s", msg)
	}
	p.blanks()
	value, ok := p.value()
	if ok {
		env[name] = value
	}
}

func (p *envParser) value() (string, bool) {
	if p.rest == "" {
		return "", true
	}
	quote := p.rest[0]
	if quote != '"' && quote != '\'' {
		line := p.lineEnd()
		for i := range line {
			if line[i] == '#' && (i == 0 || line[i-1] == ' ' || line[i-1] == '\t') {
				line = line[:i]
				break
			}
		}
		return strings.TrimRight(line, " \t\r"), true
	}
	start := p.at()
	p.take(1)
	value, err := p.quoted(quote)
	if err != "" {
		p.add(start, "%s", err)
		p.lineEnd()
		return "", false
	}
	p.blanks()
	end := p.at()
	if tail := strings.TrimSpace(p.lineEnd()); tail != "" && tail[0] != '#' {
		p.add(end, "only a comment may follow the closing quote")
		return "", false
	}
	return value, true
}

var envEscapes = map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', '"': '"', '\\': '\\', '$': '$'}

func (p *envParser) quoted(quote byte) (value, err string) {
	var b strings.Builder
	for i := 0; i < len(p.rest); i++ {
		c := p.rest[i]
		switch {
		case c == quote:
			p.take(i + 1)
			return b.String(), ""
		case c == '\\' && quote == '"':
			i++
			if i >= len(p.rest) {
				break
			}
			plain, ok := envEscapes[p.rest[i]]
			if !ok {
				return "", fmt.Sprintf(`\%c in double quotes is no escape: use \\, or single quotes`, p.rest[i])
			}
			b.WriteByte(plain)
		default:
			b.WriteByte(c)
		}
	}
	// Nothing after an open quote can be told from the value.
	p.take(len(p.rest))
	return "", "the quote that opens here is never closed"
}
