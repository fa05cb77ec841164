package probe

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

func init() {
	register(map[string]command{
		// stat PATH…: without following a link.
		"stat": func(_ context.Context, c *Call) int {
			list := []File{}
			for _, name := range c.rest(0) {
				list = append(list, look(name))
			}
			return c.json(list)
		},
		// ls PATH: the path and all that is below it.
		"ls": func(_ context.Context, c *Call) int {
			list := []File{}
			err := filepath.WalkDir(c.arg(0), func(name string, _ os.DirEntry, _ error) error {
				list = append(list, look(name))
				return nil
			})
			if err != nil {
				return c.done(err)
			}
			return c.json(list)
		},
		// read PATH
		"read": func(_ context.Context, c *Call) int {
			f, err := os.Open(c.arg(0))
			if err != nil {
				return c.done(err)
			}
			_, err = io.Copy(c.Stdout, f)
			return c.done(err)
		},
		// write PATH TEXT [MODE]
		"write": func(_ context.Context, c *Call) int {
			mode := os.FileMode(0o644)
			if m, err := strconv.ParseUint(c.arg(2), 8, 32); err == nil {
				mode = os.FileMode(m)
			}
			return c.done(os.WriteFile(c.arg(0), []byte(c.arg(1)), mode))
		},
		// big PATH SIZE: a file of that size, sparse but for its last byte.
		"big": func(_ context.Context, c *Call) int {
			size, err := strconv.ParseInt(c.arg(1), 10, 64)
			if err != nil {
				return c.done(err)
			}
			f, err := os.Create(c.arg(0))
			if err != nil {
				return c.done(err)
			}
			if _, err = f.WriteAt([]byte{'!'}, size-1); err != nil {
				return c.done(err)
			}
			return c.done(f.Close())
		},
		// fill PATH SIZE: a file of that many bytes.
		"fill": func(_ context.Context, c *Call) int {
			size, err := strconv.ParseInt(c.arg(1), 10, 64)
			if err != nil {
				return c.done(err)
			}
			f, err := os.Create(c.arg(0))
			if err != nil {
				return c.done(err)
			}
			if _, err := io.Copy(f, Pattern(size)); err != nil {
				return c.done(err)
			}
			return c.done(f.Close())
		},
		// sum PATH: size and SHA-256.
		"sum": func(_ context.Context, c *Call) int {
			f, err := os.Open(c.arg(0))
			if err != nil {
				return c.done(err)
			}
			sum := sha256.New()
			n, err := io.CopyBuffer(struct{ io.Writer }{sum}, f, make([]byte, 256<<10))
			if err != nil {
				return c.done(err)
			}
			_, err = fmt.Fprintf(c.Stdout, "%d %x\n", n, sum.Sum(nil))
			return c.done(err)
		},
		// copy FROM TO: content and mode.
		"copy": func(_ context.Context, c *Call) int {
			b, err := os.ReadFile(c.arg(0))
			if err != nil {
				return c.done(err)
			}
			return c.done(os.WriteFile(c.arg(1), b, 0o755))
		},
		"mkdir":   func(_ context.Context, c *Call) int { return c.done(os.MkdirAll(c.arg(0), 0o755)) },
		"rm":      func(_ context.Context, c *Call) int { return c.done(os.RemoveAll(c.arg(0))) },
		"symlink": func(_ context.Context, c *Call) int { return c.done(os.Symlink(c.arg(0), c.arg(1))) },
		"mkfifo":  func(_ context.Context, c *Call) int { return c.done(syscall.Mkfifo(c.arg(0), 0o644)) },
		// tree DIR: files of every kind that a copy has to carry.
		"tree": makeTree,
		// swap NAME TARGET: NAME is by turns a directory and a symbolic link to
		// TARGET, until the process is killed.
		"swap": swap,
	})
}

func look(name string) File {
	f := File{Path: name}
	var st syscall.Stat_t
	if err := syscall.Lstat(name, &st); err != nil {
		f.Err = err.Error()
		return f
	}
	f.Mode, f.UID, f.GID = st.Mode&0o7777, int(st.Uid), int(st.Gid)
	f.Size, f.Blocks, f.Inode = st.Size, st.Blocks, st.Ino
	f.MTime = time.Unix(st.Mtim.Unix()).UnixNano()
	switch st.Mode & syscall.S_IFMT {
	case syscall.S_IFREG:
		f.Type = "file"
		f.sum()
	case syscall.S_IFDIR:
		f.Type = "dir"
	case syscall.S_IFLNK:
		f.Type = "link"
		f.Link, _ = os.Readlink(name)
	case syscall.S_IFIFO:
		f.Type = "fifo"
	case syscall.S_IFSOCK:
		f.Type = "socket"
	default:
		f.Type = "device"
	}
	return f
}

func (f *File) sum() {
	const small, large = 4 << 10, 64 << 20
	if f.Size > large {
		return
	}
	b, err := os.ReadFile(f.Path)
	if err != nil {
		f.Err = err.Error()
		return
	}
	sum := sha256.Sum256(b)
	f.SHA256 = hex.EncodeToString(sum[:])
	if len(b) <= small {
		f.Content = string(b)
	}
}

func makeTree(_ context.Context, c *Call) int {
	dir := c.arg(0)
	at := func(name string) string { return filepath.Join(dir, name) }
	old := time.Unix(1234567890, 0)
	for _, step := range []func() error{
		func() error { return os.MkdirAll(at("sub/empty"), 0o755) },
		func() error { return os.WriteFile(at("plain"), []byte("plain"), 0o640) },
		func() error { return os.WriteFile(at("sub/script"), []byte("#!"), 0o700) },
		func() error { return os.WriteFile(at("sub/nothing"), nil, 0o444) },
		func() error { return os.Symlink("plain", at("link")) },
		func() error { return os.Symlink("/does/not/exist", at("dangling")) },
		func() error { return os.Link(at("plain"), at("hard")) },
		func() error { return syscall.Mkfifo(at("fifo"), 0o644) },
		func() error { return os.Chmod(at("sub/empty"), 0o1777|os.ModeSticky) },
		func() error { return os.Chtimes(at("plain"), old, old) },
		func() error { return os.Chtimes(at("sub"), old, old) },
	} {
		if err := step(); err != nil {
			return c.done(err)
		}
	}
	return 0
}

func swap(ctx context.Context, c *Call) int {
	name, target := c.arg(0), c.arg(1)
	dir, link := name+".dir", name+".link"
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return c.done(err)
	}
	_ = os.Remove(link) // of a call before
	if err := os.Symlink(target, link); err != nil {
		return c.done(err)
	}
	_, _ = fmt.Fprintln(c.Stdout, "ready")
	for ctx.Err() == nil {
		for _, step := range [][2]string{{dir, name}, {name, dir}, {link, name}, {name, link}} {
			// A writer may have put something in the way: it is the race that counts.
			_ = syscall.Rename(step[0], step[1])
		}
	}
	return 0
}
