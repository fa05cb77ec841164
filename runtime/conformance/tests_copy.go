package conformance

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/conformance/probe"
)

var copyTests = []Test{
	{
		Name: "copy/in-with-mode-owner-and-times", Kernel: true,
		Doc: "What is copied in has the archive's content, mode (setuid and sticky too), owner and times.",
		Run: copyInExact,
	},
	{
		Name: "copy/out-with-mode-owner-and-times", Kernel: true,
		Doc: "What is copied out has content, mode, owner, times, links and empty directories; FIFOs are left out.",
		Run: copyOutExact,
	},
	{
		Name: "copy/links", Kernel: true,
		Doc: "Symbolic links, relative, absolute and dangling, arrive as links, and hard links within the archive as hard links.",
		Run: copyLinks,
	},
	{
		Name: "copy/round-trip",
		Doc:  "What was copied in comes out the same, and can be copied into another container.",
		Run:  copyRoundTrip,
	},
	{
		Name: "copy/names-of-the-archive",
		Doc:  "A copy of a file holds its base name, that of a directory names below its base name, that of the root names below a dot.",
		Run:  copyNames,
	},
	{
		Name: "copy/missing-parents",
		Doc:  "Directories on the way to an entry that are missing are made, root's with mode 0755; those that are there keep owner and mode.",
		Run:  copyMissingParents,
	},
	{
		Name: "copy/odd-names",
		Doc:  "Names with spaces, newlines, UTF-8, dashes, and long ones survive in both directions.",
		Run:  copyOddNames,
	},
	{
		Name: "copy/many-files",
		Doc:  "2,000 files in one archive arrive.",
		Run:  copyMany,
	},
	{
		Name: "copy/replaces",
		Doc:  "A file that is there already is replaced; what else is in the directory stays.",
		Run:  copyReplaces,
	},
	{
		Name: "copy/1-gb-in", Kernel: true, Timeout: 5 * time.Minute,
		Doc: "A file of 1 GB is copied in, in constant memory.",
		Run: copyBigIn,
	},
	{
		Name: "copy/1-gb-sparse-out", Kernel: true, Timeout: 5 * time.Minute,
		Doc: "A sparse file of 1 GB is copied out with its full size and content, in constant memory.",
		Run: copyBigOut,
	},
	{
		Name: "copy/tmpfs", Kernel: true, Features: []runtime.Feature{runtime.FeatureCopyTmpfs},
		Doc: "Copies into and out of a tmpfs of a running container are what the container sees.",
		Run: copyTmpfs,
	},
	{
		Name: "copy/into-read-only-is-refused", Kernel: true,
		Doc: "A copy into a read-only root or mount is FailedPrecondition; out of it works.",
		Run: copyReadOnly,
	},
	{
		Name: "copy/needs-nothing-in-the-image", Kernel: true,
		Doc: "Copies in both directions work in an image that holds one file: no shell, no tar, no /etc.",
		Run: copyBareImage,
	},
	{
		Name: "copy/of-what-has-ended",
		Doc:  "Copies in both directions work with a container that has ended.",
		Run:  copyEnded,
	},
	{
		Name: "copy/missing-is-not-found",
		Doc:  "A missing target directory, a missing path and a missing container are NotFound.",
		Run:  copyMissing,
	},
	{
		Name: "copy/links-of-the-container-stay-inside", Kernel: true,
		Doc: "A symbolic link of the container, absolute or with dots, is resolved inside the container, as target and as source.",
		Run: copyThroughLinks,
	},
	{
		Name: "copy/cancelled",
		Doc:  "A copy whose context ends returns with the context's error; one whose stream is closed early ends too.",
		Run:  copyCancelled,
	},
	{
		Name: "copy/failing-reader",
		Doc:  "The error of the archive's reader is the copy's error.",
		Run:  copyFailingReader,
	},
	{
		Name: "copy/eight-at-once",
		Doc:  "Eight copies in and out at once do not disturb each other.",
		Run:  copyParallel,
	},
}

// stat looks at files of the container, as root who may read everything.
func (b *Box) stat(ctx context.Context, paths ...string) (map[string]probe.File, error) {
	out, err := b.Do(ctx, append([]string{"stat"}, paths...)...)
	if err != nil {
		return nil, err
	}
	return filesIn(out)
}

