package podman

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func frame(kind byte, data string) string {
	header := make([]byte, 8)
	header[0] = kind
	binary.BigEndian.PutUint32(header[4:], uint32(len(data)))
	return string(header) + data
}

func TestDemultiplex(t *testing.T) {
	in := frame(streamStdout, "out") + frame(streamStderr, "err") + frame(streamStdout, "") + frame(streamStdout, strings.Repeat("x", 200000))
	var out, errs bytes.Buffer
	if err := demultiplex(iotest.HalfReader(strings.NewReader(in)), &out, &errs); err != nil {
		t.Fatal(err)
	}
	if out.Len() != 200003 || errs.String() != "err" {
		t.Errorf("got %d bytes and %q", out.Len(), errs.String())
	}
	for name, in := range map[string]string{
		"a cut header": frame(1, "x")[:4], "cut data": frame(1, "xyz")[:9], "an unknown stream": frame(9, "x"), "the service's error": frame(streamError, "boom"),
	} {
		if err := demultiplex(strings.NewReader(in), nil, nil); err == nil {
			t.Errorf("%s: expected an error", name)
		}
	}
	err := demultiplex(strings.NewReader(in), failing{}, nil)
	if !errors.Is(err, errWrite) || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("expected the writer's error, marked as such, got %v", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestTheServicesWordsAreToldFromTheProcesss(t *testing.T) {
	for _, c := range []struct {
		name   string
		writes []string
		passed string
		held   string
	}{
		{"ordinary output", []string{"hello", " world"}, "hello world", ""},
		{"a beginning that is alike", []string{"Err", "atum"}, "Erratum", ""},
		{"the service's", []string{"Error: runc: ", "not found"}, "", "Error: runc: not found"},
		{"a lost input", []string{"a", "Error: read unixpacket @->/proc/self/fd/16/attach: read: connection reset by peer\n"}, "a", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			f := &firstWords{w: &b}
			for _, w := range c.writes {
				if n, err := f.Write([]byte(w)); err != nil || n != len(w) {
					t.Fatal(n, err)
				}
			}
			if b.String() != c.passed || string(f.held) != c.held {
				t.Errorf("expected %q and %q held, got %q and %q", c.passed, c.held, b.String(), f.held)
			}
			if err := f.flush(); err != nil || b.String() != c.passed+c.held {
				t.Errorf("after the flush: got %q, %v", b.String(), err)
			}
		})
	}
}

func TestAnArchiveWithoutItsEndIsAnError(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "x", Size: 3, Mode: 0o644}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for _, wrapper := range []func(io.Reader) io.Reader{iotest.OneByteReader, iotest.DataErrReader, func(r io.Reader) io.Reader { return r }} {
		if _, err := io.ReadAll(&wholeTar{r: io.NopCloser(wrapper(bytes.NewReader(b.Bytes())))}); err != nil {
			t.Errorf("a whole archive: %v", err)
		}
		if _, err := io.ReadAll(&wholeTar{r: io.NopCloser(wrapper(bytes.NewReader(b.Bytes()[:b.Len()-tarEnd])))}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("a cut one: expected ErrUnexpectedEOF, got %v", err)
		}
	}
}

func TestNamesFromTheRootBeginAtADot(t *testing.T) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range []tar.Header{{Name: "/", Typeflag: tar.TypeDir}, {Name: "/etc/x", Typeflag: tar.TypeReg}, {Name: "/etc/y", Typeflag: tar.TypeLink, Linkname: "/etc/x"}} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var names []string
	r := tar.NewReader(belowDot(io.NopCloser(&b)))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name+h.Linkname)
	}
	if got := strings.Join(names, " "); got != "./ ./etc/x ./etc/y./etc/x" {
		t.Errorf("got %q", got)
	}
}
