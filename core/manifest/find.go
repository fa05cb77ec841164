package manifest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// FileName is what a manifest is called.
const FileName = "bottle.yaml"

// ErrNotFound is the error of [Find] when there is no manifest anywhere.
var ErrNotFound = errors.New("no " + FileName)

// Find returns the path of the manifest that applies in directory dir: the first
// [FileName] in dir or a directory above it, then configDir/bottle/[FileName].
//
// A manifest decides which of the user's files and variables an agent gets, so
// one that is found above dir must belong to the user (or to root) and be
// writable by nobody else: another user's file in /tmp would otherwise speak for
// everyone who works below it. One that is named explicitly is not checked.
func Find(dir, configDir string) (string, error) {
	var looked []string
	for at := filepath.Clean(dir); ; {
		path := filepath.Join(at, FileName)
		ok, err := usable(path)
		if err != nil {
			return "", err
		}
		if ok {
			return path, nil
		}
		looked = append(looked, at)
		up := filepath.Dir(at)
		if up == at {
			break
		}
		at = up
	}
	where := fmt.Sprintf("in %s or a directory above it", dir)
	if configDir != "" {
		path := filepath.Join(configDir, "bottle", FileName)
		ok, err := usable(path)
		if err != nil {
			return "", err
		}
		if ok {
			return path, nil
		}
		where += ", nor at " + path
	}
	return "", fmt.Errorf("%w %s: write one, or name it with --file%s", ErrNotFound, where, misnamed(looked))
}

func usable(path string) (bool, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission):
		return false, nil
	case err != nil:
		return false, &Error{File: path, Msg: "the manifest cannot be read: " + reason(err)}
	case info.IsDir():
		return false, nil
	}
	if why := foreign(info); why != "" {
		return false, &Error{File: path, Msg: why + ": it is not used unless it is named with --file"}
	}
	return true, nil
}

// misnamed points at a file that was probably meant to be the manifest.
func misnamed(dirs []string) string {
	for _, dir := range dirs {
		for _, name := range []string{"bottle.yml", ".bottle.yaml", "Bottle.yaml", "bottles.yaml"} {
			path := filepath.Join(dir, name)
			if info, err := os.Stat(path); err == nil && !info.IsDir() && !strings.EqualFold(name, FileName) {
				return fmt.Sprintf(" (there is a %s: rename it?)", path)
			}
		}
	}
	return ""
}