// copied reads an archive from the container.
func (b *Box) copied(ctx context.Context, name string) (map[string]archived, error) {
	r, err := b.env.Runtime.CopyFrom(ctx, b.ID, name)
	if err != nil {
		return nil, err
	}
	entries := map[string]archived{}
	err = eachEntry(r, func(h *tar.Header, content io.Reader) error {
		data, err := io.ReadAll(content)
		entries[strings.TrimSuffix(h.Name, "/")] = archived{h, data}
		return err
	})
	return entries, errors.Join(err, r.Close())
}

func eachEntry(r io.Reader, do func(*tar.Header, io.Reader) error) error {
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = do(h, t)
		}
		if err != nil {
			return err
		}
	}
}

// aTree is an archive of everything that a copy has to carry.
func aTree() []archived {
	old := time.Unix(1234567890, 0)
	entry := func(h tar.Header, content string) archived {
		h.ModTime, h.Size = old, int64(len(content))
		return archived{&h, []byte(content)}
	}
	return []archived{
		entry(tar.Header{Typeflag: tar.TypeDir, Name: "tree/", Mode: 0o755, Uid: 1, Gid: 2}, ""),
		entry(tar.Header{Typeflag: tar.TypeReg, Name: "tree/plain", Mode: 0o644}, "plain"),
		entry(tar.Header{Typeflag: tar.TypeReg, Name: "tree/secret", Mode: 0o600, Uid: probeUID, Gid: probeGID}, "secret\x00\xff"),
		entry(tar.Header{Typeflag: tar.TypeReg, Name: "tree/setuid", Mode: 0o4755, Uid: 7, Gid: 8}, "#!"),
		entry(tar.Header{Typeflag: tar.TypeReg, Name: "tree/nothing", Mode: 0o444}, ""),
		entry(tar.Header{Typeflag: tar.TypeDir, Name: "tree/empty/", Mode: 0o700, Uid: 3}, ""),
		entry(tar.Header{Typeflag: tar.TypeDir, Name: "tree/sticky/", Mode: 0o1777}, ""),
		entry(tar.Header{Typeflag: tar.TypeReg, Name: "tree/sticky/deep", Mode: 0o640}, "deep"),
	}
}

// sameEntry compares what is in a container with an archive's entry.
func sameEntry(f probe.File, want archived) error {
	types := map[byte]string{tar.TypeReg: "file", tar.TypeDir: "dir", tar.TypeSymlink: "link"}
	switch h := want.Header; {
	case f.Type != types[h.Typeflag], f.UID != h.Uid, f.GID != h.Gid,
		h.Typeflag != tar.TypeSymlink && f.Mode != uint32(h.Mode)&0o7777, // some put the type there too
		h.Typeflag != tar.TypeSymlink && f.MTime != h.ModTime.UnixNano(),
		h.Typeflag == tar.TypeSymlink && f.Link != h.Linkname,
		h.Typeflag == tar.TypeReg && (f.Size != h.Size || f.SHA256 != sha(want.content)):
		return failed("%s: expected type %s, mode %o, owner %d:%d, time %s, link %q, %d bytes; got %+v",
			h.Name, types[h.Typeflag], h.Mode, h.Uid, h.Gid, h.ModTime, h.Linkname, h.Size, f)
	}
	return nil
}

// seesAll is a container that reads everything.
func (e *Env) seesAll(ctx context.Context) (*Box, error) {
	return e.BoxOf(ctx, runtime.ContainerSpec{Capabilities: []string{"DAC_OVERRIDE", "FOWNER"}})
}

func copyInExact(ctx context.Context, e *Env) error {
	b, err := e.seesAll(ctx)
	if err != nil {
		return err
	}
	tree := aTree()
	if err := b.copyIn(ctx, "/data", tree...); err != nil {
		return err
	}
	for _, want := range tree {
		name := path.Join("/data", want.Name)
		files, err := b.stat(ctx, name)
		if err != nil {
			return err
		}
		if err := sameEntry(files[name], want); err != nil {
			return err
		}
	}
	return nil
}

