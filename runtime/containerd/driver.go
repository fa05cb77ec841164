package containerd

import (
	"os"
	"strings"
)

// Driver is containerd's [runtime.Driver].
type Driver struct{}

const (
	engine         = "containerd"
	defaultAddress = "/run/containerd/containerd.sock"
	// defaultNamespace is containerd's namespace for all that bottle makes.
	defaultNamespace = "bottle"
)

// Name is what --runtime takes.
func (Driver) Name() string { return engine }

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
