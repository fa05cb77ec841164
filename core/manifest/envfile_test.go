package manifest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEnvFiles(t *testing.T) {
	got, err := ParseEnvFile(".env", []byte("\ufeff# comment\r\n\nA=1\r\n  B = two words  # comment\nexport C='single $x \\n\n# more' # end\n"+
		`D="a\tb\"\\\$`+"\nnext\"\nE=\nF=#no\nG=a#b\nH=x=y\nexported=1\nA=last"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"A": "last", "B": "two words", "C": "single $x \\n\n# more", "D": "a\tb\"\\$\nnext",
		"E": "", "F": "", "G": "a#b", "H": "x=y", "exported": "1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestMistakesInEnvFilesAreNamedWithoutTheValue(t *testing.T) {
	for name, test := range map[string]struct{ text, want string }{
		"no assignment":            {"A=1\nhunter2\n", "f:2:1: want NAME=value: there is no = on the line"},
		"a bad name":               {"  hunter2-x=1\n", "f:1:3: what stands before = is no name of a variable: letters, digits and '_', not beginning with a digit"},
		"a name that is taken":     {"BOTTLE_PROMPT=1\n", "f:1:1: BOTTLE_PROMPT cannot be set: bottle sets it to the prompt's path"},
		"an open quote":            {"A=1\nB=\"hunter2\nC=3\n", "f:2:3: the quote that opens here is never closed"},
		"text after the quote":     {"A='x' hunter2\n", "f:1:7: only a comment may follow the closing quote"},
		"an unknown escape":        {`A="\x"` + "\n", `f:1:3: \x in double quotes is no escape: use \\, or single quotes`},
		"a NUL byte":               {"A=1\nB=\x00\n", "f:2: the file holds a NUL byte"},
		"something else than text": {"A=\xff\n", "f: the file is not UTF-8 text"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseEnvFile("f", []byte(test.text))
			if err == nil || err.Error() != test.want {
				t.Fatalf("got  %v\nwant %s", err, test.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Error("the error repeats a value")
			}
		})
	}
}

func FuzzParseEnvFile(f *testing.F) {
	f.Add("A=1\nexport B=\"x\\n\"\nC='y\nz'\n")
	f.Add("A=\"\\")
	f.Fuzz(func(t *testing.T, text string) {
		env, err := ParseEnvFile("f", []byte(text))
		if err == nil {
			for name := range env {
				if CheckEnvName(name) != nil {
					t.Errorf("%q passes as a name", name)
				}
			}
		}
	})
}