func copyOutExact(ctx context.Context, e *Env) error {
	b, err := e.seesAll(ctx)
	if err != nil {
		return err
	}
	if _, err := b.Do(ctx, "tree", "/data/tree"); err != nil {
		return err
	}
	out, err := b.Do(ctx, "ls", "/data/tree")
	if err != nil {
		return err
	}
	inside, err := filesIn(out)
	if err != nil {
		return err
	}
	outside, err := b.copied(ctx, "/data/tree")
	if err != nil {
		return err
	}
	for name, f := range inside {
		entry, there := outside[strings.TrimPrefix(name, "/data/")]
		if f.Type == "fifo" {
			if there {
				return failed("%s: expected a FIFO to be left out", name)
			}
			continue
		}
		if !there {
			return failed("%s: expected it in the archive, which holds %d entries", name, len(outside))
		}
		if entry.Typeflag == tar.TypeLink {
			// The second name of a file: the archive says which it is the same as.
			if inside["/data/"+entry.Linkname].Inode != f.Inode {
				return failed("%s: expected a hard link to the same file, got one to %s", name, entry.Linkname)
			}
			continue
		}
		// An archive may hold whole seconds only.
		f.MTime -= f.MTime % int64(time.Second)
		entry.ModTime = entry.ModTime.Truncate(time.Second)
		if err := sameEntry(f, entry); err != nil {
			return err
		}
	}
	for name := range outside {
		if _, there := inside["/data/"+name]; !there {
			return failed("the archive holds %s, which is not in the container", name)
		}
	}
	return nil
}

func link(name, to string) archived {
	return archived{&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to, Mode: 0o777}, nil}
}

func hardLink(name, to string) archived {
	return archived{&tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to, Mode: 0o644}, nil}
}

func copyLinks(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	links := map[string]string{"relative": "file", "absolute": "/etc/passwd", "dangling": "/no/where", "up": "../../etc"}
	entries := []archived{regular("file", 0o644, "content"), hardLink("hard", "file")}
	for name, to := range links {
		entries = append(entries, link(name, to))
	}
	if err := b.copyIn(ctx, "/data", entries...); err != nil {
		return err
	}
	out, err := b.copied(ctx, "/data")
	if err != nil {
		return err
	}
	for name, to := range links {
		files, err := b.stat(ctx, "/data/"+name)
		if err != nil {
			return err
		}
		if f := files["/data/"+name]; f.Type != "link" || f.Link != to {
			return failed("%s: expected a link to %q inside, got %+v", name, to, f)
		}
		if h := out["data/"+name]; h.Header == nil || h.Typeflag != tar.TypeSymlink || h.Linkname != to {
			return failed("%s: expected a link to %q in the archive, got %+v", name, to, h.Header)
		}
	}
	files, err := b.stat(ctx, "/data/file", "/data/hard")
	if err != nil {
		return err
	}
	return check(files["/data/file"].Inode == files["/data/hard"].Inode && files["/data/hard"].Content == "content",
		"expected one file of two names, got %+v", files)
}

func copyRoundTrip(ctx context.Context, e *Env) error {
	tree := aTree()
	a, err := e.Box(ctx)
	if err != nil {
		return err
	}
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	if err := a.copyIn(ctx, "/data", tree...); err != nil {
		return err
	}
	r, err := e.Runtime.CopyFrom(ctx, a.ID, "/data/tree")
	if err != nil {
		return err
	}
	if err := errors.Join(e.Runtime.CopyTo(ctx, b.ID, "/data", r), r.Close()); err != nil {
		return err
	}
	got, err := b.copied(ctx, "/data/tree")
	if err != nil {
		return err
	}
	if len(got) != len(tree) {
		return failed("expected %d entries after two copies, got %d", len(tree), len(got))
	}
	for _, want := range tree {
		g, there := got[strings.TrimSuffix(want.Name, "/")]
		if !there || g.Mode&0o7777 != want.Mode || g.Uid != want.Uid || g.Gid != want.Gid ||
			!g.ModTime.Equal(want.ModTime) || !bytes.Equal(g.content, want.content) {
			return failed("%s after two copies: expected %+v, got %+v", want.Name, want.Header, g.Header)
		}
	}
	return nil
}

