package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/bottle-run/bottle/runtime"
)

const gitImage = "localhost/bottle-e2e/git:1"

// loadGit puts an image on the engine that holds busybox, this machine's git with the
// libraries that it needs, and two users.
func (e *scriptEngine) loadGit(t *testing.T) {
	t.Helper()
	b := newLayer(t)
	for _, dir := range []string{"bin", "etc", "home", "root", "usr", "usr/bin", "usr/lib"} {
		b.add(tar.Header{Typeflag: tar.TypeDir, Name: dir + "/", Mode: 0o755}, nil)
	}
	b.add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	b.add(tar.Header{Typeflag: tar.TypeDir, Name: "home/robot/", Mode: 0o755, Uid: 1000, Gid: 1000}, nil)
	b.add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0::/root:/bin/sh\nrobot:x:1000:1000::/home/robot:/bin/sh\n"))
	b.add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nrobot:x:1000:\n"))
	busybox := lookPath(t, "busybox")
	b.file("bin/busybox", busybox)
	applets, err := exec.CommandContext(t.Context(), busybox, "--list").Output()
	check(t, err)
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			b.add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + applet, Linkname: "busybox"}, nil)
		}
	}
	b.git()
	image, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: goruntime.GOARCH, Config: v1.Config{
		// The image has a setting of its own, which the bottle's go on from.
		Env:  []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "EMAIL=robot@image.test", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=user.name", "GIT_CONFIG_VALUE_0=Of The Image"},
		User: "robot", Cmd: []string{"/bin/sh"}, WorkingDir: "/home/robot", Labels: map[string]string{runtime.LabelManaged: "true"},
	}})
	check(t, err)
	check(t, b.w.Close())
	image, err = mutate.AppendLayers(image, static.NewLayer(b.out.Bytes(), types.DockerUncompressedLayer))
	check(t, err)
	tag, err := name.NewTag(gitImage)
	check(t, err)
	archive, in := io.Pipe()
	go func() { _ = in.CloseWithError(tarball.Write(tag, image, in)) }()
	_, err = e.rt.LoadImage(t.Context(), archive)
	check(t, err)
}

// layer is one that is being written.
type layer struct {
	t   *testing.T
	out bytes.Buffer
	w   *tar.Writer
	has map[string]bool
}

func newLayer(t *testing.T) *layer {
	b := &layer{t: t, has: map[string]bool{}}
	b.w = tar.NewWriter(&b.out)
	return b
}

func (b *layer) add(h tar.Header, content []byte) {
	b.t.Helper()
	if b.has[h.Name] {
		return
	}
	b.has[h.Name] = true
	h.Size = int64(len(content))
	check(b.t, b.w.WriteHeader(&h))
	_, err := b.w.Write(content)
	check(b.t, err)
}

// file adds a file of this machine's, and the libraries that it needs if it is a program.
func (b *layer) file(name, from string) {
	b.t.Helper()
	content, err := os.ReadFile(from)
	check(b.t, err)
	b.add(tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755}, content)
	program, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return // a script
	}
	defer func() { _ = program.Close() }()
	if needs, err := program.ImportedLibraries(); err != nil || len(needs) == 0 {
		return // it is static
	}
	out, err := exec.CommandContext(b.t.Context(), "ldd", from).CombinedOutput()
	if err != nil {
		b.t.Fatalf("ldd %s: %v: %s", from, err, out)
	}
	for line := range strings.Lines(string(out)) {
		for word := range strings.FieldsSeq(line) {
			if filepath.IsAbs(word) {
				lib, err := os.ReadFile(word)
				check(b.t, err)
				b.add(tar.Header{Typeflag: tar.TypeReg, Name: word[1:], Mode: 0o755}, lib)
			}
		}
	}
}

// git adds git, without what speaks other protocols and without servers.
func (b *layer) git() {
	b.t.Helper()
	b.file("usr/bin/git", lookPath(b.t, "git"))
	out, err := exec.CommandContext(b.t.Context(), "git", "--exec-path").Output()
	check(b.t, err)
	dir := strings.TrimSpace(string(out))
	check(b.t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := filepath.Base(path)
		switch {
		case entry.IsDir():
			b.add(tar.Header{Typeflag: tar.TypeDir, Name: path[1:] + "/", Mode: 0o755}, nil)
		case base == "git" || base == "git-sh-i18n--envsubst":
			b.file(path[1:], path)
		case entry.Type()&fs.ModeSymlink != 0:
			to, err := os.Readlink(path)
			if err != nil {
				return err
			}
			b.add(tar.Header{Typeflag: tar.TypeSymlink, Name: path[1:], Linkname: to}, nil)
		case !isELF(path):
			b.file(path[1:], path)
		}
		return nil
	}))
	// Where init and clone look for templates, without which they warn.
	b.add(tar.Header{Typeflag: tar.TypeDir, Name: "usr/share/git-core/templates/", Mode: 0o755}, nil)
}

func isELF(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	magic := make([]byte, 4)
	_, err = io.ReadFull(f, magic)
	return err == nil && string(magic) == elf.ELFMAG
}

// gitEnv is the environment of git on this machine, which nothing of the machine's changes.
func gitEnv(more ...string) []string {
	return append([]string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "LC_ALL=C",
		"GIT_AUTHOR_NAME=Upstream", "GIT_AUTHOR_EMAIL=up@stream.test", "GIT_COMMITTER_NAME=Upstream", "GIT_COMMITTER_EMAIL=up@stream.test",
	}, more...)
}

// hostGit runs git on this machine.
func hostGit(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, gitEnv()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("git %q: %w: %s", args, err, out)
	}
	return string(out), nil
}
