package core

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/bottle-run/bottle/core/mcp"
	"github.com/bottle-run/bottle/core/workspace"
)

// layer is a directory of the host's that is copied to a place in the bottle.
type layer struct {
	target string
	tree   *workspace.Tree
}

// holds is what the layer puts at a path; known is false if that is not of its making.
func (y layer) holds(p string) (mode fs.FileMode, known bool) {
	name, ok := y.name(p)
	if !ok {
		return 0, false
	}
	return y.tree.Mode(name)
}

// name is a path's name in the tree.
func (y layer) name(p string) (string, bool) {
	if p == y.target {
		return ".", true
	}
	return strings.CutPrefix(p, strings.TrimSuffix(y.target, "/")+"/")
}

// layers are the trees that the launch copies, those that are copied later first.
func (l *launch) layers() []layer {
	var list []layer
	for _, f := range l.plan.Files {
		if f.Tree {
			list = append(list, layer{expandHome(f.Target, l.user.Home), l.trees[f.Source]})
		}
	}
	// What lies deeper comes later.
	slices.SortStableFunc(list, func(a, b layer) int { return strings.Compare(b.target, a.target) })
	if l.plan.Workspace.Source != "" {
		list = append(list, layer{l.plan.Workspace.Target, l.tree})
	}
	return list
}

// plain reports whether no layer has anything but directories on the way to a path: then it
// is known where it will be.
func plain(layers []layer, p string) bool {
	for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
		for _, y := range layers {
			if mode, known := y.holds(dir); known && !mode.IsDir() {
				return false
			}
		}
	}
	return true
}

// provision copies the workspace and the plan's files in, in one archive if it can, and
// registers the supervise server in what it copies.
func (l *launch) provision(ctx context.Context) error {
	items := fileItems(l.plan.Files, l.trees, l.user)
	layers := l.layers()
	var what []string
	into := placer{rt: l.rt, container: l.container.ID, known: l.known}
	if ws := l.plan.Workspace; ws.Source != "" {
		tree := l.workspaceItem()
		what = append(what, fmt.Sprintf("workspace of %d files, %s", l.tree.Files, bytesText(l.tree.Bytes)))
		var around, within []item
		for _, it := range items {
			if strings.HasPrefix(it.target, strings.TrimSuffix(ws.Target, "/")+"/") {
				within = append(within, it)
			} else {
				around = append(around, it)
			}
		}
		if slices.ContainsFunc(within, func(it item) bool { return !plain(layers, it.target) }) {
			// Where it will be shows when the workspace is there.
			if err := into.place(ctx, []item{tree}, l.user); err != nil {
				return err
			}
			into.known = nil
		} else {
			into.made = append(into.made, layer{ws.Target, l.tree})
			around = append(around, tree)
		}
		items = slices.Concat(around, within)
	}
	registered, err := l.registrations(func(target string) ([]byte, error) { return l.willBe(ctx, layers, target) })
	if err != nil {
		return err
	}
	for _, it := range fileItems(registered, nil, l.user) {
		items = slices.DeleteFunc(items, func(old item) bool { return old.target == it.target })
		items = append(items, it)
	}
	if err := into.place(ctx, items, l.user); err != nil {
		return err
	}
	for _, f := range l.plan.Files {
		what = append(what, f.What)
	}
	l.report.result(stepProvision, strings.Join(what, ", "))
	return nil
}

// willBe is what a small file in the bottle will hold once all is copied: nothing if it will
// not be there, and errLater if that does not show yet.
func (l *launch) willBe(ctx context.Context, layers []layer, target string) ([]byte, error) {
	if !plain(layers, target) {
		return nil, errLater
	}
	for _, f := range l.plan.Files {
		if f.Tree || expandHome(f.Target, l.user.Home) != target {
			continue
		}
		if f.Source == "" {
			return []byte(f.Content), nil
		}
		info, err := os.Stat(f.Source)
		switch {
		case err != nil:
			return nil, withKind(KindInput, err)
		case info.Size() > mcp.MaxFile:
			return nil, &oddFileError{fmt.Sprintf("%s has more than %d bytes", f.Source, mcp.MaxFile)}
		}
		content, err := os.ReadFile(f.Source)
		if err != nil {
			err = withKind(KindInput, err)
		}
		return content, err
	}
	for _, y := range layers {
		mode, known := y.holds(target)
		switch {
		case !known:
			continue
		case !mode.IsRegular():
			return nil, &oddFileError{target + " is no regular file"}
		}
		name, _ := y.name(target)
		content, err := y.tree.ReadFile(name, mcp.MaxFile)
		var broken *fs.PathError
		switch {
		case errors.Is(err, workspace.ErrGone):
			return nil, errLater
		case errors.As(err, &broken):
			err = &oddFileError{err.Error()}
		}
		return content, err
	}
	return readFile(ctx, l.view().open, target)
}
