package docker

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// answersARP asks for an address on an interface and reports whether somebody
// answers.
func answersARP(t *testing.T, on *net.Interface, address net.IP) bool {
	t.Helper()
	const protocol = unix.ETH_P_ARP
	order := func(v uint16) uint16 { return v<<8 | v>>8 }
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(order(protocol)))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd) //nolint:errcheck // a test's socket
	to := &unix.SockaddrLinklayer{Protocol: order(protocol), Ifindex: on.Index}
	if err := unix.Bind(fd, to); err != nil {
		t.Fatal(err)
	}
	timeout := unix.NsecToTimeval(int64(100 * time.Millisecond))
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	broadcast := []byte{255, 255, 255, 255, 255, 255}
	frame := append(append(append([]byte{}, broadcast...), on.HardwareAddr...), 0x08, 0x06)
	arp := make([]byte, 28)
	binary.BigEndian.PutUint16(arp[0:], 1)      // Ethernet
	binary.BigEndian.PutUint16(arp[2:], 0x0800) // IPv4
	arp[4], arp[5] = 6, 4
	binary.BigEndian.PutUint16(arp[6:], 1) // request
	copy(arp[8:], on.HardwareAddr)
	copy(arp[14:], net.IPv4(192, 0, 2, 9).To4())
	copy(arp[24:], address)
	frame = append(frame, arp...)
	buf := make([]byte, 256)
	// The bridge's port forwards only a moment after it came up.
	for range 20 {
		if err := unix.Sendto(fd, frame, 0, to); err != nil {
			t.Fatal(err)
		}
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err == nil && n >= 42 && binary.BigEndian.Uint16(buf[20:]) == 2 && net.IP(buf[28:32]).Equal(address) {
			return true
		}
	}
	return false
}
