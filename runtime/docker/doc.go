// Package docker implements bottle's runtime interface on the Docker Engine API,
// from 1.41 (Docker 20.10) on.
//
// Everything goes through the API, so a remote engine (tcp://, ssh://) works as a
// local one does, with one exception: sealing an internal network.
//
// # Internal networks
//
// What Docker calls internal keeps traffic from being forwarded, no more. A
// process inside such a network, without any capability, still reaches services
// of the host: through the bridge's gateway address, and, where that is
// inhibited, by binding a socket to the interface and asking for no gateway
// (SO_BINDTODEVICE, SO_DONTROUTE), because the host answers ARP for each of its
// addresses on each of its interfaces. Docker's API has no option against that, so
// an internal network here is made in one of two ways, see [sealer]: a bridge
// whose way up to the host's network stack is cut by nftables, or a macvlan
// network without a parent, which has no such way.
//
// # Files and read-only containers
//
// Docker refuses to copy into a container whose root is read-only. Such a
// container gets its files from a volume of its own, filled by a container that
// is never started and mounted file by file, read-only.
//
// # Handshakes
//
// The streams of a container are attached to before it is started.
//
// # What Docker cannot do
//
// Copies to and from a tmpfs are refused (FeatureCopyTmpfs): the engine performs
// them below the mount, where nobody sees them.
package docker
