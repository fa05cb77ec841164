package probe

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"unsafe"
)

func init() {
	register(map[string]command{
		// route CIDR via ADDR | route CIDR dev IFACE: adds a route.
		"route": addRoute,
		// addr CIDR IFACE: adds an address.
		"addr": addAddress,
		// frames IFACE TOKEN "DST-MAC SRC-IP DST-IP:PORT"…: forges Ethernet frames
		// with a UDP datagram each.
		"frames": forgeFrames,
		// forbidden: tries what a sealed process must not be allowed to do.
		"forbidden": forbidden,
		// sysctl PATH VALUE: writes below /proc/sys.
		"sysctl": func(_ context.Context, c *Call) int {
			return c.done(os.WriteFile("/proc/sys/"+c.arg(0), []byte(c.arg(1)), 0))
		},
		// unmount PATH
		"unmount": func(_ context.Context, c *Call) int { return c.done(syscall.Unmount(c.arg(0), syscall.MNT_DETACH)) },
		// bind PATH TARGET: a bind mount.
		"bind": func(_ context.Context, c *Call) int {
			return c.done(syscall.Mount(c.arg(0), c.arg(1), "", syscall.MS_BIND, ""))
		},
	})
}

func addRoute(_ context.Context, c *Call) int {
	if !inContainer() {
		return c.usage("%s is run in containers of the conformance suite only", c.Args[0])
	}
	dst, err := netip.ParsePrefix(c.arg(0))
	if err != nil {
		return c.done(err)
	}
	msg := []byte{family(dst.Addr()), byte(dst.Bits()), 0, 0, syscall.RT_TABLE_MAIN, syscall.RTPROT_STATIC,
		syscall.RT_SCOPE_UNIVERSE, syscall.RTN_UNICAST, 0, 0, 0, 0}
	msg = attr(msg, syscall.RTA_DST, dst.Masked().Addr().AsSlice())
	switch c.arg(1) {
	case "via":
		via, err := netip.ParseAddr(c.arg(2))
		if err != nil {
			return c.done(err)
		}
		msg = attr(msg, syscall.RTA_GATEWAY, via.WithZone("").AsSlice())
		if zone := via.Zone(); zone != "" {
			link, err := net.InterfaceByName(zone)
			if err != nil {
				return c.done(err)
			}
			msg = attr(msg, syscall.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(link.Index)))
		}
	case "dev":
		link, err := net.InterfaceByName(c.arg(2))
		if err != nil {
			return c.done(err)
		}
		msg[6] = syscall.RT_SCOPE_LINK
		msg = attr(msg, syscall.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(link.Index)))
	default:
		return c.usage("route CIDR via ADDR | dev IFACE")
	}
	return c.done(netlink(syscall.RTM_NEWROUTE, msg))
}

func addAddress(_ context.Context, c *Call) int {
	prefix, err := netip.ParsePrefix(c.arg(0))
	if err != nil {
		return c.done(err)
	}
	link, err := net.InterfaceByName(c.arg(1))
	if err != nil {
		return c.done(err)
	}
	const nodad = 2
	msg := []byte{family(prefix.Addr()), byte(prefix.Bits()), nodad, syscall.RT_SCOPE_UNIVERSE}
	msg = binary.NativeEndian.AppendUint32(msg, uint32(link.Index))
	msg = attr(msg, syscall.IFA_LOCAL, prefix.Addr().AsSlice())
	msg = attr(msg, syscall.IFA_ADDRESS, prefix.Addr().AsSlice())
	return c.done(netlink(syscall.RTM_NEWADDR, msg))
}

func family(a netip.Addr) byte {
	if a.Is6() {
		return syscall.AF_INET6
	}
	return syscall.AF_INET
}

// attr appends a netlink attribute.
func attr(msg []byte, typ uint16, value []byte) []byte {
	msg = binary.NativeEndian.AppendUint16(msg, uint16(4+len(value)))
	msg = binary.NativeEndian.AppendUint16(msg, typ)
	msg = append(msg, value...)
	for len(msg)%4 != 0 {
		msg = append(msg, 0)
	}
	return msg
}

// netlink makes a request and returns the kernel's answer.
func netlink(typ uint16, payload []byte) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, syscall.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { _ = syscall.Close(fd) }()
	msg := binary.NativeEndian.AppendUint32(nil, uint32(syscall.NLMSG_HDRLEN+len(payload)))
	msg = binary.NativeEndian.AppendUint16(msg, typ)
	msg = binary.NativeEndian.AppendUint16(msg, syscall.NLM_F_REQUEST|syscall.NLM_F_ACK|syscall.NLM_F_CREATE|syscall.NLM_F_REPLACE)
	msg = append(msg, make([]byte, 8)...)
	if err := syscall.Sendto(fd, append(msg, payload...), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return err
	}
	b := make([]byte, 4096)
	n, _, err := syscall.Recvfrom(fd, b, 0)
	if err != nil {
		return err
	}
	if n < 20 || binary.NativeEndian.Uint16(b[4:]) != syscall.NLMSG_ERROR {
		return fmt.Errorf("netlink: an answer of %d bytes that is no acknowledgement", n)
	}
	if errno := -int32(binary.NativeEndian.Uint32(b[16:])); errno != 0 {
		return syscall.Errno(errno)
	}
	return nil
}

