package gitgate

import (
	"strings"
)

// checkModules says what is wrong with a .gitmodules, and at which line; "" if nothing is. A
// file that git would read in another way than is looked for here is not refused for that:
// git checks, too, but old ones did not.
func checkModules(text string) (line int, what string) {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	for number := 1; text != ""; {
		logical, rest := logicalLine(text)
		if what := checkModuleLine(logical); what != "" {
			return number, what
		}
		number += strings.Count(text[:len(text)-len(rest)], "\n")
		text = rest
	}
	return 0, ""
}

// logicalLine returns a line with those that continue it.
func logicalLine(text string) (line, rest string) {
	var b strings.Builder
	for {
		part, after, ok := strings.Cut(text, "\n")
		if !ok || !strings.HasSuffix(part, `\`) {
			b.WriteString(part)
			return b.String(), after
		}
		b.WriteString(part[:len(part)-1])
		text = after
	}
}

// checkModuleLine looks at a line, which may hold the head of a section and a variable.
func checkModuleLine(line string) string {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "[") {
		head, after := sectionHead(line)
		if strings.HasPrefix(head, "/") || strings.HasSuffix("/"+head, "/..") || strings.Contains("/"+head, "/../") || strings.Contains(head, `\`) {
			return "the name of a submodule leads out of its directory (CVE-2018-11235)"
		}
		line = strings.TrimSpace(after)
	}
	name, value, ok := strings.Cut(line, "=")
	if !ok {
		return ""
	}
	value = configValue(value)
	switch strings.ToLower(strings.TrimSpace(name)) {
	case "url":
		return checkModuleURL(value)
	case "path":
		if strings.HasPrefix(value, "-") {
			return "the path of a submodule begins with a dash (CVE-2018-17456)"
		}
	case "update":
		if strings.HasPrefix(value, "!") {
			return "a submodule is to be updated by a command (CVE-2019-19604)"
		}
	}
	return ""
}

// sectionHead returns the name in [submodule "NAME"], and what follows it.
func sectionHead(line string) (name, after string) {
	_, quoted, ok := strings.Cut(line, `"`)
	if !ok {
		_, after, _ = strings.Cut(line, "]")
		return "", after
	}
	var b strings.Builder
	for i := 0; i < len(quoted); i++ {
		switch quoted[i] {
		case '\\':
			if i++; i < len(quoted) {
				b.WriteByte(quoted[i])
			}
		case '"':
			_, after, _ = strings.Cut(quoted[i:], "]")
			return b.String(), after
		default:
			b.WriteByte(quoted[i])
		}
	}
	return b.String(), ""
}

// configValue undoes the quotes of a value, and leaves out what is a comment.
func configValue(s string) string {
	var b strings.Builder
	quoted := false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && i+1 < len(s):
			i++
			switch s[i] {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'b':
				b.WriteByte('\b')
			default:
				b.WriteByte(s[i])
			}
		case !quoted && (c == '#' || c == ';'):
			return strings.TrimSpace(b.String())
		default:
			b.WriteByte(c)
		}
	}
	return strings.TrimSpace(b.String())
}

func checkModuleURL(url string) string {
	if strings.ContainsFunc(url, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "the URL of a submodule holds a control character (CVE-2020-5260)"
	}
	if strings.HasPrefix(url, "-") {
		return "the URL of a submodule begins with a dash (CVE-2018-17456)"
	}
	if helper, _, ok := strings.Cut(url, "::"); ok && helper != "" && !strings.ContainsAny(helper, "/:@[") {
		return "the URL of a submodule runs a helper (" + clip(printable(helper), 40) + "::)"
	}
	_, rest, ok := strings.Cut(url, "://")
	if !ok {
		return ""
	}
	authority, _, _ := strings.Cut(rest, "/")
	user, _, ok := cutLast(authority, "@")
	if _, password, has := strings.Cut(user, ":"); ok && has && password != "" {
		return "the URL of a submodule holds a password"
	}
	if ok && strings.Contains(strings.ToLower(user), "%0a") {
		return "the URL of a submodule holds a line break (CVE-2020-5260)"
	}
	return ""
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
