//go:build unix

package manifest

import (
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// foreign says why a file may have been written by someone other than the user,
// or "".
func foreign(info fs.FileInfo) string {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	owner := int(stat.Uid)
	trusted := owner == 0 || owner == os.Getuid()
	if sudo, err := strconv.Atoi(os.Getenv("SUDO_UID")); err == nil && os.Getuid() == 0 {
		trusted = trusted || owner == sudo
	}
	switch {
	case !trusted:
		return fmt.Sprintf("the manifest belongs to another user (uid %d)", owner)
	case info.Mode().Perm()&0o002 != 0:
		return "everyone may write to the manifest"
	}
	return ""
}