func forgeFrames(_ context.Context, c *Call) int {
	link, err := net.InterfaceByName(c.arg(0))
	if err != nil {
		return c.done(err)
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return c.done(err)
	}
	defer func() { _ = syscall.Close(fd) }()
	for _, frame := range c.rest(2) {
		var to, from, at string
		if _, err := fmt.Sscan(frame, &to, &from, &at); err != nil {
			return c.done(err)
		}
		mac, err := net.ParseMAC(to)
		if err != nil {
			return c.done(err)
		}
		src, err := netip.ParseAddr(from)
		if err != nil {
			return c.done(err)
		}
		dst, err := netip.ParseAddrPort(at)
		if err != nil {
			return c.done(err)
		}
		const ethIPv4 = 0x0800
		addr := &syscall.SockaddrLinklayer{Protocol: ethIPv4>>8 | ethIPv4<<8&0xff00, Ifindex: link.Index, Halen: uint8(len(mac))}
		copy(addr.Addr[:], mac)
		if err := syscall.Sendto(fd, datagram(src, dst, []byte(c.arg(1))), 0, addr); err != nil {
			return c.done(err)
		}
	}
	return 0
}

// datagram is an IPv4 packet with a UDP datagram (without its checksum, which
// IPv4 allows).
func datagram(src netip.Addr, dst netip.AddrPort, payload []byte) []byte {
	p := []byte{0x45, 0, 0, 0, 0, 1, 0, 0, 64, syscall.IPPROTO_UDP, 0, 0}
	p = append(append(p, src.AsSlice()...), dst.Addr().AsSlice()...)
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)+8+len(payload)))
	binary.BigEndian.PutUint16(p[10:], checksum(p))
	p = binary.BigEndian.AppendUint16(p, 4242)
	p = binary.BigEndian.AppendUint16(p, dst.Port())
	p = binary.BigEndian.AppendUint16(p, uint16(8+len(payload)))
	return append(append(p, 0, 0), payload...)
}

// inContainer keeps the attempts away from a machine on which somebody runs the
// program by hand.
func inContainer() bool {
	exe, err := os.Readlink("/proc/self/exe")
	return err == nil && exe == Path
}

// forbidden makes each attempt such that it would change little if it were
// allowed.
func forbidden(_ context.Context, c *Call) int {
	if !inContainer() {
		return c.usage("%s is run in containers of the conformance suite only", c.Args[0])
	}
	result := Denied{}
	try := func(name string, err error) {
		result[name] = ""
		if err != nil {
			result[name] = err.Error()
		}
	}
	dir := os.TempDir()
	try("mount", func() error {
		err := syscall.Mount("none", dir, "tmpfs", 0, "")
		if err == nil {
			_ = syscall.Unmount(dir, syscall.MNT_DETACH)
		}
		return err
	}())
	// In a child: the namespace must not become this process's own.
	try("new user namespace", cloneInto(syscall.CLONE_NEWUSER))
	try("new mount namespace", cloneInto(syscall.CLONE_NEWNS))
	try("set host name", func() error {
		name, err := os.Hostname()
		if err != nil {
			return err
		}
		return syscall.Sethostname([]byte(name))
	}())
	try("make device", func() error {
		name := dir + "/.probe-device"
		defer func() { _ = os.Remove(name) }()
		return syscall.Mknod(name, syscall.S_IFBLK|0o600, 8<<8)
	}())
	try("change owner", func() error {
		name := dir + "/.probe-owner"
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			return err
		}
		defer func() { _ = os.Remove(name) }()
		return os.Chown(name, 12345, 12345)
	}())
	try("kernel log", func() error {
		_, err := syscall.Klogctl(3, make([]byte, 64))
		return err
	}())
	try("load module", func() error {
		b := []byte("x") // no module: what is asked is whether the call may be made
		_, _, e := syscall.RawSyscall(syscall.SYS_INIT_MODULE, uintptr(unsafe.Pointer(&b[0])), 1, uintptr(unsafe.Pointer(&b[0])))
		if e == syscall.EPERM {
			return e
		}
		return nil
	}())
	try("raw socket", func() error {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
		if err == nil {
			_ = syscall.Close(fd)
		}
		return err
	}())
	try("add route", netlink(syscall.RTM_NEWROUTE, attr([]byte{syscall.AF_INET, 32, 0, 0, syscall.RT_TABLE_MAIN,
		syscall.RTPROT_STATIC, syscall.RT_SCOPE_LINK, syscall.RTN_BLACKHOLE, 0, 0, 0, 0}, syscall.RTA_DST, []byte{192, 0, 2, 9})))
	try("write kernel setting", func() error {
		const setting = "/proc/sys/kernel/core_pattern"
		old, err := os.ReadFile(setting)
		if err != nil {
			return err
		}
		return os.WriteFile(setting, old, 0)
	}())
	try("read memory of the kernel", func() error {
		f, err := os.Open("/proc/kcore")
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		if n, err := f.Read(make([]byte, 1)); n == 0 {
			return fmt.Errorf("nothing to read: %w", err)
		}
		return nil
	}())
	return c.json(result)
}

// cloneInto starts a child in a new namespace, and reports whether that was
// allowed.
func cloneInto(flags uintptr) error {
	attr := &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Cloneflags: flags},
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"probe", "exit", "0"}, attr)
	if err != nil {
		return err
	}
	var status syscall.WaitStatus
	_, err = syscall.Wait4(pid, &status, 0, nil)
	return err
}
