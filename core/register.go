package core

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/core/mcp"
)

// registerSupervise adds the server to the configuration files of agents: to what the image,
// the workspace or the manifest's files have put there.
func (l *launch) registerSupervise(ctx context.Context) error {
	open := inContainer(l.rt, l.container.ID)
	files, err := l.registrations(func(target string) ([]byte, error) { return readFile(ctx, open, target) })
	if err != nil {
		return err
	}
	where := slices.DeleteFunc(slices.Sorted(maps.Values(l.registered)), func(target string) bool { return target == "" })
	l.report.result(stepRegister, strings.Join(where, ", "))
	return place(ctx, l.rt, l.container.ID, fileItems(files, nil, l.user), l.user)
}

// registrations are the configuration files in which the server is registered, for the
// programs for which it is not yet. existing reads what there is of such a file; errLater
// leaves a program out.
func (l *launch) registrations(existing func(target string) ([]byte, error)) (files []File, err error) {
	if l.plan.Supervise == nil {
		return nil, nil
	}
	if l.registered == nil {
		l.registered = map[string]string{}
	}
	for _, name := range l.plan.Supervise.MCP {
		if _, done := l.registered[name]; done {
			continue
		}
		target := l.mcpTarget(mcp.Path(name))
		content, err := existing(target)
		if err == nil {
			if content, err = mcp.Register(name, content, superviseServer, superviseURL); err != nil {
				err = &oddFileError{err.Error()}
			}
		}
		var odd *oddFileError
		switch {
		case errors.Is(err, errLater):
			continue
		case errors.As(err, &odd):
			l.report.note(stepRegister, fmt.Sprintf("the supervise server is not registered for %s: %v", name, err))
			target = ""
		case err != nil:
			return nil, err
		default:
			files = append(files, File{Target: target, Mode: 0o644, Content: string(content)})
		}
		l.registered[name] = target
	}
	return files, nil
}

// errLater is a file of which only the container can tell what it will be.
var errLater = errors.New("it is told later")

// mcpTarget is where a configuration file lies: in the directory that the agent works in, or
// in its home.
func (l *launch) mcpTarget(file string) string {
	rest, ok := strings.CutPrefix(file, mcp.Workspace)
	if !ok {
		return expandHome(file, l.user.Home)
	}
	for _, dir := range []string{l.plan.Workspace.Target, l.plan.WorkDir, l.image.Config.WorkDir} {
		if path.IsAbs(dir) && path.Clean(dir) != "/" {
			return path.Join(dir, rest)
		}
	}
	return path.Join(l.user.Home, rest)
}

// oddFileError is something in the place of a file that bottle does not write to.
type oddFileError struct{ what string }

func (e *oddFileError) Error() string { return e.what }

// readFile reads a small file of a container; one that is not there is empty.
func readFile(ctx context.Context, open opener, name string) ([]byte, error) {
	archive, err := open(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = archive.Close() }() // it was only read
	tr := tar.NewReader(archive)
	h, err := tr.Next()
	switch {
	case err != nil:
		return nil, err
	case h.Typeflag != tar.TypeReg:
		return nil, &oddFileError{name + " is no regular file"}
	case h.Size > mcp.MaxFile:
		return nil, &oddFileError{fmt.Sprintf("%s has more than %d bytes", name, mcp.MaxFile)}
	}
	var b bytes.Buffer
	_, err = io.Copy(&b, tr)
	return b.Bytes(), err
}
