package intercept

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// States of TCP (tcp_states.h).
const (
	tcpEstablished = 1
	tcpSynRecv     = 3
)

// gone reports whether the client of a connection has closed it, or its own half of it.
// Nothing is read.
func gone(c net.Conn) bool {
	if s, ok := c.(*slotConn); ok {
		c = s.Conn
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = rc.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		gone = err == nil && info.State != tcpEstablished && info.State != tcpSynRecv
	})
	return gone || err != nil
}
