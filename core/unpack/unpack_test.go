package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func archive(t *testing.T, headers ...tar.Header) io.Reader {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range headers {
		content := h.PAXRecords["content"]
		h.PAXRecords = nil
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.Size == 0 {
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil && !strings.Contains(err.Error(), "missed writing") {
		t.Fatal(err)
	}
	return &b
}

func file(name, content string) tar.Header {
	return tar.Header{Name: name, PAXRecords: map[string]string{"content": content}}
}
func dir(name string, mode int64) tar.Header {
	return tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode}
}
func symlink(name, target string) tar.Header {
	return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}
}

// extract lays an archive down as "out" in the directory "in" of a new place, that
// holds a file "secret" beside it.
func extract(t *testing.T, plant func(in string), headers ...tar.Header) (in string, r Result, err error) {
	t.Helper()
	place := t.TempDir()
	in = filepath.Join(place, "in")
	must(t, os.Mkdir(in, 0o755))
	must(t, os.WriteFile(filepath.Join(place, "secret"), []byte("secret"), 0o644))
	if plant != nil {
		plant(in)
	}
	root, err := os.OpenRoot(in)
	must(t, err)
	defer func() { must(t, root.Close()) }()
	r, err = Extract(t.Context(), archive(t, headers...), root, "out", Options{MaxBytes: 1000, MaxEntries: 20})
	if got, readErr := os.ReadFile(filepath.Join(place, "secret")); readErr != nil || string(got) != "secret" {
		t.Errorf("the file outside is %q, %v", got, readErr)
	}
	if list, _ := os.ReadDir(place); len(list) != 2 {
		t.Errorf("files outside of the destination: %v", list)
	}
	return in, r, err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestATreeIsLaidDownUnderItsNewName(t *testing.T) {
	in, r, err := extract(t, nil,
		dir("src", 0o500), file("src/a", "one"), dir("src/sub", 0o755), tar.Header{Name: "src/sub/x", Mode: 0o4755},
		symlink("src/sub/up", "../a"), tar.Header{Typeflag: tar.TypeLink, Name: "src/hard", Linkname: "src/a"},
		tar.Header{Typeflag: tar.TypeFifo, Name: "src/fifo"}, dir("src/.git", 0o755),
	)
	must(t, err)
	if r.Files != 3 || r.Bytes != 3 || len(r.Notes) != 2 || !strings.Contains(r.Notes[1], "hooks") {
		t.Errorf("%+v", r)
	}
	if got, err := os.ReadFile(filepath.Join(in, "out/sub/up")); err != nil || string(got) != "one" {
		t.Errorf("through the link: %q, %v", got, err)
	}
	if info, err := os.Stat(filepath.Join(in, "out/sub/x")); err != nil || info.Mode() != 0o755 {
		t.Errorf("a set-user-ID file is %v, %v", info.Mode(), err)
	}
	if info, err := os.Stat(filepath.Join(in, "out")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory is %v, %v", info.Mode(), err)
	}
	a, errA := os.Stat(filepath.Join(in, "out/a"))
	b, errB := os.Stat(filepath.Join(in, "out/hard"))
	if errA != nil || errB != nil || !os.SameFile(a, b) {
		t.Error("the hard link is none")
	}
}

func TestNothingLeadsOut(t *testing.T) {
	linkTo := func(name, target string) func(string) {
		return func(in string) { must(t, os.Symlink(target, filepath.Join(in, name))) }
	}
	for name, test := range map[string]struct {
		plant   func(string)
		headers []tar.Header
		fails   bool
		noted   string
	}{
		"dots":                               {nil, []tar.Header{file("src/../../secret", "x")}, true, ""},
		"an absolute name":                   {nil, []tar.Header{file("/secret", "x")}, true, ""},
		"dots as the name":                   {nil, []tar.Header{file("../secret", "x")}, true, ""},
		"an absolute link":                   {nil, []tar.Header{dir("s", 0o755), symlink("s/l", "/etc/passwd")}, false, "/etc/passwd"},
		"a link that climbs out":             {nil, []tar.Header{dir("s", 0o755), symlink("s/l", "../../secret")}, false, "secret"},
		"a link to the copy's neighbours":    {nil, []tar.Header{dir("s", 0o755), symlink("s/l", "../x")}, false, "out of the copy"},
		"a link that climbs by another":      {nil, []tar.Header{dir("s/a/b", 0o755), symlink("s/d", "a/b"), symlink("s/l", "d/../../../secret")}, false, "out of the copy"},
		"the copy itself as a link":          {nil, []tar.Header{symlink("s", "../secret")}, false, "out of the copy"},
		"a file below a link of the archive": {nil, []tar.Header{dir("s", 0o755), symlink("s/l", "../.."), file("s/l/secret", "x")}, false, "out of the copy"},
		"a link, then a file of its name":    {nil, []tar.Header{dir("s", 0o755), symlink("s/l", "../../secret"), file("s/l", "x")}, false, "out of the copy"},
		"a hard link to elsewhere":           {nil, []tar.Header{dir("s", 0o755), {Typeflag: tar.TypeLink, Name: "s/h", Linkname: "s/../../secret"}}, true, ""},
		"a hard link to what was there":      {func(in string) { must(t, os.WriteFile(filepath.Join(in, "out"), nil, 0o600)) }, []tar.Header{{Typeflag: tar.TypeLink, Name: "s/h", Linkname: "s"}}, false, "not part of the copy"},
		"a file where a link was":            {linkTo("out", "../secret"), []tar.Header{file("s", "x")}, false, ""},
		"a directory where a link was":       {linkTo("out", ".."), []tar.Header{dir("s", 0o755), file("s/secret", "x")}, false, ""},
		"a device":                           {nil, []tar.Header{{Typeflag: tar.TypeChar, Name: "s", Devmajor: 1, Devminor: 3}}, false, "neither a file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, r, err := extract(t, test.plant, test.headers...)
			if (err != nil) != test.fails {
				t.Errorf("error: %v", err)
			}
			if test.noted != "" && !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, test.noted) }) {
				t.Errorf("notes: %q", r.Notes)
			}
		})
	}
}

