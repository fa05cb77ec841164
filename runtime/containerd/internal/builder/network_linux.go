package builder

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"

	"github.com/containerd/containerd/v2/pkg/oci"
	resourcestypes "github.com/moby/buildkit/executor/resources/types"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/network"
	"github.com/opencontainers/runtime-spec/specs-go"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
	"github.com/bottle-run/bottle/runtime/internal/procs"
)

// Network gives network namespaces a way out, and the host's services not.
type Network interface {
	// Connect connects the network namespace at a path, which is new and has a
	// loopback device only. If it fails it has undone what it did.
	Connect(ctx context.Context, path string) (Connection, error)
}

// Connection is what Connect made.
type Connection struct {
	// ResolvConf is the content of the step's /etc/resolv.conf.
	ResolvConf []byte
	// Close undoes it. The namespace is still there.
	Close func() error
}

// networks is what steps can ask for. Their own namespace is the default; there is
// no entry for the host's.
func networks(n Network, dir string) map[pb.NetMode]network.Provider {
	return map[pb.NetMode]network.Provider{
		pb.NetMode_UNSET: provider{n, dir},
		pb.NetMode_NONE:  provider{nil, dir},
	}
}

type provider struct {
	network Network
	dir     string
}

func (provider) Close() error { return nil }

// New makes the network of a step.
func (p provider) New(ctx context.Context, _ string, _ network.NamespaceOptions) (network.Namespace, error) {
	return newNamespace(ctx, p.network, p.dir)
}

// namespace is a network namespace, held open by a file descriptor.
type namespace struct {
	handle     netns.NsHandle
	connection Connection
	resolvConf string
}

func newNamespace(ctx context.Context, n Network, dir string) (_ *namespace, err error) {
	ns := &namespace{}
	if ns.handle, err = makeNetns(); err != nil {
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ns.Close())
		}
	}()
	if n != nil {
		if ns.connection, err = n.Connect(ctx, ns.path()); err != nil {
			return nil, fmt.Errorf("connect the step's network: %w", err)
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	// A file of its own: a nameserver may change between steps.
	f, err := os.CreateTemp(dir, "resolv.conf-")
	if err != nil {
		return nil, err
	}
	ns.resolvConf = f.Name()
	_, err = f.Write(ns.connection.ResolvConf)
	return ns, errors.Join(err, f.Chmod(0o644), f.Close())
}

// path names the namespace for any process that sees this one.
func (ns *namespace) path() string {
	return procs.File(os.Getpid(), fmt.Sprintf("fd/%d", int(ns.handle)))
}

// Close implements [network.Namespace].
func (ns *namespace) Close() error {
	var errs []error
	if ns.connection.Close != nil {
		errs = append(errs, ns.connection.Close())
	}
	if ns.resolvConf != "" {
		errs = append(errs, os.Remove(ns.resolvConf))
	}
	return errors.Join(append(errs, ns.handle.Close())...)
}

// Sample implements [network.Namespace].
func (ns *namespace) Sample() (*resourcestypes.NetworkSample, error) { return nil, nil }

// Set puts the namespace into a step's specification, together with what else
// BuildKit leaves no other place to say.
func (ns *namespace) Set(s *specs.Spec) error {
	set := oci.WithLinuxNamespace(specs.LinuxNamespace{Type: specs.NetworkNamespace, Path: ns.path()})
	if err := set(context.Background(), nil, nil, s); err != nil {
		return err
	}
	found := false
	for i, m := range s.Mounts {
		if m.Destination == "/etc/resolv.conf" {
			s.Mounts[i].Source = ns.resolvConf
			found = true
		}
	}
	if !found {
		return errors.New("the step has no /etc/resolv.conf to replace")
	}
	if s.Linux.Resources == nil {
		s.Linux.Resources = &specs.LinuxResources{}
	}
	limit := int64(runtime.DefaultPIDs)
	s.Linux.Resources.Pids = &specs.LinuxPids{Limit: &limit}
	s.Linux.CgroupsPath = filepath.Join(cgroupParent, filepath.Base(s.Linux.CgroupsPath))
	return nil
}

// makeNetns makes a network namespace whose loopback device is up and which has no
// IPv6 and does not forward.
func makeNetns() (handle netns.NsHandle, err error) {
	handle = netns.None()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		var err error
		if handle, err = netns.Get(); err != nil {
			return err
		}
		return setUp(handle)
	})
	if err != nil && handle.IsOpen() {
		_ = handle.Close()
	}
	return handle, err
}

// setUp prepares the namespace of the calling thread.
func setUp(handle netns.NsHandle) error {
	for name, value := range map[string]string{
		"ipv6/conf/all/disable_ipv6":     "1",
		"ipv6/conf/default/disable_ipv6": "1",
		"ipv4/ip_forward":                "0",
	} {
		err := os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0o644)
		// A kernel without IPv6 has nothing to disable.
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	link, err := netlink.NewHandleAt(handle, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer link.Close()
	lo, err := link.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := link.LinkSetUp(lo); err != nil {
		return fmt.Errorf("start the loopback device: %w", err)
	}
	return nil
}

// onThread runs a function that changes its thread's namespaces on a thread that
// ends with it, and is not the process's first one: /proc/self is that.
func onThread(f func() error) error {
	done := make(chan error)
	var run func()
	run = func() {
		goruntime.LockOSThread() // never unlocked: so the thread ends
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		defer goruntime.UnlockOSThread()
		elsewhere := make(chan struct{})
		go func() { defer close(elsewhere); run() }()
		<-elsewhere
	}
	go run()
	return <-done
}