func copyMissingParents(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	if err := b.copyIn(ctx, "/data", archived{&tar.Header{Typeflag: tar.TypeDir, Name: "mine/", Mode: 0o750, Uid: 7, Gid: 8}, nil}); err != nil {
		return err
	}
	below := func(name string) archived {
		file := regular(name, 0o640, "x")
		file.Uid, file.Gid = 7, 8
		return file
	}
	if err := b.copyIn(ctx, "/", below("data/mine/new/deep/file"), below("data/other/file")); err != nil {
		return err
	}
	got, err := b.copied(ctx, "/data")
	if err != nil {
		return err
	}
	for _, want := range []tar.Header{
		{Name: "data/mine", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 7, Gid: 8},
		{Name: "data/mine/new", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "data/mine/new/deep", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "data/mine/new/deep/file", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 7, Gid: 8},
		{Name: "data/other", Typeflag: tar.TypeDir, Mode: 0o755},
	} {
		g := got[want.Name]
		if g.Header == nil || g.Typeflag != want.Typeflag || g.Uid != want.Uid || g.Gid != want.Gid || g.Mode&0o7777 != want.Mode {
			return failed("%s: expected %+v, got %+v", want.Name, want, g.Header)
		}
	}
	return nil
}

func copyNames(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	if err := b.copyIn(ctx, "/data", archived{&tar.Header{Typeflag: tar.TypeDir, Name: "dir/", Mode: 0o755}, nil}, regular("dir/file", 0o644, "x")); err != nil {
		return err
	}
	for source, want := range map[string][]string{
		"/data/dir/file": {"file"}, "/data/dir": {"dir", "dir/file"}, "/data": {"data", "data/dir", "data/dir/file"},
	} {
		got, err := b.copied(ctx, source)
		if err != nil {
			return err
		}
		if len(got) != len(want) {
			return failed("copy of %s: expected names %q, got %d entries", source, want, len(got))
		}
		for _, name := range want {
			if got[name].Header == nil {
				return failed("copy of %s: expected name %q in the archive", source, name)
			}
		}
	}
	r, err := e.Runtime.CopyFrom(ctx, b.ID, "/")
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	err = eachEntry(r, func(h *tar.Header, _ io.Reader) error {
		seen[path.Clean(h.Name)] = true
		return check(!path.IsAbs(h.Name) && !strings.HasPrefix(path.Clean(h.Name), ".."), "copy of the root: name %q leads out", h.Name)
	})
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	return check(seen["data/dir/file"] && seen["etc/passwd"], "copy of the root: expected data/dir/file and etc/passwd among %d names", len(seen))
}

func copyOddNames(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	names := []string{
		"with space", "new\nline", "žluťoučký 🐎", "-dash", "--", "a:b", `back\slash`, `quote"'`, "*?[", "#", "%41", "..dots..", "...",
		strings.Repeat("n", 255), strings.Repeat("long/", 60) + "end",
	}
	var entries []archived
	for i, n := range names {
		entries = append(entries, regular("odd/"+n, 0o644, fmt.Sprint(i)))
	}
	if err := b.copyIn(ctx, "/data", entries...); err != nil {
		return err
	}
	got, err := b.copied(ctx, "/data/odd")
	if err != nil {
		return err
	}
	for i, n := range names {
		if g := got["odd/"+n]; string(g.content) != fmt.Sprint(i) {
			return failed("name %.60q: expected content %d after two copies, got %q", n, i, g.content)
		}
	}
	return nil
}

func copyMany(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	const many = 2000
	var entries []archived
	for i := range many {
		entries = append(entries, regular(fmt.Sprintf("many/%d/%d", i%50, i), 0o644, fmt.Sprint(i)))
	}
	if err := b.copyIn(ctx, "/data", entries...); err != nil {
		return err
	}
	got, err := b.copied(ctx, "/data/many")
	if err != nil {
		return err
	}
	for _, want := range entries {
		if !bytes.Equal(got[want.Name].content, want.content) {
			return failed("%s: expected content %q, got %q", want.Name, want.content, got[want.Name].content)
		}
	}
	return nil
}

func copyReplaces(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	if err := b.copyIn(ctx, "/data", regular("dir/old", 0o600, "old content"), regular("dir/other", 0o644, "other")); err != nil {
		return err
	}
	if err := b.copyIn(ctx, "/data", regular("dir/old", 0o755, "new")); err != nil {
		return err
	}
	got, err := b.copied(ctx, "/data/dir")
	if err != nil {
		return err
	}
	g := got["dir/old"]
	return check(string(g.content) == "new" && g.Mode&0o777 == 0o755 && string(got["dir/other"].content) == "other",
		"expected new content and mode, and the other file untouched, got %q %o and %q", g.content, g.Mode, got["dir/other"].content)
}

const gigabyte = 1 << 30