func TestBoundsHold(t *testing.T) {
	if _, _, err := extract(t, nil, file("s", strings.Repeat("x", 1001))); err == nil {
		t.Error("more bytes than allowed")
	}
	many := []tar.Header{dir("s", 0o755)}
	for i := range 20 {
		many = append(many, file("s/"+string(rune('a'+i)), ""))
	}
	if _, _, err := extract(t, nil, many...); err == nil {
		t.Error("more files than allowed")
	}
	if _, _, err := extract(t, nil); err == nil {
		t.Error("an empty archive")
	}
	root, err := os.OpenRoot(t.TempDir())
	must(t, err)
	defer func() { must(t, root.Close()) }()
	for _, name := range []string{"", ".", "..", "a/b", "/a"} {
		if _, err := Extract(t.Context(), archive(t, file("s", "")), root, name, Options{}); err == nil {
			t.Errorf("%q passes as a name", name)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(io.ErrClosedPipe)
	if _, err := Extract(ctx, archive(t, file("s", "")), root, "a", Options{}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("a cancelled copy: %v", err)
	}
}

func FuzzExtract(f *testing.F) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "s/l", Linkname: "../.."})
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "s/l/x", Size: 1})
	_, _ = w.Write([]byte("x"))
	_ = w.Close()
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		place := t.TempDir()
		in := filepath.Join(place, "in")
		must(t, os.Mkdir(in, 0o755))
		root, err := os.OpenRoot(in)
		must(t, err)
		defer func() { must(t, root.Close()) }()
		_, _ = Extract(t.Context(), bytes.NewReader(data), root, "out", Options{MaxBytes: 1 << 20, MaxEntries: 100})
		if list, _ := os.ReadDir(place); len(list) != 1 {
			t.Errorf("outside: %v", list)
		}
		list, _ := os.ReadDir(in)
		for _, e := range list {
			if e.Name() != "out" {
				t.Errorf("beside the copy: %s", e.Name())
			}
		}
	})
}
