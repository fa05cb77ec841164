package change

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Dockerfiles that agents propose are built by whoever approves them, beside other people's
// images and caches, and by builders that read one text in different ways. So what is built
// is not the text but what [CanonicalDockerfile] makes of it: one instruction a line, without
// comments, directives, continuations and heredocs, in which each builder reads the same.
// In it there is nothing that reaches beyond the build: no mount, no flag of RUN, no download
// by the builder itself, no image that the Dockerfile in force does not name already.

// CanonicalDockerfile returns what is to be built of a Dockerfile that is proposed in place of
// another, or says what a build of a proposal does not get.
func CanonicalDockerfile(before, after string) (string, error) {
	switch {
	case len(after) > MaxDockerfile:
		return "", fmt.Errorf("the Dockerfile would have %d bytes, and %d are allowed", len(after), MaxDockerfile)
	case !utf8.ValidString(after) || strings.ContainsRune(after, 0):
		return "", errors.New("the Dockerfile is no valid UTF-8 text")
	}
	d := dockerfile{trusted: trustedOf(before), stages: map[string]bool{}}
	var out []instruction
	for n, in := range instructions(after) {
		if err := d.check(in); err != nil {
			return "", fmt.Errorf("line %d: %w", n, err)
		}
		if in.word != "#" {
			out = append(out, in)
		}
	}
	if d.count == 0 {
		return "", errors.New("the Dockerfile has no FROM instruction")
	}
	return lines(out), nil
}

// instruction is one of a Dockerfile.
type instruction struct {
	word string // in upper case; "#" is a directive
	rest string // without line breaks and blanks around it
	odd  string // why no build of a proposal takes it
}

// flat is the instruction in a form in which two that mean the same compare as equal.
func (i instruction) flat() string { return i.word + " " + strings.Join(strings.Fields(i.rest), " ") }

// trusted is what the Dockerfile in force has.
type trusted struct {
	lines  map[string]bool
	images map[string]bool // in FROM, --from
	// globals are the ARGs before the first FROM.
	globals []string
}

func trustedOf(text string) trusted {
	t := trusted{lines: map[string]bool{}, images: map[string]bool{}}
	from := false
	for _, in := range instructions(text) {
		t.lines[in.flat()] = true
		switch {
		case in.word == "FROM":
			from = true
			_, words := flagsOf(in.rest)
			if len(words) > 0 {
				t.images[words[0]] = true
			}
		case in.word == "COPY":
			flags, _ := flagsOf(in.rest)
			for _, f := range flags {
				if name, ok := strings.CutPrefix(f, "--from="); ok {
					t.images[name] = true
				}
			}
		case in.word == "ARG" && !from:
			t.globals = append(t.globals, in.flat())
		}
	}
	return t
}

type dockerfile struct {
	trusted
	stages  map[string]bool
	count   int // stages
	begun   []string
	options bool // the ARGs before the first FROM are those in force
}

// allowed are the instructions that need no look, or one of their own.
var allowed = []string{"ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "MAINTAINER", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR", "ADD", "LABEL"}

