//go:build unix

package buildcontext

import "syscall"

const (
	// nonblock keeps an open from waiting at a FIFO.
	nonblock = syscall.O_NONBLOCK
	// openFlags are for files that were something else when they were looked at.
	openFlags = syscall.O_NOFOLLOW | nonblock
)