func copyBigIn(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	return bounded(streamMemory, func() error {
		r, w := io.Pipe()
		go func() {
			t := tar.NewWriter(w)
			err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "big", Mode: 0o644, Size: gigabyte, Format: tar.FormatPAX})
			if err == nil {
				_, err = io.CopyBuffer(struct{ io.Writer }{t}, probe.Pattern(gigabyte), make([]byte, 256<<10))
			}
			w.CloseWithError(errors.Join(err, t.Close()))
		}()
		err := e.Runtime.CopyTo(ctx, b.ID, "/data", r)
		_ = r.Close()
		if err != nil {
			return err
		}
		out, err := b.Do(ctx, "sum", "/data/big")
		if err != nil {
			return err
		}
		want := fmt.Sprintf("%d %s\n", gigabyte, patternSum(gigabyte))
		return check(out == want, "expected size and sum %q, got %q", want, out)
	})
}

func copyBigOut(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	if _, err := b.Do(ctx, "big", "/data/big", fmt.Sprint(gigabyte)); err != nil {
		return err
	}
	return bounded(streamMemory, func() error {
		r, err := e.Runtime.CopyFrom(ctx, b.ID, "/data/big")
		if err != nil {
			return err
		}
		files := 0
		err = eachEntry(r, func(h *tar.Header, content io.Reader) error {
			files++
			last := &lastByte{}
			n, err := io.CopyBuffer(last, content, make([]byte, 256<<10))
			if err != nil {
				return err
			}
			return check(h.Name == "big" && h.Size == gigabyte && n == gigabyte && last.b == '!' && last.zeros == gigabyte-1,
				"expected %d bytes, all zero but the last, got %s of %d, %d bytes with %d zeros", gigabyte, h.Name, h.Size, n, last.zeros)
		})
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}
		return check(files == 1, "expected one file, got %d", files)
	})
}

// lastByte counts zeros and keeps the last byte.
type lastByte struct {
	b     byte
	zeros int64
}

func (l *lastByte) Write(p []byte) (int, error) {
	l.zeros += int64(bytes.Count(p, []byte{0}))
	if len(p) > 0 {
		l.b = p[len(p)-1]
	}
	return len(p), nil
}

func copyTmpfs(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{ReadOnly: true, Tmpfs: []runtime.Tmpfs{{Target: "/scratch"}}})
	if err != nil {
		return err
	}
	if err := b.copyIn(ctx, "/scratch", regular("in/file", 0o600, "from outside")); err != nil {
		return err
	}
	out, err := b.Do(ctx, "read", "/scratch/in/file")
	if err != nil {
		return err
	}
	if out != "from outside" {
		return failed("expected the container to see what was copied, got %q", out)
	}
	if _, err := b.Do(ctx, "write", "/scratch/own", "from inside"); err != nil {
		return err
	}
	got, err := b.copied(ctx, "/scratch/own")
	if err != nil {
		return err
	}
	return check(string(got["own"].content) == "from inside", "expected what the container wrote, got %q", got["own"].content)
}

func copyReadOnly(ctx context.Context, e *Env) error {
	dir, err := e.Context(map[string]string{"mounted": "m"})
	if err != nil {
		return err
	}
	root, err := e.BoxOf(ctx, runtime.ContainerSpec{ReadOnly: true})
	if err != nil {
		return err
	}
	mount, err := e.BoxOf(ctx, runtime.ContainerSpec{Mounts: []runtime.Mount{{Source: dir, Target: "/data/mount"}}})
	if err != nil {
		return err
	}
	for _, c := range []struct {
		b    *Box
		dir  string
		file string
	}{{root, "/data", "/etc/passwd"}, {mount, "/data/mount", "/data/mount/mounted"}} {
		err := c.b.copyIn(ctx, c.dir, regular("file", 0o644, "x"))
		if err := kind(err, errdefs.IsFailedPrecondition, "FailedPrecondition", "copy into read-only "+c.dir); err != nil {
			return err
		}
		got, err := c.b.copied(ctx, c.file)
		if err != nil {
			return failed("copy out of what is read-only: %w", err)
		}
		if len(got) != 1 {
			return failed("copy out of what is read-only: expected one file, got %d", len(got))
		}
	}
	if got := list(dir); len(got) != 1 {
		return failed("expected nothing new in the host's directory, got %q", got)
	}
	return nil
}

