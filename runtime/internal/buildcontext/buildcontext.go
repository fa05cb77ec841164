// Package buildcontext turns a directory into the tar stream that an engine's
// build API takes: what the ignore file excludes is left out, links stay links,
// owners become root's, and nothing is held in memory or on disk.
//
// The stream carries a .dockerignore of its own whenever there are patterns, so
// that an engine which applies it a second time comes to the same selection, and
// hides a Dockerfile that was excluded, or that is not part of the context, from
// COPY. It is the context's file byte for byte, unless the patterns come from
// NAME.dockerignore or the Dockerfile lies outside of the context.
package buildcontext

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/patternmatcher"
	"github.com/moby/patternmatcher/ignorefile"

	"github.com/bottle-run/bottle/runtime"
)

const (
	ignoreName = ".dockerignore"
	// maxControlFile bounds what is read of a Dockerfile or ignore file.
	maxControlFile = 4 << 20
)

// Context is a directory that was looked at and can be streamed.
type Context struct {
	// Dir is the absolute directory, without symbolic links.
	Dir string
	// DockerfilePath is the absolute path of the Dockerfile, as it was named.
	DockerfilePath string
	// RealDockerfile is the same without symbolic links.
	RealDockerfile string
	// Dockerfile is the slash-separated name by which the stream holds it.
	Dockerfile string
	// Patterns are the ignore patterns in force, cleaned.
	Patterns []string

	outside bool
	content []byte // of a Dockerfile that lies outside
	ignore  []byte // what the stream's .dockerignore holds; nil for none
	matcher *patternmatcher.PatternMatcher
}

// Open looks at a context directory and its Dockerfile, which is relative to dir
// or absolute; empty means "Dockerfile". A missing one is NotFound, an unreadable
// one PermissionDenied, anything else amiss InvalidArgument.
func Open(dir, dockerfile string) (*Context, error) {
	if dockerfile == "" {
		dockerfile = "Dockerfile"
	}
	named, err := filepath.Abs(dir)
	if err != nil {
		return nil, runtime.WithKind(errdefs.ErrInvalidArgument, err)
	}
	c := &Context{DockerfilePath: dockerfile}
	if c.Dir, err = filepath.EvalSymlinks(named); err != nil {
		return nil, kind("build context", err)
	}
	info, err := os.Stat(c.Dir)
	if err != nil {
		return nil, kind("build context", err)
	}
	if !info.IsDir() {
		return nil, runtime.Errorf(errdefs.ErrInvalidArgument, "build context %s is not a directory", c.Dir)
	}
	absolute := filepath.IsAbs(dockerfile)
	if !absolute {
		c.DockerfilePath = filepath.Join(named, dockerfile)
	}
	if err := c.findDockerfile(absolute); err != nil {
		return nil, err
	}
	if err := c.readIgnore(); err != nil {
		return nil, err
	}
	return c, nil
}

// findDockerfile decides whether the Dockerfile is part of the context.
func (c *Context) findDockerfile(absolute bool) error {
	real, err := filepath.EvalSymlinks(c.DockerfilePath)
	if err != nil {
		return kind("Dockerfile", err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return kind("Dockerfile", err)
	}
	if !info.Mode().IsRegular() {
		return runtime.Errorf(errdefs.ErrInvalidArgument, "Dockerfile %s is not a regular file", c.DockerfilePath)
	}
	c.RealDockerfile = real
	if rel, err := filepath.Rel(c.Dir, real); err == nil && filepath.IsLocal(rel) {
		c.Dockerfile = filepath.ToSlash(rel)
		return nil
	}
	if !absolute {
		return runtime.Errorf(errdefs.ErrInvalidArgument,
			"Dockerfile %s lies outside of the build context %s: name it by an absolute path if that is meant", c.DockerfilePath, c.Dir)
	}
	c.outside = true
	if c.content, err = readControl("Dockerfile", real); err != nil {
		return err
	}
	// The name must not be one of the context's.
	random := make([]byte, 8)
	if _, err := rand.Read(random); err != nil {
		return err
	}
	c.Dockerfile = ".dockerfile." + hex.EncodeToString(random)
	return nil
}

// readIgnore reads NAME.dockerignore beside the Dockerfile, or else the context's
// .dockerignore.
func (c *Context) readIgnore() error {
	own := false
	content, err := readControl("ignore file", c.DockerfilePath+ignoreName)
	if errdefs.IsNotFound(err) {
		content, err = readControl("ignore file", filepath.Join(c.Dir, ignoreName))
		own = err == nil
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	if c.Patterns, err = ignorefile.ReadAll(bytes.NewReader(content)); err != nil {
		return runtime.WithKind(errdefs.ErrInvalidArgument, fmt.Errorf("ignore file of %s: %w", c.DockerfilePath, err))
	}
	if c.matcher, err = patternmatcher.New(c.Patterns); err != nil {
		return runtime.WithKind(errdefs.ErrInvalidArgument, fmt.Errorf("ignore file of %s: %w", c.DockerfilePath, err))
	}
	// A bad pattern shows when it is first used, which is too late.
	if _, err := c.matcher.MatchesOrParentMatches("a"); err != nil {
		return runtime.WithKind(errdefs.ErrInvalidArgument, fmt.Errorf("ignore file of %s: %w", c.DockerfilePath, err))
	}

	var extra []string
	if c.outside {
		extra = append(extra, c.Dockerfile)
	}
	if (c.outside || len(c.Patterns) > 0) && !own {
		if _, err := os.Lstat(filepath.Join(c.Dir, ignoreName)); errors.Is(err, fs.ErrNotExist) {
			extra = append(extra, ignoreName)
		}
	}
	if len(c.Patterns) == 0 && len(extra) == 0 {
		return nil
	}
	c.ignore = content
	if len(extra) > 0 {
		c.ignore = fmt.Appendf(bytes.Clone(content), "\n%s\n", strings.Join(extra, "\n"))
	}
	return nil
}

// readControl reads a small file of the user's.
func readControl(what, path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|nonblock, 0)
	if err != nil {
		return nil, kind(what, err)
	}
	defer f.Close() //nolint:errcheck // only read
	content, err := io.ReadAll(io.LimitReader(f, maxControlFile+1))
	if err != nil {
		return nil, kind(what, err)
	}
	if len(content) > maxControlFile {
		return nil, runtime.Errorf(errdefs.ErrInvalidArgument, "%s %s is larger than %d bytes", what, path, maxControlFile)
	}
	return content, nil
}

// kind gives an error of the file system the kind that Open promises.
func kind(what string, err error) error {
	var k error = errdefs.ErrInvalidArgument
	switch {
	case errors.Is(err, fs.ErrNotExist):
		k = errdefs.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		k = errdefs.ErrPermissionDenied
	}
	return runtime.WithKind(k, fmt.Errorf("%s: %w", what, err))
}
