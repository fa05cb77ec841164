// Package atomicfile replaces files as a whole.
package atomicfile

import (
	"io/fs"
	"path/filepath"

	"github.com/google/renameio/v2"
)

// Write makes or replaces a file: whoever opens it sees the old content or the new one, after
// a crash too. It has the mode's permission bits, whatever the umask says. If it fails the
// old file is there unchanged, and nothing beside it. What is written is next to the file for a
// moment, as a hidden file with its name and a number that only the owner may read, and stays
// there if the process is killed then.
func Write(path string, content []byte, mode fs.FileMode) error {
	// Not in the directory for temporary files: the content may be secret, and the file
	// system another one.
	f, err := renameio.NewPendingFile(path, renameio.WithTempDir(filepath.Dir(path)))
	if err != nil {
		return err
	}
	defer func() { _ = f.Cleanup() }() // nothing, once it is replaced
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Chmod(mode.Perm()); err != nil {
		return err
	}
	return f.CloseAtomicallyReplace()
}
