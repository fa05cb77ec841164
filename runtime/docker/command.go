package docker

import (
	"context"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

// checkCommand looks for the command of a created container, as execvp(3) will:
// NotFound if it is not there, PermissionDenied if it may not be executed. The files
// are those of the container's specification: the daemon cannot see them in one whose
// root is read-only before it is started.
func (e *engine) checkCommand(ctx context.Context, id string, files []runtime.File) error {
	res, err := e.cli.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	c := res.Container
	denied := false
	for _, candidate := range commandCandidates(c.Path, c.Config.WorkingDir, c.Config.Env) {
		if i := slices.IndexFunc(files, func(f runtime.File) bool { return path.Clean(f.Path) == path.Clean(candidate) }); i >= 0 {
			if files[i].Mode&0o111 != 0 {
				return nil
			}
			denied = true
			continue
		}
		found, executable, err := e.statExecutable(ctx, id, candidate)
		switch {
		case err != nil:
			return err
		case executable:
			return nil
		}
		denied = denied || found
	}
	if denied {
		return runtime.Errorf(errdefs.ErrPermissionDenied, "command %q may not be executed", c.Path)
	}
	return runtime.Errorf(errdefs.ErrNotFound, "command %q is not in the image", c.Path)
}

// commandCandidates lists where a command may be.
func commandCandidates(command, workDir string, env []string) []string {
	if strings.Contains(command, "/") {
		if !path.IsAbs(command) {
			command = path.Join("/", workDir, command)
		}
		return []string{command}
	}
	search := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, "PATH="); ok {
			search = value
		}
	}
	var list []string
	for dir := range strings.SplitSeq(search, ":") {
		if !path.IsAbs(dir) {
			dir = path.Join("/", workDir, dir)
		}
		list = append(list, path.Join(dir, command))
	}
	return list
}

// statExecutable follows symbolic links as the daemon resolves them: inside the
// container.
func (e *engine) statExecutable(ctx context.Context, id, file string) (found, executable bool, err error) {
	const maxLinks = 16
	for range maxLinks {
		res, err := e.cli.ContainerStatPath(ctx, id, client.ContainerStatPathOptions{Path: file})
		if errdefs.IsNotFound(err) {
			return found, false, nil
		}
		if err != nil {
			// A path through a file, say.
			return found, false, asNothing(err)
		}
		switch mode := res.Stat.Mode; {
		case mode.IsRegular():
			return true, mode.Perm()&0o111 != 0, nil
		case res.Stat.LinkTarget != "" && res.Stat.LinkTarget != file:
			file = res.Stat.LinkTarget
		default:
			return true, false, nil
		}
	}
	return true, false, nil
}

// asNothing drops an error that says no more than that nothing is there.
func asNothing(err error) error {
	if errdefs.IsInvalidArgument(err) || containsAny(err, "not a directory") {
		return nil
	}
	return err
}
