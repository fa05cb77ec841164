//go:build !unix

package buildcontext

const (
	nonblock  = 0
	openFlags = 0
)
