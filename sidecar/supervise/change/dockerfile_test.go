package change

import (
	"strings"
	"testing"

	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

const inForce = `# syntax=docker/dockerfile:1
ARG VERSION=13
FROM debian:$VERSION AS base
FROM tools:1
ADD https://example.com/x /x
LABEL kept=1
COPY --from=other:2 /a /a
RUN --mount=type=cache,target=/c true
`

func TestADockerfileIsBuiltInOneFormThatAllBuildersReadAlike(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"comments, directives and continuations go": {
			"# syntax=docker/dockerfile:1\n# x\nARG VERSION=13\nfrom debian:$VERSION as b\nrun a \\\n# y\n\n  && b \\ \n && c\n",
			"ARG VERSION=13\nFROM debian:$VERSION as b\nRUN a   && b  && c\n",
		},
		"stages":                {"FROM tools:1 AS a\nFROM a\nCOPY --from=a --chown=1:1 / /\nCOPY --from=0 / /\nCOPY --from=other:2 /x /x\nFROM scratch", "FROM tools:1 AS a\nFROM a\nCOPY --from=a --chown=1:1 / /\nCOPY --from=0 / /\nCOPY --from=other:2 /x /x\nFROM scratch\n"},
		"what is there already": {"FROM tools:1\nADD  https://example.com/x /x\nLABEL kept=1\n", "FROM tools:1\nADD https://example.com/x /x\nLABEL kept=1\n"},
		"the end of a line":     {"\ufeffFROM tools:1\r\nRUN a\r\n", "FROM tools:1\nRUN a\n"},
	} {
		got, err := CanonicalDockerfile(inForce, tc.text)
		if err != nil || !strings.EqualFold(got, strings.ReplaceAll(tc.want, "ADD https", "ADD https")) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, tc.want)
		}
	}
}

func TestABuildOfAProposalReachesNothingBeyondItself(t *testing.T) {
	const from = "FROM tools:1\n"
	for text, says := range map[string]string{
		"": "no FROM", "\xff": "UTF-8", "FROM x\x00": "UTF-8", strings.Repeat("x", MaxDockerfile+1): "allowed",
		"RUN a\nFROM tools:1":                          "no FROM",
		"# syntax=evil/frontend\n" + from:              "syntax",
		"#check=skip=all\n" + from:                     "own builder",
		"# escape=`\n" + from:                          "escape",
		"FROM evil:1":                                  "engine would fetch it",
		"FROM localhost/bottle/other:1":                "somebody else",
		"FROM --platform=linux/arm64 tools:1":          "no option",
		"ARG VERSION=evil\nFROM debian:$VERSION":       "stay as they are",
		"ARG X\nARG VERSION=13\nFROM debian:$VERSION":  "stay as they are",
		"ARG I=evil\nFROM $I":                          "engine would fetch it",
		from + "COPY --from=evil:1 / /":                "engine would fetch it",
		from + "COPY --from=1 / /":                     "engine would fetch it",
		from + "COPY --from=$A / /":                    "without variables",
		from + "COPY --parents a /":                    "COPY takes",
		from + "RUN --mount=type=bind,from=evil true":  "no mounts",
		from + "RUN --mount=type=cache,target=/c true": "no mounts",
		from + "RUN --network=host true":               "no mounts",
		from + "RUN \\\n  --security=insecure true":    "no mounts",
		from + "ADD https://evil/ /":                   "use COPY",
		from + "ADD . /":                               "use COPY",
		from + "ONBUILD RUN x":                         "ONBUILD",
		from + "LABEL dev.bottle.launch=1":             "LABEL",
		from + "RUN <<EOF\nADD https://evil/ /\nEOF":   "heredoc",
		from + "COPY <<EOF /x\nEOF":                    "heredoc",
		from + "RUN a\vb":                              "control character",
		from + "RUN a \u2028ADD b":                     "control character",
		from + "RUN a \\":                              "",
		from + "RUN a \\\\":                            "backslash",
		from + "WHATEVER x":                            "no instruction",
		from + "RUN":                                   "says nothing",
		"FROM tools:1 AS":                              "want FROM",
		"FROM tools:1 AS a b":                          "want FROM",
	} {
		got, err := CanonicalDockerfile(inForce, text)
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%.60q: %q, %v; want %q", text, got, err, says)
		}
	}
}

// FuzzCanonicalDockerfile has another parser read what is to be built as it was meant.
func FuzzCanonicalDockerfile(f *testing.F) {
	for _, s := range []string{inForce, "FROM tools:1\nRUN a \\\n b\n#x\n", "FROM tools:1\nRUN [\"a\", \"b\"]\nENV a=b c=\"d e\"\n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		canonical, err := CanonicalDockerfile(inForce, text)
		if err != nil {
			return
		}
		again, err := CanonicalDockerfile(inForce, canonical)
		if err != nil || again != canonical {
			t.Fatalf("%q became %q, which becomes %q, %v", text, canonical, again, err)
		}
		read, err := parser.Parse(strings.NewReader(canonical))
		if err != nil {
			return // then it is not built either
		}
		lines := strings.Split(strings.TrimSuffix(canonical, "\n"), "\n")
		if len(read.AST.Children) != len(lines) {
			t.Fatalf("%q has %d instructions, and another parser reads %d", canonical, len(lines), len(read.AST.Children))
		}
		for i, n := range read.AST.Children {
			word, _, _ := strings.Cut(lines[i], " ")
			if !strings.EqualFold(n.Value, word) || len(n.Heredocs) > 0 || word == "RUN" && len(n.Flags) > 0 {
				t.Errorf("%q is read as %s %v", lines[i], n.Value, n.Flags)
			}
		}
	})
}
