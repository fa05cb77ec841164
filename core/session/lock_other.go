//go:build !unix

package session

import (
	"errors"
	"os"
)

var errLocked = errors.New("another process holds its lock")

func lock(string) (*os.File, error) {
	return nil, errors.New("sessions are not kept on this system")
}

func owner(os.FileInfo) (uid int, known bool) { return 0, false }

const noFollow = 0
