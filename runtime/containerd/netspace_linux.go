package containerd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime/internal/procs"
)

// netspace is a network namespace for a container. No file is bound to it: this
// process holds it until the container's does, so that nothing of it stays behind,
// whoever is killed.
type netspace struct{ handle netns.NsHandle }

// newNetspace makes one in which the loopback device is up, there is no IPv6, and
// nothing is forwarded (a new one takes ip_forward over from its maker; on two
// networks it would route between them).
func newNetspace() (*netspace, error) {
	handle := netns.None()
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		if handle, err = netns.Get(); err != nil {
			return err
		}
		for name, value := range map[string]string{
			"ipv6/conf/all/disable_ipv6":     "1",
			"ipv6/conf/default/disable_ipv6": "1",
			"ipv4/ip_forward":                "0",
			// Without capabilities, servers listen below 1024 and ping works.
			"ipv4/ip_unprivileged_port_start": "0",
			"ipv4/ping_group_range":           "0 2147483647",
		} {
			err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0o644)
			// A kernel without IPv6 has nothing to disable.
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		if handle.IsOpen() {
			_ = handle.Close()
		}
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	n := &netspace{handle}
	if err := n.startLoopback(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the loopback device: %w", err), n.Close())
	}
	return n, nil
}

func (n *netspace) startLoopback() error {
	link, err := netlink.NewHandleAt(n.handle, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer link.Close()
	lo, err := link.LinkByName("lo")
	if err != nil {
		return err
	}
	return link.LinkSetUp(lo)
}

// path names the namespace for every process that sees this one's /proc.
func (n *netspace) path() string {
	return procs.File(os.Getpid(), fmt.Sprintf("fd/%d", int(n.handle)))
}

func (n *netspace) Close() error { return n.handle.Close() }

// onThread runs a function that changes its thread's namespaces on a thread that
// ends with it. The process's first thread would not end, and is what /proc/self
// shows: from there the function moves to another.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		goruntime.LockOSThread() // never unlocked: so the thread ends
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		other := make(chan error, 1)
		go func() {
			goruntime.LockOSThread()
			other <- f()
		}()
		done <- <-other
		goruntime.UnlockOSThread()
	}()
	return <-done
}
