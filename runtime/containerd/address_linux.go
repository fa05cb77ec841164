package containerd

import (
	"os"
	"strings"
)

const (
	defaultAddress = "/run/containerd/containerd.sock"
	// defaultNamespace is containerd's namespace for all that bottle makes.
	defaultNamespace = "bottle"
)

// address is the path of the socket to use: host's, CONTAINERD_ADDRESS's or the
// usual one. named reports that somebody chose it.
func address(host string) (path string, named bool) {
	if host == "" {
		host = os.Getenv("CONTAINERD_ADDRESS")
	}
	if host == "" {
		return defaultAddress, false
	}
	return strings.TrimPrefix(host, "unix://"), true
}
