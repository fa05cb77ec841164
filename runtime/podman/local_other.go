//go:build !linux

package podman

// localSocket is false where Podman lives in a virtual machine.
func localSocket(string) bool { return false }
