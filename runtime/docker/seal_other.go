//go:build !linux

package docker

// newSealer returns a sealer that cannot: the daemon runs in a virtual machine.
func newSealer(*engine) sealer {
	return noSealer{"bottle does not run on the engine's host"}
}
