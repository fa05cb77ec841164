package pktline

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestRead(t *testing.T) {
	r := NewReader(strings.NewReader("0009done\n00000001000200040007abcrest"))
	want := []struct {
		kind Kind
		text string
		raw  string
	}{{Data, "done", "0009done\n"}, {Flush, "", "0000"}, {Delim, "", "0001"}, {ResponseEnd, "", "0002"}, {Data, "", "0004"}, {Data, "abc", "0007abc"}}
	for i, w := range want {
		p, err := r.Next()
		if err != nil || p.Kind != w.kind || p.Text() != w.text || string(p.Raw) != w.raw {
			t.Errorf("packet %d: %+v, %v; want %+v", i, p, err, w)
		}
	}
	if rest, err := io.ReadAll(r.R); err != nil || string(rest) != "rest" {
		t.Errorf("what follows: %q, %v", rest, err)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
}

func TestMalformed(t *testing.T) {
	for in, want := range map[string]error{
		"0003": ErrMalformed, "00g0": ErrMalformed, "ffff": ErrMalformed, "fff1": ErrMalformed, " 123": ErrMalformed, "-001": ErrMalformed,
		"00": io.ErrUnexpectedEOF, "0009do": io.ErrUnexpectedEOF, "0005": io.ErrUnexpectedEOF,
	} {
		if _, err := NewReader(strings.NewReader(in)).Next(); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", in, err, want)
		}
	}
	if _, err := NewReader(strings.NewReader("fff0" + strings.Repeat("x", MaxData))).Next(); err != nil {
		t.Errorf("the longest packet: %v", err)
	}
}

func TestWrite(t *testing.T) {
	b := AppendFlush(AppendDelim(Append(AppendString(nil, "a\n"), []byte("bc"))))
	if string(b) != "0006a\n0006bc00010000" {
		t.Errorf("%q", b)
	}
	var out bytes.Buffer
	long := strings.Repeat("y", MaxData+10)
	if n, err := io.WriteString(Sideband(&out, BandProgress), long); n != len(long) || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	r, got := NewReader(&out), ""
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || p.Data[0] != BandProgress {
			t.Fatalf("%v, %v", p.Kind, err)
		}
		got += string(p.Data[1:])
	}
	if got != long {
		t.Errorf("%d bytes came through of %d", len(got), len(long))
	}
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{"0009done\n0000", "00000001", "0003", "ffff", "0004", "0032want 0123456789012345678901234567890123456789\n0000"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r := NewReader(bytes.NewReader(in))
		var again []byte
		for {
			p, err := r.Next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, ErrMalformed) {
					t.Fatalf("an error of no kind: %v", err)
				}
				break
			}
			switch p.Kind {
			case Data:
				again = Append(again, p.Data)
			case Flush:
				again = AppendFlush(again)
			case Delim:
				again = AppendDelim(again)
			case ResponseEnd:
				again = append(again, "0002"...)
			}
		}
		// Lengths may have been written in capitals: as many bytes, and the same but for case.
		if len(again) > len(in) || !bytes.EqualFold(again, in[:len(again)]) {
			t.Fatalf("%q was read as %q", in, again)
		}
	})
}