// bareImage loads an image that holds the probe and nothing else.
func (e *Env) bareImage(ctx context.Context) (string, error) {
	program, err := e.suite.program()
	if err != nil {
		return "", err
	}
	layer, err := layerOf([]archived{regular(probe.Path[1:], 0o755, string(program))})
	if err != nil {
		return "", err
	}
	img, err := imageOf(e.suite.arch(), v1.Config{Entrypoint: []string{probe.Path}, Cmd: []string{"sleep"}, Labels: e.managed()}, layer)
	if err != nil {
		return "", err
	}
	ref := e.Ref("bare")
	e.removeImage(ref)
	_, err = load(ctx, e.Runtime, ref, img)
	return ref, err
}

func copyBareImage(ctx context.Context, e *Env) error {
	ref, err := e.bareImage(ctx)
	if err != nil {
		return err
	}
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Image: ref, Files: []runtime.File{{Path: "/put/in", Content: []byte("before")}}})
	if err != nil {
		return err
	}
	if err := b.copyIn(ctx, "/put", regular("file", 0o644, "after")); err != nil {
		return err
	}
	for name, want := range map[string]string{"in": "before", "file": "after"} {
		got, err := b.copied(ctx, "/put/"+name)
		if err != nil {
			return err
		}
		inside, err := b.Do(ctx, "read", "/put/"+name)
		if err != nil {
			return err
		}
		if string(got[name].content) != want || inside != want {
			return failed("%s: expected %q, got %q outside and %q inside", name, want, got[name].content, inside)
		}
	}
	return nil
}

func copyEnded(ctx context.Context, e *Env) error {
	b, err := e.BoxOf(ctx, runtime.ContainerSpec{Command: []string{"exit", "0"}})
	if err != nil {
		return err
	}
	if _, err := e.Runtime.Wait(ctx, b.ID); err != nil {
		return err
	}
	if err := b.copyIn(ctx, "/data", regular("file", 0o644, "late")); err != nil {
		return err
	}
	got, err := b.copied(ctx, "/data/file")
	if err != nil {
		return err
	}
	return check(string(got["file"].content) == "late", "expected what was copied in, got %q", got["file"].content)
}

func copyMissing(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	err = b.copyIn(ctx, "/no/such/dir", regular("file", 0o644, "x"))
	if err := kind(err, errdefs.IsNotFound, "NotFound", "copy into a directory that is not there"); err != nil {
		return err
	}
	missing := func(container, name, what string) error {
		r, err := e.Runtime.CopyFrom(ctx, container, name)
		if err == nil {
			_, err = io.Copy(io.Discard, r)
			_ = r.Close()
		}
		return kind(err, errdefs.IsNotFound, "NotFound", what)
	}
	if err := missing(b.ID, "/no/such/file", "copy of a path that is not there"); err != nil {
		return err
	}
	if err := missing(e.Name("missing"), "/etc", "copy out of a container that is not there"); err != nil {
		return err
	}
	err = e.Runtime.CopyTo(ctx, e.Name("missing"), "/data", bytes.NewReader(archive(regular("file", 0o644, "x"))))
	if err := kind(err, errdefs.IsNotFound, "NotFound", "copy into a container that is not there"); err != nil {
		return err
	}
	err = b.copyIn(ctx, "/etc/passwd", regular("file", 0o644, "x"))
	return kind(err, func(error) bool { return true }, "an error", "copy into what is no directory")
}

func copyThroughLinks(ctx context.Context, e *Env) error {
	host, err := e.Context(map[string]string{"secret": "HOST"})
	if err != nil {
		return err
	}
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	up := strings.Repeat("../", 30)
	links := map[string]string{"/data/absolute": host, "/data/dots": up + host[1:]}
	for name, to := range links {
		if _, err := b.Do(ctx, "symlink", to, name); err != nil {
			return err
		}
		// Where it leads is not there, inside.
		err := b.copyIn(ctx, name, regular("escaped", 0o644, "x"))
		if err := kind(err, errdefs.IsNotFound, "NotFound", "copy into a link to a path of the host"); err != nil {
			return err
		}
		if got, err := b.copied(ctx, name+"/secret"); err == nil {
			return failed("copy of a path through a link to the host: expected an error, got %q", got["secret"].content)
		}
	}
	// Now it is, inside.
	if _, err := b.Do(ctx, "mkdir", host); err != nil {
		return err
	}
	if _, err := b.Do(ctx, "write", host+"/secret", "INSIDE"); err != nil {
		return err
	}
	for name := range links {
		if err := b.copyIn(ctx, name, regular("file-"+path.Base(name), 0o644, "x")); err != nil {
			return err
		}
		if _, err := b.Do(ctx, "read", host+"/file-"+path.Base(name)); err != nil {
			return failed("copy through a link: expected the file inside the container: %w", err)
		}
		got, err := b.copied(ctx, name+"/secret")
		if err != nil {
			return err
		}
		if string(got["secret"].content) != "INSIDE" {
			return failed("copy through a link: expected the container's file, got %q", got["secret"].content)
		}
	}
	return check(len(list(host)) == 1, "expected nothing new in the host's directory, got %q", list(host))
}

