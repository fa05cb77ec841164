package workspace

import (
	"path"
	"path/filepath"
	"strings"
)

// Ignored returns a function that says whether Scan of root would leave out a file or directory
// of that name, or one that holds it, whether it is there or not. It reads root's ignore files;
// not those of directories that are missing.
func Ignored(root string, opts Options) (func(name string) bool, error) {
	root, err := filepath.Abs(root)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	if err != nil {
		return nil, err
	}
	base := ignores{useGit: !opts.NoGitIgnore && !opts.All}
	for _, line := range opts.Ignore {
		if p, ok := parsePattern(line); ok {
			base.manifest = append(base.manifest, rules{patterns: []pattern{p}})
		}
	}
	if base.useGit {
		if err := base.above(root); err != nil {
			return nil, err
		}
	}
	if !opts.All {
		if _, err := base.enter(root, "."); err != nil {
			return nil, err
		}
	}
	// dirs are the directories that were met: nil is one that is left out.
	dirs := map[string]*ignores{".": &base}
	var dir func(name string) *ignores
	dir = func(name string) *ignores {
		if g, ok := dirs[name]; ok {
			return g
		}
		up := dir(path.Dir(name))
		if up == nil || up.ignored(name, true) {
			dirs[name] = nil
			return nil
		}
		g := *up
		// Each has its own slices to append to.
		g.bottle, g.git = append(layer(nil), up.bottle...), append(layer(nil), up.git...)
		if !opts.All {
			_, _ = g.enter(root, name) // an ignore file that cannot be read says nothing
		}
		if len(g.bottle) == len(up.bottle) && len(g.git) == len(up.git) {
			dirs[name] = up
			return up
		}
		dirs[name] = &g
		return &g
	}
	return func(name string) bool {
		name = strings.TrimSuffix(path.Clean(name), "/")
		g := dir(path.Dir(name))
		return g == nil || g.ignored(name, false)
	}, nil
}
