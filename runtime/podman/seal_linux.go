package podman

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/procs"
	"github.com/containerd/errdefs"
)

// seal makes the bridges of internal networks drop whatever their ports send up
// to the host's side. It is called between the moment when a container's network
// is there and the start of its process.
func (e *engine) seal(c apiContainer, networks []apiNetwork) error {
	if !e.local {
		return runtime.Errorf(errdefs.ErrNotImplemented, "the engine is not on this machine")
	}
	for _, n := range networks {
		if !n.Internal {
			continue
		}
		s, err := netlinkIn(c, n.NetworkInterface)
		if err != nil {
			return fmt.Errorf("the host's side of network %s: %w", n.Name, err)
		}
		err = nftSeal(s.fd, n.NetworkInterface)
		s.close()
		if err != nil {
			return fmt.Errorf("nftables on the bridge of network %s: %w", n.Name, err)
		}
	}
	e.mu.Lock()
	e.sealedBy = c.State.ConmonPid
	e.mu.Unlock()
	return nil
}

// unseal removes what seal left, which is an empty table: the chain went with the
// bridge. In a rootless engine's network namespace it matters little, and is left
// to the namespace's end if no container is there to lead to it.
func (e *engine) unseal(bridge string) {
	e.mu.Lock()
	pid := e.sealedBy
	e.mu.Unlock()
	if !e.local || bridge == "" {
		return
	}
	var spaces []netSpace
	if os.Geteuid() == 0 {
		spaces = []netSpace{{net: "/proc/self/ns/net"}}
	} else if pid != 0 {
		spaces = rootlessSpaces(apiContainer{}, pid)
	}
	for _, space := range spaces {
		s, err := space.netlink()
		if err != nil {
			continue
		}
		if err := nftUnseal(s.fd, bridge); err != nil && !errors.Is(err, unix.ENOENT) {
			e.log.Debug("podman: nftables table stays", "bridge", bridge, "err", err)
		}
		s.close()
	}
}

// netSpace is a network namespace, and the user namespace that owns it if that is
// not our own.
type netSpace struct{ user, net string }

// netlinkIn opens an nfnetlink socket in the network namespace that holds the
// bridge of a container's network.
func netlinkIn(c apiContainer, bridge string) (*nsSocket, error) {
	pid := c.State.ConmonPid
	if pid <= 0 {
		return nil, errors.New("the container has no monitor")
	}
	spaces := []netSpace{{net: procs.File(pid, "ns/net")}}
	if os.Geteuid() != 0 {
		spaces = rootlessSpaces(c, pid)
	}
	var errs []error
	for _, space := range spaces {
		s, err := space.netlink()
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", space.net, err))
			continue
		}
		if s.has(bridge) {
			return s, nil
		}
		s.close()
	}
	if len(errs) == 0 {
		return nil, fmt.Errorf("no network namespace of the engine's has the bridge %s", bridge)
	}
	return nil, errors.Join(errs...)
}

// rootlessSpaces are the places where Podman keeps the network namespace of a
// user's bridges: up to 4.9 beside the containers' own, from 5.0 on below its run
// root. Both are mounts in Podman's mount namespace, in which the monitor lives.
func rootlessSpaces(c apiContainer, pid int) []netSpace {
	root := procs.File(pid, "root")
	patterns := []string{filepath.Join(runtimeDir(), "netns", "rootless-netns-*")}
	if c.NetworkSettings.SandboxKey != "" {
		patterns[0] = filepath.Join(filepath.Dir(c.NetworkSettings.SandboxKey), "rootless-netns-*")
	}
	if c.HostsPath != "" {
		runRoot := filepath.Join(c.HostsPath, "../../../..")
		patterns = append(patterns, filepath.Join(runRoot, "networks/rootless-netns/rootless-netns"))
	}
	patterns = append(patterns, filepath.Join(runtimeDir(), "containers/networks/rootless-netns/rootless-netns"))
	var spaces []netSpace
	for _, p := range patterns {
		found, _ := filepath.Glob(filepath.Join(root, p))
		for _, f := range found {
			spaces = append(spaces, netSpace{user: procs.File(pid, "ns/user"), net: f})
		}
	}
	return spaces
}

// nsSocket is a netlink socket, which stays in the namespace it was opened in.
type nsSocket struct{ fd int }

func (s *nsSocket) close() { _ = unix.Close(s.fd) }

// has reports whether the socket's namespace has an interface.
func (s *nsSocket) has(name string) bool {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return false
	}
	return unix.IoctlIfreq(s.fd, unix.SIOCGIFINDEX, ifr) == nil
}

func (n netSpace) netlink() (*nsSocket, error) {
	netNS, err := os.Open(n.net)
	if err != nil {
		return nil, err
	}
	defer netNS.Close()
	if n.user == "" {
		return socketIn(netNS)
	}
	userNS, err := os.Open(n.user)
	if err != nil {
		return nil, err
	}
	defer userNS.Close()
	return socketThroughUser(userNS, netNS)
}

// socketIn opens the socket from a thread that visits the namespace. A thread
// that cannot come back is not used again.
func socketIn(netNS *os.File) (*nsSocket, error) {
	type result struct {
		fd  int
		err error
	}
	ch := make(chan result, 1)
	go func() {
		goruntime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			goruntime.UnlockOSThread()
			ch <- result{-1, err}
			return
		}
		defer home.Close()
		if err := unix.Setns(int(netNS.Fd()), unix.CLONE_NEWNET); err != nil {
			goruntime.UnlockOSThread()
			ch <- result{-1, os.NewSyscallError("setns", err)}
			return
		}
		fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			goruntime.UnlockOSThread()
		}
		ch <- result{fd, os.NewSyscallError("socket", err)}
	}()
	r := <-ch
	if r.err != nil {
		return nil, r.err
	}
	return &nsSocket{r.fd}, nil
}
