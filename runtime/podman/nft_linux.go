package podman

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The few nftables messages needed, by hand: the socket lives in another network
// namespace, where no library can be told to open one.

const (
	sealPriority = -500 // before every other hook
	hookIngress  = 0    // NF_NETDEV_INGRESS
	nfDrop       = 0    // NF_DROP
)

// tableName is the table of a bridge's seal.
func tableName(bridge string) string { return "bottle-" + bridge }

// nftSeal puts a chain that drops everything on the ingress of a bridge. What
// goes from port to port does not pass there. A table of that name is replaced, in
// one transaction.
func nftSeal(fd int, bridge string) error {
	var b nftBatch
	name := attr(unix.NFTA_TABLE_NAME, cstring(tableName(bridge)))
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, name)
	b.add(unix.NFT_MSG_DELTABLE, 0, name)
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, name)
	hook := attr(unix.NFTA_CHAIN_HOOK|unix.NLA_F_NESTED, join(
		attr(unix.NFTA_HOOK_HOOKNUM, be32(hookIngress)),
		attr(unix.NFTA_HOOK_PRIORITY, be32(uint32(0x100000000+sealPriority))),
		attr(unix.NFTA_HOOK_DEV, cstring(bridge)),
	))
	b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE|unix.NLM_F_ACK, join(
		attr(unix.NFTA_CHAIN_TABLE, cstring(tableName(bridge))),
		attr(unix.NFTA_CHAIN_NAME, cstring("drop")),
		hook,
		attr(unix.NFTA_CHAIN_POLICY, be32(nfDrop)),
		attr(unix.NFTA_CHAIN_TYPE, cstring("filter")),
	))
	return b.send(fd)
}

// nftUnseal removes the table; ENOENT if there is none.
func nftUnseal(fd int, bridge string) error {
	var b nftBatch
	b.add(unix.NFT_MSG_DELTABLE, unix.NLM_F_ACK, attr(unix.NFTA_TABLE_NAME, cstring(tableName(bridge))))
	return b.send(fd)
}

// nftBatch is a transaction of nftables, for the family netdev.
type nftBatch struct {
	messages []byte
	seq      uint32
}

func (b *nftBatch) add(kind int, flags uint16, attrs []byte) {
	b.raw(uint16(unix.NFNL_SUBSYS_NFTABLES<<8|kind), flags, unix.NFPROTO_NETDEV, 0, attrs)
}

func (b *nftBatch) raw(kind, flags uint16, family byte, resource uint16, attrs []byte) {
	if b.messages == nil && kind != unix.NFNL_MSG_BATCH_BEGIN {
		b.raw(unix.NFNL_MSG_BATCH_BEGIN, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	}
	b.seq++
	m := make([]byte, 20, 20+len(attrs))
	binary.NativeEndian.PutUint32(m[0:], uint32(20+len(attrs)))
	binary.NativeEndian.PutUint16(m[4:], kind)
	binary.NativeEndian.PutUint16(m[6:], flags|unix.NLM_F_REQUEST)
	binary.NativeEndian.PutUint32(m[8:], b.seq)
	m[16] = family
	m[17] = unix.NFNETLINK_V0
	binary.BigEndian.PutUint16(m[18:], resource)
	b.messages = append(b.messages, append(m, attrs...)...)
}

// send sends the transaction and waits for the acknowledgement of its last
// message, or for the first error.
func (b *nftBatch) send(fd int) error {
	last := b.seq
	b.raw(unix.NFNL_MSG_BATCH_END, 0, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES, nil)
	// The kernel answers at once; the limit is for a kernel that does not.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		return err
	}
	if err := unix.Sendto(fd, b.messages, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for rest := buf[:n]; len(rest) >= 16; {
			size := int(binary.NativeEndian.Uint32(rest))
			if size < 16 || size > len(rest) {
				return errors.New("the kernel's answer is broken")
			}
			if binary.NativeEndian.Uint16(rest[4:]) == unix.NLMSG_ERROR && size >= 20 {
				code := int32(binary.NativeEndian.Uint32(rest[16:]))
				if code != 0 {
					return fmt.Errorf("nftables: %w", unix.Errno(-code))
				}
				if binary.NativeEndian.Uint32(rest[8:]) == last {
					return nil
				}
			}
			rest = rest[min(align4(size), len(rest)):]
		}
	}
}

func align4(n int) int { return (n + 3) &^ 3 }

func attr(kind uint16, value []byte) []byte {
	a := make([]byte, align4(4+len(value)))
	binary.NativeEndian.PutUint16(a, uint16(4+len(value)))
	binary.NativeEndian.PutUint16(a[2:], kind)
	copy(a[4:], value)
	return a
}

func cstring(s string) []byte { return append([]byte(s), 0) }

func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }

func join(parts ...[]byte) []byte {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}
