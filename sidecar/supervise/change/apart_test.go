package change

import (
	"slices"
	"strings"
	"testing"
)

func TestADockerfileIsTakenApartByWhoWroteIt(t *testing.T) {
	const own = "# A comment.\nARG V=1\nFROM base:$V AS tools\nRUN make \\\n  all\nFROM base:$V\nARG X=2\nSHELL [\"/bin/a\"]\nSHELL [\"/bin/b\"]\nCMD run\nRUN fetch\n"
	for name, c := range map[string]struct {
		own, after string
		stages     []string
		rest       string
	}{
		"a line more": {
			own, own + "ENTRYPOINT [\"x\"]\n",
			[]string{
				"ARG V=1\nFROM base:$V AS tools\nRUN make   all\n",
				"ARG V=1\nFROM base:$V AS tools\nRUN make   all\nFROM base:$V\nARG X=2\nSHELL [\"/bin/a\"]\nSHELL [\"/bin/b\"]\nCMD run\nRUN fetch\n",
			},
			"ARG V=1\nFROM one AS tools\nFROM two\nARG X=2\nSHELL [\"/bin/b\"]\nCMD run\nENTRYPOINT [\"x\"]\n",
		},
		"another line": {
			"FROM base\nRUN fetch\nRUN old\nRUN rest\n", "FROM base\nRUN fetch\nRUN new\nRUN rest\n",
			[]string{"FROM base\nRUN fetch\n"}, "FROM one\nRUN new\nRUN rest\n",
		},
		"a line less":       {"FROM base\nRUN fetch\nRUN more\n", "FROM base\nRUN fetch\n", []string{"FROM base\nRUN fetch\n"}, "FROM one\n"},
		"a stage more":      {"FROM base\nARG A\nRUN fetch\n", "FROM base\nARG A\nRUN fetch\nFROM base\nRUN x\n", []string{"FROM base\nARG A\nRUN fetch\n"}, "FROM one\nFROM base\nRUN x\n"},
		"an option of FROM": {"FROM --platform=p base AS a\nRUN x\n", "FROM --platform=p base AS a\nRUN y\n", []string{"FROM --platform=p base AS a\n"}, "FROM one AS a\nRUN y\n"},
		"another beginning": {"FROM base\nRUN x\n", "FROM scratch\nRUN x\n", nil, "FROM scratch\nRUN x\n"},
		"another argument":  {"ARG A=1\nFROM base\nRUN x\n", "ARG A=2\nFROM base\nRUN x\n", nil, "ARG A=2\nFROM base\nRUN x\n"},
		"a heredoc":         {"FROM base\nRUN <<E\nx\nE\n", "FROM base\nRUN y\n", []string{"FROM base\n"}, "FROM one\nRUN y\n"},
		"another escape":    {"# escape=`\nFROM base\nRUN x\n", "FROM base\nRUN x\n", nil, "FROM base\nRUN x\n"},
		"a directive":       {"# syntax=docker/dockerfile:1\nFROM base\nRUN x\n", "FROM base\nRUN x\nRUN y\n", []string{"FROM base\nRUN x\n"}, "FROM one\nRUN y\n"},
	} {
		canonical, err := CanonicalDockerfile(c.own+"FROM scratch\n", c.after)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		stages, rest := Apart(c.own, canonical)
		if !slices.Equal(stages, c.stages) {
			t.Errorf("%s: stages %q, want %q", name, stages, c.stages)
		}
		if got := rest([]string{"one", "two"}[:len(stages)]); got != c.rest {
			t.Errorf("%s: rest\n%s\nwant\n%s", name, got, c.rest)
		}
	}
}

// FuzzApart: what is built as the operator's is a beginning of what the operator wrote,
// whatever an agent proposes.
func FuzzApart(f *testing.F) {
	f.Add("FROM a\nRUN x\n", "FROM a\nRUN x\nRUN y\n")
	f.Add("ARG A\nFROM a AS b\nFROM b\nCMD x\n", "ARG A\nFROM a AS b\nFROM b\nENTRYPOINT y\n")
	f.Fuzz(func(t *testing.T, own, after string) {
		canonical, err := CanonicalDockerfile(own, after)
		if err != nil {
			return
		}
		var whole strings.Builder
		for _, in := range instructions(own) {
			if in.word != "#" {
				whole.WriteString(in.word + " " + in.rest + "\n")
			}
		}
		stages, rest := Apart(own, canonical)
		images := make([]string, len(stages))
		for i, s := range stages {
			if images[i] = "image"; !strings.HasPrefix(whole.String(), s) || !strings.HasPrefix(canonical, s) {
				t.Fatalf("%q is not of %q", s, own)
			}
		}
		if _, err := CanonicalDockerfile(own+"\nFROM image\n"+canonical, rest(images)); err != nil && len(stages) > 0 && !strings.Contains(own, "$") {
			t.Fatalf("what is left cannot be built: %v: %q", err, rest(images))
		}
	})
}
