package core

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"
	"golang.org/x/sys/unix"
)

// contentVersion is part of every digest, so that images built by rules that
// have changed are built anew.
const contentVersion = "1"

// contentDigest is a digest of all that an image is built from: the Dockerfile,
// the files of the context that .dockerignore leaves in (names, kinds,
// permissions, content, targets of links), arguments and stage. Times and owners
// are not part of it, as they are not for a builder's cache. What a base image
// or a RUN step fetches is not known before it is fetched, so it is no part of it
// either.
func contentDigest(ctx context.Context, b Build) (string, error) {
	d := digester{ctx: ctx, hash: sha256.New()}
	d.strings(contentVersion, b.Target)
	for _, name := range slices.Sorted(maps.Keys(b.Args)) {
		d.strings("arg", name, b.Args[name])
	}
	d.strings("dockerfile")
	if err := d.file(b.Dockerfile); err != nil {
		return "", err
	}
	patterns, err := dockerIgnore(b)
	if err != nil {
		return "", err
	}
	matcher, err := patternmatcher.New(patterns)
	if err != nil {
		return "", fmt.Errorf("the .dockerignore of %s: %w", b.Context, err)
	}
	if err := d.tree(b.Context, matcher); err != nil {
		return "", err
	}
	return hex.EncodeToString(d.hash.Sum(nil)), nil
}

// dockerIgnore reads the ignore file that applies: the Dockerfile's own, or the
// context's.
func dockerIgnore(b Build) ([]string, error) {
	for _, name := range []string{b.Dockerfile + ".dockerignore", filepath.Join(b.Context, ".dockerignore")} {
		f, err := os.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		patterns, err := ignorefile.ReadAll(f)
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return patterns, nil
	}
	return nil, nil
}

type digester struct {
	ctx  context.Context
	hash hash.Hash
}

// strings adds strings so that none runs into the next.
func (d *digester) strings(list ...string) {
	for _, s := range list {
		d.number(uint64(len(s)))
		_, _ = io.WriteString(d.hash, s) // a hash's Write does not fail
	}
}

func (d *digester) number(n uint64) {
	_, _ = d.hash.Write(binary.BigEndian.AppendUint64(nil, n))
}

func (d *digester) file(name string) error {
	// A FIFO in its place is not waited for.
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	content := sha256.New()
	if _, err := io.Copy(content, contextReader{d.ctx, f}); err != nil {
		return err
	}
	_, _ = d.hash.Write(content.Sum(nil))
	return nil
}

func (d *digester) tree(root string, ignore *patternmatcher.PatternMatcher) error {
	return filepath.WalkDir(root, func(full string, e fs.DirEntry, err error) error {
		if cause := context.Cause(d.ctx); cause != nil {
			return cause
		}
		if full == root {
			return err
		}
		name, relErr := filepath.Rel(root, full)
		if relErr != nil {
			return relErr
		}
		skip, matchErr := ignore.MatchesOrParentMatches(name)
		if matchErr != nil {
			return matchErr
		}
		if skip {
			// A pattern with "!" may bring something below it back.
			if e != nil && e.IsDir() && !ignore.Exclusions() {
				return fs.SkipDir
			}
			return nil
		}
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		d.strings("entry", filepath.ToSlash(name))
		d.number(uint64(info.Mode()))
		switch {
		case info.Mode().IsRegular():
			return d.file(full)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(full)
			d.strings(target)
			return err
		}
		return nil
	})
}

// contextReader stops when its context ends.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (r contextReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
