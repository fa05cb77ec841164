package safetar

import (
	"archive/tar"
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestAnArchiveWithoutEntriesIsEmpty(t *testing.T) {
	made := func(names ...string) []byte {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		for _, name := range names {
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for name, tc := range map[string]struct {
		r    io.Reader
		want bool
	}{
		"no entry":               {bytes.NewReader(made()), true},
		"no entry, byte by byte": {iotest.OneByteReader(bytes.NewReader(made())), true},
		"an entry":               {bytes.NewReader(made("a")), false},
		"no archive":             {strings.NewReader("text"), false},
		"nothing at all":         {strings.NewReader(""), false},
		"a reader that fails":    {iotest.ErrReader(errors.New("no")), false},
	} {
		r := bufio.NewReader(tc.r)
		if got := Empty(r); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	r := bufio.NewReader(bytes.NewReader(made("a")))
	if Empty(r); r != nil {
		if h, err := tar.NewReader(r).Next(); err != nil || h.Name != "a" {
			t.Errorf("what was looked at is missing: %v", err)
		}
	}
}
