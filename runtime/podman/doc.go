// Package podman runs bottles on Podman, rootless first, through the libpod API.
//
// It speaks to the service that answers at the named or usual socket, and starts
// `podman system service` for itself if none does. Of Podman's own packages it
// uses pkg/bindings alone (connections, the error model); requests and answers
// are the small structs of api.go.
//
// # Sealing
//
// An internal network is a bridge that has no address and no DNS server, so that
// nothing on the host's side of it can be named, and IPv6 is off in its
// containers. That seals a container which cannot change its network. For one
// that can (NET_ADMIN, NET_RAW), the bridge itself drops whatever its ports send
// up to the host (an nftables chain on its ingress). That takes the engine on
// this machine: elsewhere such a container is refused on an internal network.
// The host of a rootless engine is its own network namespace, in which nothing
// listens but the name servers of other networks.
//
// # Names
//
// Containers of an internal network find each other through their hosts files,
// which this package rewrites in place whenever a container joins or leaves. On
// other networks Podman's DNS server answers.
//
// # Handshakes
//
// The monitor of a container that is initialised is attached to before the container is
// started. What the service loses of the words of a process that ends with input unread is
// read from the log.
package podman

import "github.com/bottle-run/bottle/runtime"

// Name is the engine's name.
const Name = "podman"

// Driver knows Podman.
type Driver struct{}

var _ runtime.Driver = Driver{}

// Name implements [runtime.Driver].
func (Driver) Name() string { return Name }
