package imagecache

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWhatIsKeptIsFoundAgain(t *testing.T) {
	c := New(filepath.Join(t.TempDir(), "images"))
	key := Key{Engine: "fake 1", Image: "sha256:1", Spec: []string{"user", "a"}}
	e := c.Load(key)
	if _, _, known := e.Archive("/etc/passwd"); known {
		t.Fatal("known before it was read")
	}
	check(t, e.Save())
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Errorf("nothing to keep, and there is a directory: %v", err)
	}
	e.Keep("/etc/passwd", []byte("archive"))
	e.Absent("/etc/pki")
	e.NoteDir("/home/a", true)
	e.NoteDir("/work", false)
	check(t, e.Save())

	again := c.Load(key)
	if data, there, known := again.Archive("/etc/passwd"); string(data) != "archive" || !there || !known {
		t.Errorf("%q, %v, %v", data, there, known)
	}
	if data, there, known := again.Archive("/etc/pki"); data != nil || there || !known {
		t.Errorf("absent: %q, %v, %v", data, there, known)
	}
	for dir, want := range map[string][2]bool{"/home/a": {true, true}, "/work": {false, true}, "/x": {false, false}} {
		if there, known := again.Dir(dir); [2]bool{there, known} != want {
			t.Errorf("%s: %v, %v", dir, there, known)
		}
	}
	for _, other := range []Key{
		{Engine: "fake 2", Image: "sha256:1", Spec: []string{"user", "a"}}, {Engine: "fake 1", Image: "sha256:2", Spec: []string{"user", "a"}},
		{Engine: "fake 1", Image: "sha256:1", Spec: []string{"usera"}}, {Engine: "fake 1", Image: "sha256:1"},
	} {
		if _, _, known := c.Load(other).Archive("/etc/passwd"); known {
			t.Errorf("%+v is another", other)
		}
	}
	info, err := os.Stat(filepath.Join(c.dir, key.name()))
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

func TestWhatIsDamagedIsNotBelieved(t *testing.T) {
	c := New(t.TempDir())
	key := Key{Image: "sha256:1"}
	e := c.Load(key)
	e.Keep("/etc/passwd", bytes.Repeat([]byte("x"), 1000))
	check(t, e.Save())
	path := filepath.Join(c.dir, key.name())
	whole, err := os.ReadFile(path)
	check(t, err)
	flipped := bytes.Clone(whole)
	flipped[len(flipped)/2] ^= 1
	for what, data := range map[string][]byte{"empty": nil, "cut short": whole[:len(whole)-1], "changed": flipped, "no sum": whole[:10]} {
		check(t, os.WriteFile(path, data, 0o600))
		if _, _, known := c.Load(key).Archive("/etc/passwd"); known {
			t.Errorf("%s: believed", what)
		}
	}
	check(t, os.Remove(path))
	check(t, os.Mkdir(path, 0o700))
	if _, _, known := c.Load(key).Archive("/etc/passwd"); known {
		t.Error("a directory was read")
	}
}

func TestItStaysSmall(t *testing.T) {
	c := New(t.TempDir())
	e := c.Load(Key{Image: "sha256:1"})
	e.Keep("/big", make([]byte, MaxEntry))
	if _, _, known := e.Archive("/big"); known {
		t.Error("more than the limit is kept")
	}
	old := time.Now().Add(-2 * unfinished)
	stale, fresh := filepath.Join(c.dir, "new-1"), filepath.Join(c.dir, "new-2")
	for _, f := range []string{stale, fresh} {
		check(t, os.WriteFile(f, nil, 0o600))
	}
	check(t, os.Chtimes(stale, old, old))
	for i := range maxEntries + 2 {
		e := c.Load(Key{Image: fmt.Sprint("sha256:", i)})
		e.Absent("/x")
		check(t, e.Save())
		at := old.Add(time.Duration(i) * time.Second)
		check(t, os.Chtimes(filepath.Join(c.dir, e.name), at, at))
		if i == 0 {
			continue
		}
		// The first stays in use.
		if _, _, known := c.Load(Key{Image: "sha256:0"}).Archive("/x"); !known {
			t.Fatalf("the one in use is gone after %d", i)
		}
	}
	if _, _, known := c.Load(Key{Image: "sha256:1"}).Archive("/x"); known {
		t.Error("the oldest is still there")
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("what a killed process left: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Error(err)
	}
	list, err := filepath.Glob(filepath.Join(c.dir, "*"+suffix))
	check(t, err)
	if len(list) != maxEntries {
		t.Errorf("%d are kept", len(list))
	}
}

func TestWithoutACacheNothingIsKept(t *testing.T) {
	for _, e := range []*Entry{(*Cache)(nil).Load(Key{Image: "sha256:1"}), New(t.TempDir()).Load(Key{})} {
		e.Keep("/x", nil)
		e.Absent("/y")
		e.NoteDir("/z", true)
		check(t, e.Save())
		if _, _, known := e.Archive("/x"); known {
			t.Error("known")
		}
		if _, known := e.Dir("/z"); known {
			t.Error("known")
		}
	}
}
