package podman

import (
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime/internal/procs"
)

// localSocket reports whether the process behind a socket is Podman's, or
// systemd's on its behalf: behind a forwarded socket is ssh, and the paths and
// pids of such an engine are not this machine's.
func localSocket(path string) bool {
	c, err := net.Dial("unix", path)
	if err != nil {
		return false
	}
	defer func() { _ = c.Close() }()
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	var cred *unix.Ucred
	if err := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil || cred == nil {
		return false
	}
	comm, err := os.ReadFile(procs.File(int(cred.Pid), "comm"))
	if err != nil {
		return false
	}
	name := strings.TrimSpace(string(comm))
	return strings.HasPrefix(name, "podman") || name == "systemd"
}
