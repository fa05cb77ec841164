package change

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// checkDockerfile refuses early what no build of a proposed Dockerfile gets. Who builds
// it enforces that by itself: this reads instructions as far as it takes to say so to the
// agent at once.
func checkDockerfile(text string) error {
	switch {
	case len(text) > MaxDockerfile:
		return fmt.Errorf("the Dockerfile would have %d bytes, and %d are allowed", len(text), MaxDockerfile)
	case !utf8.ValidString(text) || strings.ContainsRune(text, 0):
		return errors.New("the Dockerfile is no valid UTF-8 text")
	}
	from := false
	for n, line := range instructions(text) {
		word, rest, _ := strings.Cut(line, " ")
		switch strings.ToUpper(word) {
		case "FROM":
			from = true
		case "RUN":
			if err := checkRun(rest); err != nil {
				return fmt.Errorf("line %d: %w", n, err)
			}
		case "ONBUILD":
			if next, args, _ := strings.Cut(strings.TrimSpace(rest), " "); strings.EqualFold(next, "RUN") {
				if err := checkRun(args); err != nil {
					return fmt.Errorf("line %d: %w", n, err)
				}
			}
		case "#":
			return fmt.Errorf("line %d: a Dockerfile that is proposed cannot choose its own builder: leave the syntax directive out", n)
		}
	}
	if !from {
		return errors.New("the Dockerfile has no FROM instruction")
	}
	return nil
}

func checkRun(args string) error {
	for word := range strings.FieldsSeq(args) {
		flag, ok := strings.CutPrefix(word, "--")
		if !ok {
			return nil
		}
		name, value, _ := strings.Cut(strings.ToLower(flag), "=")
		value = strings.Trim(value, `"'`)
		switch {
		case name == "mount" && (strings.Contains(value, "type=secret") || strings.Contains(value, "type=ssh")):
			return errors.New("a build gets no secrets and no ssh agent")
		case name == "security":
			return errors.New("a build gets no privileges: leave --security out")
		case name == "network" && value == "host":
			return errors.New("a build does not get the host's network")
		}
	}
	return nil
}

// instructions yields the instructions with the lines that they begin in, continuations
// joined. A syntax directive is yielded as "#".
func instructions(text string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		escape := `\`
		directives := true
		begin, joined, open := 0, "", false
		n := 0
		for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
			n++
			line = strings.TrimSpace(line)
			if comment, ok := strings.CutPrefix(line, "#"); ok {
				name, value, is := strings.Cut(comment, "=")
				switch strings.ToLower(strings.TrimSpace(name)) {
				case "syntax":
					if is && directives && !yield(n, "#") {
						return
					}
				case "escape":
					if v := strings.TrimSpace(value); is && directives && v == "`" {
						escape = v
					}
				default:
					directives = directives && is
				}
				continue
			}
			directives = false
			if line == "" {
				continue
			}
			if !open {
				begin, joined = n, ""
			}
			line, open = strings.CutSuffix(line, escape)
			joined += line + " "
			if !open && !yield(begin, strings.Join(strings.Fields(joined), " ")) {
				return
			}
		}
		if open {
			yield(begin, strings.Join(strings.Fields(joined), " "))
		}
	}
}
