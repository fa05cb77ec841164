package main

import (
	"os"
	"path/filepath"

	"github.com/bottle-run/bottle/core/imagecache"
)

// images is what launches of this user have learnt of images; nil if the user has no place for
// it.
func images() *imagecache.Cache {
	dir, err := os.UserCacheDir()
	if err != nil {
		return nil
	}
	return imagecache.New(filepath.Join(dir, "bottle", "images"))
}
