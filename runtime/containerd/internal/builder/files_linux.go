package builder

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/tonistiigi/fsutil"
	fstypes "github.com/tonistiigi/fsutil/types"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
)

// files is a directory that a build reads from. Somebody may change it meanwhile,
// an agent in whose workspace it lies: no link leads out of it, and a pipe or a
// device that was a file a moment ago is not read.
type files struct {
	fsutil.FS
	root fsutil.Root
}

// openFiles opens a directory. Whoever owns a file in it, in the image root does.
func openFiles(dir string) (fsutil.FS, io.Closer, error) {
	opened, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, err
	}
	root := fsutil.NewRoot(opened)
	filtered, err := fsutil.NewFilterFS(files{fsutil.NewRootFS(root), root}, &fsutil.FilterOpt{
		Map: func(_ string, st *fstypes.Stat) fsutil.MapResult {
			st.Uid, st.Gid = 0, 0
			return fsutil.MapResultKeep
		},
	})
	if err != nil {
		return nil, nil, errors.Join(err, root.Close())
	}
	return filtered, root, nil
}

// Open implements [fsutil.FS].
func (f files) Open(name string) (io.ReadCloser, error) {
	name = strings.TrimLeft(filepath.Clean(name), "/")
	file, err := f.root.OpenFile(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = runtime.Errorf(errdefs.ErrFailedPrecondition, "%s is no longer a file", name)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

// openAll opens directories by the names that the frontend has for them.
func openAll(dirs map[string]string) (_ map[string]fsutil.FS, closeAll func(), err error) {
	opened := map[string]fsutil.FS{}
	var closers []io.Closer
	closeAll = func() {
		for _, c := range closers {
			_ = c.Close()
		}
	}
	for name, dir := range dirs {
		fs, c, err := openFiles(dir)
		if err != nil {
			closeAll()
			return nil, nil, fmt.Errorf("read %s: %w", dir, err)
		}
		opened[name] = fs
		closers = append(closers, c)
	}
	return opened, closeAll, nil
}
