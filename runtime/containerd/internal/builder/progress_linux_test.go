package builder

import (
	"bytes"
	"strings"
	"testing"
	"time"

	bkclient "github.com/moby/buildkit/client"
	"github.com/opencontainers/go-digest"
)

func TestALineIsMadeFitToBeShown(t *testing.T) {
	for in, want := range map[string]string{
		"plain\ttext":             "plain\ttext",
		"\x1b[1;31mred\x1b[0m":    "red",
		"\x1b]0;title\x07after":   "after",
		"\x1b]8;;http://x\x1b\\l": "l",
		"\x1bPq\x1b\\after":       "after",
		"\x1b(Bcharset":           "Bcharset",
		"10%\r20%\r":              "20%",
		"windows\r":               "windows",
		"bell\x07 \x00\x7f\x08":   "bell ",
		"c1 \u009b31m":            "c1 31m",
		"bidi \u202eabc":          "bidi abc",
		"grüße, 世界":               "grüße, 世界",
		"\x1b[":                   "",
		"\x1b":                    "",
		"\x1b]no end":             "",
		"bad \xff":                "bad \ufffd",
	} {
		if got := clean(in); got != want {
			t.Errorf("%q became %q, want %q", in, got, want)
		}
	}
}

func TestOutputIsCutIntoLines(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(&out)
	now := time.Now()
	p.update(&bkclient.SolveStatus{Vertexes: []*bkclient.Vertex{
		{Digest: "a", Name: "[1/2] RUN a", Started: &now}, {Digest: "b", Name: "[2/2] RUN b", Started: &now},
		{Digest: "c", Name: "[internal] load something", Started: &now, Completed: &now},
		{Digest: "d", Name: "[3/3] RUN d", Started: &now, Completed: &now, Cached: true},
	}})
	say := func(step digest.Digest, text string) {
		p.update(&bkclient.SolveStatus{Logs: []*bkclient.VertexLog{{Vertex: step, Data: []byte(text)}}})
	}
	say("a", "one\ntw")
	say("b", "other\n")
	say("a", "o\n\nunended")
	p.finish()
	want := "[1/2] RUN a\n[2/2] RUN b\n[3/3] RUN d (cached)\n[1/2] RUN a:\none\n[2/2] RUN b:\nother\n[1/2] RUN a:\ntwo\n\nunended\n"
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
	say("a", strings.Repeat("x", 3*lineBytes+1)+"\n")
	for line := range strings.Lines(out.String()) {
		if len(line) > lineBytes+1 {
			t.Errorf("a line of %d bytes", len(line))
		}
	}
	if _, tail, ok := p.step("a"); !ok || len(tail) != 1 {
		t.Errorf("tail of %d lines", len(tail))
	}
	if _, _, ok := p.step("c"); ok {
		t.Error("what is internal is a step")
	}
}