// endless is an archive with a file that does not end, which notes when it has
// been read from.
type endless struct {
	head    *bytes.Reader
	started chan struct{}
	once    sync.Once
}

func newEndless() *endless {
	var b bytes.Buffer
	// The header of a file that is larger than anybody waits for.
	_ = tar.NewWriter(&b).WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "endless", Mode: 0o644, Size: 1 << 42, Format: tar.FormatPAX})
	return &endless{head: bytes.NewReader(b.Bytes()), started: make(chan struct{})}
}

func (r *endless) Read(p []byte) (int, error) {
	if r.head.Len() > 0 {
		return r.head.Read(p)
	}
	r.once.Do(func() { close(r.started) })
	// Slow, so that it fills no disk.
	time.Sleep(time.Millisecond)
	n := min(len(p), 4096)
	clear(p[:n])
	return n, nil
}

func copyCancelled(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	copyCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	source := newEndless()
	done := make(chan error, 1)
	go func() { done <- e.Runtime.CopyTo(copyCtx, b.ID, "/data", source) }()
	select {
	case <-source.started:
	case err := <-done:
		return failed("copy in ended before it was cancelled: %w", err)
	}
	cancel()
	select {
	case err := <-done:
		if err := kind(err, func(err error) bool { return errors.Is(err, context.Canceled) }, "the context's error", "cancel a copy in"); err != nil {
			return err
		}
	case <-time.After(patience):
		return failed("a copy in went on after its context had ended")
	}
	// The container is as usable as before, and a stream that nobody reads on ends.
	if err := b.copyIn(ctx, "/data", regular("file", 0o644, strings.Repeat("x", 4<<20))); err != nil {
		return err
	}
	r, err := e.Runtime.CopyFrom(ctx, b.ID, "/data/file")
	if err != nil {
		return err
	}
	if _, err := io.ReadFull(r, make([]byte, 512)); err != nil {
		return err
	}
	began := time.Now()
	if err := r.Close(); err != nil {
		return failed("close a copy out early: %w", err)
	}
	return check(time.Since(began) < patience, "closing a copy out early took %s", time.Since(began))
}

func copyFailingReader(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	reason := errors.New("the disk is on fire")
	half := archive(regular("file", 0o644, strings.Repeat("x", 1<<20)))
	err = e.Runtime.CopyTo(ctx, b.ID, "/data", io.MultiReader(bytes.NewReader(half[:len(half)/2]), failingReader{reason}))
	if err := kind(err, func(err error) bool { return errors.Is(err, reason) }, "the reader's error", "copy in from a reader that fails"); err != nil {
		return err
	}
	err = e.Runtime.CopyTo(ctx, b.ID, "/data", bytes.NewReader(half[:len(half)/2]))
	return kind(err, func(err error) bool { return !errors.Is(err, fs.ErrClosed) }, "an error", "copy in of half an archive")
}

type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

func copyParallel(ctx context.Context, e *Env) error {
	b, err := e.Box(ctx)
	if err != nil {
		return err
	}
	const many = 8
	errs := make([]error, many)
	var wg sync.WaitGroup
	for i := range many {
		wg.Go(func() {
			name, content := fmt.Sprint("file", i), strings.Repeat(fmt.Sprint(i), 1<<20)
			if errs[i] = b.copyIn(ctx, "/data", regular(name, 0o644, content)); errs[i] != nil {
				return
			}
			got, err := b.copied(ctx, "/data/"+name)
			if err == nil && string(got[name].content) != content {
				err = failed("copy %d: expected its own content, got %d bytes", i, len(got[name].content))
			}
			errs[i] = err
		})
	}
	wg.Wait()
	return first(errs...)
}
