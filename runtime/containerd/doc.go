// Package containerd implements runtime.Runtime on a bare containerd, 1.6 or
// newer. The server needs containerd and runc and nothing else: this package
// makes networks itself with netlink and nftables (no CNI), keeps names in hosts
// files (no dnsmasq), builds images with BuildKit as a library (no buildkitd) and
// copies through openat2.
//
// It must run as root, on the machine and in the mount and network namespaces of
// containerd, and exists on Linux alone.
//
// # What it keeps where
//
// Containers, images and snapshots live in containerd's namespace "bottle". What
// containerd does not keep is below the state directory
// (/var/lib/bottle/containerd): a file per network, and a directory per container
// with its hosts file, its log and its init. What a reboot ends is below
// /run/bottle: which address belongs to which container. Every container and name
// has a lock file, so that several processes can work at once; a claim whose
// process died is found and undone by the next one that opens the engine.
//
// # Networks
//
// A network is a bridge of its own. A container's end of each veth pair lies in
// the network namespace that the OCI runtime made for it, so nothing of it needs
// to be pinned. One nftables table in the inet family and one in the bridge
// family ("bottle") hold fixed rules that match bottle's devices by prefix, and
// sets of what exists:
//
//   - A port passes IPv4 and ARP from its own MAC and IPv4 address, and nothing
//     else: no other sender, no IPv6, no VLAN, whatever the container's
//     capabilities.
//   - The bridge of an internal network has no address and no IPv6; nothing that
//     arrives from it reaches the host or is forwarded, nothing leaves through it.
//   - From an egress network connections go out, translated; none to the host
//     (but DNS, where the host itself is a nameserver of its resolv.conf), none to
//     another network of bottle's and none to the usual bridges of other engines.
//     None come in.
//
// Where iptables forwards nothing by default (Docker), the rules accept bottle's
// devices there: the drops above still hold, since an accept in one table does
// not undo a drop in another.
//
// A container on an internal network alone has no nameserver. One with a way out
// has the host's; those on the host's loopback are replaced by what systemd-resolved
// or NetworkManager forwards to.
//
// # Limits
//
// Copies into a running container do not depend on tar or a shell in it. A
// container's output is kept to its last 64 MiB. After a reboot, what ran before
// is reported as exited with status 255.
package containerd
