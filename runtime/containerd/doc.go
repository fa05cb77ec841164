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
// /run/bottle: which address belongs to which container. A name that is being worked
// on has a lock file, so that several processes can work at once; a claim whose
// process died is found and undone by the next one that opens the engine. Containers
// that remove themselves are watched by a process of their own, which is this very
// program started again and ends with the last of them; any program that imports
// this package can be that, since it is recognized before main.
//
// # Handshakes
//
// The input of a first process is a FIFO of the container's directory, mounted into it at
// /dev/init.input, which the init opens for the process; what the process says is read from its
// log. runsc opens no such FIFO: a handshake under it is NotImplemented.
//
// # Networks
//
// A network is a bridge of its own. A container's end of each veth pair lies in
// a network namespace that the process which makes the container holds open until
// the container's own does, so nothing needs to be pinned and nothing stays behind.
// One nftables table in the inet family and one in the bridge family ("bottle")
// hold fixed rules that match bottle's devices by prefix, and sets of what exists:
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
// not undo a drop in another. All rules go with the last network; that the host
// forwards IPv4, which the first egress network turns on, stays.
//
// A step of a build gets an egress network of its own for as long as it runs.
//
// A container on an internal network alone has no nameserver. One with a way out
// has the host's; those on the host's loopback are replaced by what systemd-resolved
// or NetworkManager forwards to.
//
// # Limits
//
// A container's output is kept to its last 64 MiB. After a reboot, what ran before
// is reported as exited with status 255. Whoever flushes the machine's nftables
// rules (nft flush ruleset) unseals running containers until the next container or
// network of bottle's is made or removed, which restores them. No AppArmor profile
// and no SELinux label is set. An OCI runtime other than runc (crun, youki, runsc)
// is the one in PATH, or what BOTTLE_OCI_RUNTIME_ and its name in capitals names.
package containerd
