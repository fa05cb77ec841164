package deflate

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/zlib"
	"io"
	"strings"
	"testing"
)

func TestBothThatAreMeantAreRead(t *testing.T) {
	text := strings.Repeat("hello ", 1000)
	pack := func(w io.WriteCloser) {
		t.Helper()
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	var standard, bare bytes.Buffer
	pack(zlib.NewWriter(&standard))
	w, err := flate.NewWriter(&bare, flate.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	pack(w)
	for name, content := range map[string][]byte{"zlib": standard.Bytes(), "bare": bare.Bytes()} {
		src := bufio.NewReader(io.MultiReader(bytes.NewReader(content), strings.NewReader("rest")))
		r, err := NewReader(src)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != text {
			t.Errorf("%s: %.20q, %v", name, got, err)
		}
		if rest, err := io.ReadAll(src); err != nil || string(rest) != "rest" {
			t.Errorf("%s: what follows is %q, %v", name, rest, err)
		}
	}
	if _, err := io.ReadAll(must(NewReader(bufio.NewReader(strings.NewReader("\xff\xffnothing"))))); err == nil {
		t.Error("what is not compressed is read")
	}
}

func must(r io.Reader, err error) io.Reader {
	if err != nil {
		panic(err)
	}
	return r
}
