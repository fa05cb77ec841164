package safetar

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

type entry = tar.Header

func archive(t testing.TB, entries ...entry) *bytes.Buffer {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		body := ""
		if e.Typeflag == tar.TypeReg {
			body = "content of " + e.Name
			e.Size = int64(len(body))
		}
		if err := w.WriteHeader(&e); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func names(r io.Reader) ([]string, error) {
	var out []string
	tr := tar.NewReader(r)
	for {
		hdr, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		out = append(out, hdr.Name)
	}
}

func TestRefusesWhatCouldEscape(t *testing.T) {
	link := entry{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/etc"}
	for name, entries := range map[string][]entry{
		"an absolute name":                     {{Name: "/etc/passwd", Typeflag: tar.TypeReg}},
		"a name that climbs":                   {{Name: "../x", Typeflag: tar.TypeReg}},
		"a name that climbs in the middle":     {{Name: "a/../../x", Typeflag: tar.TypeReg}},
		"a file below a link of the archive":   {link, {Name: "a/passwd", Typeflag: tar.TypeReg}},
		"a deep file below such a link":        {link, {Name: "a/b/c/d", Typeflag: tar.TypeReg}},
		"a link that became a directory since": {link, {Name: "a/", Typeflag: tar.TypeDir}, {Name: "a/x", Typeflag: tar.TypeReg}},
		"a hard link to an absolute name":      {{Name: "h", Typeflag: tar.TypeLink, Linkname: "/etc/shadow"}},
		"a hard link that climbs":              {{Name: "h", Typeflag: tar.TypeLink, Linkname: "../../etc/shadow"}},
		"a hard link to what is not in it":     {{Name: "h", Typeflag: tar.TypeLink, Linkname: "etc/shadow"}},
		"a hard link to a symbolic link":       {link, {Name: "h", Typeflag: tar.TypeLink, Linkname: "a"}},
		"a character device":                   {{Name: "null", Typeflag: tar.TypeChar}},
		"a block device":                       {{Name: "sda", Typeflag: tar.TypeBlock}},
		"a FIFO":                               {{Name: "pipe", Typeflag: tar.TypeFifo}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := names(Filter(archive(t, entries...), Into))
			var refused *Error
			if !errors.As(err, &refused) {
				t.Fatalf("got entries %q and error %v, want it refused", got, err)
			}
			if refused.Entry != entries[len(entries)-1].Name {
				t.Errorf("the error names %q, want %q", refused.Entry, entries[len(entries)-1].Name)
			}
		})
	}
}

func TestPassesOrdinaryArchives(t *testing.T) {
	in := archive(t,
		entry{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		entry{Name: "./d/", Typeflag: tar.TypeDir, Mode: 0o700},
		entry{Name: "./d/f", Typeflag: tar.TypeReg, Mode: 0o4755, Uid: 7, Gid: 8},
		entry{Name: "d/abs", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"},
		entry{Name: "d/h", Typeflag: tar.TypeLink, Linkname: "./d/f"},
		entry{Name: "..file", Typeflag: tar.TypeReg},
	)
	got, err := names(Filter(in, Into))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{".", "d/", "d/f", "d/abs", "d/h", "..file"}; !reflect.DeepEqual(got, want) {
		t.Fatalf("got %q, want %q", got, want)
	}
}

func TestKeepsOwnerModeTimesAndExtendedAttributes(t *testing.T) {
	in := archive(t, entry{Name: "f", Typeflag: tar.TypeReg, Mode: 0o6751, Uid: 1234, Gid: 70000,
		PAXRecords: map[string]string{"SCHILY.xattr.user.k": "v", "BOTTLE.other": "x"}})
	hdr, err := tar.NewReader(Filter(in, Into)).Next()
	if err != nil {
		t.Fatal(err)
	}
	if hdr.Mode != 0o6751 || hdr.Uid != 1234 || hdr.Gid != 70000 || hdr.PAXRecords["SCHILY.xattr.user.k"] != "v" {
		t.Fatalf("lost something: %+v", hdr)
	}
	if _, ok := hdr.PAXRecords["BOTTLE.other"]; ok {
		t.Fatal("an unknown record was passed on")
	}
}

func TestLeavesDevicesOutOfWhatComesFromAContainer(t *testing.T) {
	got, err := names(Filter(archive(t, entry{Name: "null", Typeflag: tar.TypeChar}, entry{Name: "f", Typeflag: tar.TypeReg}), OutOf))
	if err != nil || !reflect.DeepEqual(got, []string{"f"}) {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestGarbageAndATruncatedArchiveAreErrors(t *testing.T) {
	var refused *Error
	if _, err := names(Filter(strings.NewReader(strings.Repeat("garbage ", 200)), Into)); !errors.As(err, &refused) {
		t.Errorf("garbage gave %v", err)
	}
	whole := archive(t, entry{Name: "f", Typeflag: tar.TypeReg}).Bytes()
	if _, err := io.Copy(io.Discard, Filter(bytes.NewReader(whole[:520]), Into)); err == nil {
		t.Error("a truncated archive passed")
	}
}

func TestCloseEndsTheReader(t *testing.T) {
	r := Filter(archive(t, entry{Name: "f", Typeflag: tar.TypeReg}), Into)
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, io.ErrClosedPipe) {
		t.Fatalf("read after close: %v", err)
	}
}

// FuzzFilter checks that whatever passes holds no name that could escape.
func FuzzFilter(f *testing.F) {
	f.Add(archive(f, entry{Name: "a", Typeflag: tar.TypeSymlink, Linkname: "/"}, entry{Name: "b", Typeflag: tar.TypeReg}).Bytes())
	f.Add(archive(f, entry{Name: "h", Typeflag: tar.TypeLink, Linkname: "../x"}).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		tr := tar.NewReader(Filter(bytes.NewReader(data), Into))
		links := map[string]bool{}
		for {
			hdr, err := tr.Next()
			if err != nil {
				return
			}
			if strings.HasPrefix(hdr.Name, "/") || hdr.Name == ".." || strings.HasPrefix(hdr.Name, "../") || strings.Contains(hdr.Name, "/../") {
				t.Fatalf("passed the name %q", hdr.Name)
			}
			for l := range links {
				if strings.HasPrefix(hdr.Name, l+"/") && strings.TrimSuffix(hdr.Name, "/") != l {
					t.Fatalf("passed %q below the link %q", hdr.Name, l)
				}
			}
			if hdr.Typeflag == tar.TypeSymlink {
				links[hdr.Name] = true
			}
			if _, err := io.Copy(io.Discard, tr); err != nil {
				return
			}
		}
	})
}
