//go:build !unix

package manifest

import "io/fs"

// foreign cannot tell on this system.
func foreign(fs.FileInfo) string { return "" }