func (d *dockerfile) check(in instruction) error {
	known := d.lines[in.flat()]
	switch {
	case in.odd != "":
		return errors.New(in.odd)
	case in.word == "#":
		if known && !strings.HasPrefix(in.rest, "escape=") || in.rest == `escape=\` {
			return nil
		}
		return errors.New("a Dockerfile that is proposed cannot choose its own builder: leave the directive out (syntax, escape, check)")
	case in.word == "ONBUILD":
		return errors.New("ONBUILD is not built: write the instruction itself")
	case !slices.Contains(allowed, in.word):
		return fmt.Errorf("%q is no instruction that a build of a proposal knows", in.word)
	case in.rest == "":
		return fmt.Errorf("%s says nothing", in.word)
	case d.count == 0 && in.word != "FROM" && in.word != "ARG":
		return errors.New("there is no FROM before it")
	}
	switch in.word {
	case "ARG":
		if d.count == 0 {
			d.begun = append(d.begun, in.flat())
		}
	case "FROM":
		return d.from(in)
	case "RUN":
		if flags, _ := flagsOf(in.rest); len(flags) > 0 {
			return fmt.Errorf("%s: a build of a proposal gets no mounts, no privileges and no network of its choice: RUN takes no option", flags[0])
		}
	case "COPY":
		return d.copy(in)
	case "ADD":
		if !known || strings.ContainsAny(in.rest, `$\`) {
			return errors.New("an ADD that is not in the Dockerfile in force is not built: use COPY for files, and RUN for what is fetched")
		}
	case "LABEL":
		if !known || strings.ContainsRune(in.rest, '$') {
			return errors.New("a LABEL that is not in the Dockerfile in force is not built: leave it out")
		}
	}
	return nil
}

// from checks which image a stage is based on.
func (d *dockerfile) from(in instruction) error {
	flags, words := flagsOf(in.rest)
	if d.count == 0 {
		d.options = slices.Equal(d.begun, d.globals)
	}
	var name string
	switch {
	case len(flags) > 0 && !d.lines[in.flat()]:
		return fmt.Errorf("%s: FROM takes no option that the Dockerfile in force does not have", flags[0])
	case len(words) == 1:
	case len(words) == 3 && strings.EqualFold(words[1], "AS"):
		name = strings.ToLower(words[2])
	default:
		return errors.New("want FROM IMAGE, or FROM IMAGE AS NAME")
	}
	image := words[0]
	if err := d.image(image); err != nil {
		return err
	}
	if name != "" {
		d.stages[name] = true
	}
	d.count++
	return nil
}

// image checks the name of an image: a stage, nothing, or one that is in force.
func (d *dockerfile) image(name string) error {
	switch {
	case d.stages[strings.ToLower(name)], name == "scratch":
		return nil
	case !d.images[name]:
		return fmt.Errorf("the image %s is not one that the Dockerfile in force names: the engine would fetch it past the limits of this bottle, or take it from somebody else. Ask the operator to change the Dockerfile", name)
	case strings.ContainsRune(name, '$') && !d.options:
		return fmt.Errorf("the image %s depends on an ARG: those before the first FROM stay as they are", name)
	}
	return nil
}

// copy checks where files come from.
func (d *dockerfile) copy(in instruction) error {
	flags, _ := flagsOf(in.rest)
	for _, f := range flags {
		name, value, _ := strings.Cut(f, "=")
		switch name {
		case "--chown", "--chmod", "--link":
		case "--from":
			if n, err := strconv.Atoi(value); err == nil && n >= 0 && n < d.count {
				continue
			}
			if strings.ContainsRune(value, '$') {
				return errors.New("--from: a stage is named as it is, without variables")
			}
			if err := d.image(value); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%s: COPY takes --from, --chown, --chmod and --link", name)
		}
	}
	return nil
}

// flagsOf splits the options before the arguments of an instruction from them.
func flagsOf(rest string) (flags, words []string) {
	words = strings.Fields(rest)
	for len(words) > 0 && strings.HasPrefix(words[0], "--") {
		flags, words = append(flags, words[0]), words[1:]
	}
	return flags, words
}

// instructions yields the instructions with the lines that they begin in, continuations
// joined and comments left out. A directive is yielded as "#".
func instructions(text string) func(yield func(int, instruction) bool) {
	return func(yield func(int, instruction) bool) {
		directives := true
		begin, joined, open := 0, "", false
		give := func() bool { return yield(begin, instructionOf(joined)) }
		n := 0
		for line := range strings.Lines(strings.TrimPrefix(text, "\ufeff")) {
			n++
			line = strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r")
			bare := strings.TrimSpace(line)
			if comment, ok := strings.CutPrefix(bare, "#"); ok {
				name, value, is := strings.Cut(comment, "=")
				name = strings.ToLower(strings.TrimSpace(name))
				if is && directives && slices.Contains([]string{"syntax", "escape", "check"}, name) {
					if !yield(n, instruction{word: "#", rest: name + "=" + strings.TrimSpace(value)}) {
						return
					}
				} else {
					directives = false
				}
				continue
			}
			directives = false
			if bare == "" {
				continue // within an instruction, too
			}
			if !open {
				begin, joined = n, ""
				line = bare
			}
			line = strings.TrimRightFunc(line, unicode.IsSpace)
			var more string
			if more, open = strings.CutSuffix(line, `\`); open {
				line = more
			}
			joined += line
			if !open && !give() {
				return
			}
		}
		if open {
			give()
		}
	}
}

// instructionOf reads one joined line.
func instructionOf(line string) instruction {
	line = strings.TrimSpace(line)
	end := strings.IndexFunc(line, unicode.IsSpace)
	if end < 0 {
		end = len(line)
	}
	in := instruction{word: strings.ToUpper(line[:end]), rest: strings.TrimSpace(line[end:])}
	switch {
	case strings.IndexFunc(line, func(r rune) bool {
		return r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Zl, r) || unicode.Is(unicode.Zp, r))
	}) >= 0:
		in.odd = "there is a control character in it"
	case strings.HasSuffix(in.rest, `\`):
		in.odd = "it ends with a backslash"
	case (in.word == "RUN" || in.word == "COPY" || in.word == "ADD") && strings.Contains(in.rest, "<<"):
		in.odd = "a build of a proposal takes no heredoc, nor anything that looks like one (<<): use printf, or a file of the build context"
	}
	return in
}
