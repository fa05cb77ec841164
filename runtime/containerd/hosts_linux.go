package containerd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The files that are mounted over those of the image.
const (
	hostsFile    = "hosts"
	resolvFile   = "resolv.conf"
	hostnameFile = "hostname"
)

// writeHosts writes the hosts file of every container on the networks of some
// endpoints. Use it under the network lock.
func (e *Engine) writeHosts(changed []*endpoint) error {
	byNetwork := map[string][]*endpoint{}
	affected := map[string]bool{}
	list := func(id string) ([]*endpoint, error) {
		if all, ok := byNetwork[id]; ok {
			return all, nil
		}
		all, err := e.endpoints(id)
		byNetwork[id] = all
		return all, err
	}
	for _, ep := range changed {
		all, err := list(ep.NetworkID)
		if err != nil {
			return err
		}
		for _, peer := range all {
			affected[peer.Container] = true
		}
	}
	var errs []error
	for id := range affected {
		files, err := filepath.Glob(filepath.Join(e.endpointsDir("*"), id+".json"))
		if err != nil {
			return err
		}
		var own, peers []*endpoint
		for _, f := range files {
			all, err := list(filepath.Base(filepath.Dir(f)))
			if err != nil {
				return err
			}
			for _, ep := range all {
				if ep.Container == id {
					own = append(own, ep)
				} else {
					peers = append(peers, ep)
				}
			}
		}
		hostname, err := os.ReadFile(filepath.Join(e.containerDir(id), hostnameFile))
		if err == nil {
			err = rewrite(filepath.Join(e.containerDir(id), hostsFile), hosts(strings.TrimSpace(string(hostname)), own, peers))
		}
		// It may be on its way out, with its directory gone already.
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// hosts renders a hosts file. A name of the container's own comes first.
func hosts(hostname string, own, peers []*endpoint) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n")
	byDevice := func(a, b *endpoint) int { return strings.Compare(a.Device, b.Device) }
	slices.SortFunc(own, byDevice)
	for _, ep := range own {
		fmt.Fprintf(&b, "%s\t%s\n", ep.Address, strings.Join(unique(append([]string{hostname}, ep.names()...)), " "))
	}
	if len(own) == 0 {
		fmt.Fprintf(&b, "127.0.1.1\t%s\n", hostname)
	}
	slices.SortFunc(peers, func(a, b *endpoint) int { return a.Address.Compare(b.Address) })
	for _, ep := range peers {
		fmt.Fprintf(&b, "%s\t%s\n", ep.Address, strings.Join(unique(ep.names()), " "))
	}
	return b.Bytes()
}

func unique(names []string) []string {
	var out []string
	for _, n := range names {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// rewrite changes a file in place: it is bind-mounted, and a new file under its
// name would not be seen. A reader sees the old content or the new, or the new
// followed by empty lines.
func rewrite(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	old, err := f.Stat()
	if err != nil {
		return err
	}
	padded := content
	if missing := int(old.Size()) - len(content); missing > 0 {
		padded = append(slices.Clone(content), bytes.Repeat([]byte("\n"), missing)...)
	}
	if _, err := f.WriteAt(padded, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(content)))
}

// resolvConf is what a container gets: nothing without a way out, so that no
// query leaves; else the host's nameservers that can be reached from elsewhere.
func resolvConf(endpoints []*endpoint) []byte {
	egress := slices.ContainsFunc(endpoints, func(ep *endpoint) bool { return !ep.Internal })
	if !egress {
		return []byte("# no nameserver: this container has no way out\n")
	}
	conf, _ := hostResolvConf()
	return conf
}

// resolvSources are the host's resolv.conf, and where systemd-resolved and
// NetworkManager say whom their own servers on the loopback ask.
var resolvSources = []string{"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"}

// hostResolvConf returns the host's resolver configuration without the servers
// that a container cannot reach, and the servers that are left.
func hostResolvConf() ([]byte, []netip.Addr) {
	for _, path := range resolvSources {
		content, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if conf, servers := reachable(content); len(servers) > 0 {
			return conf, servers
		}
	}
	return []byte("# the host has no nameserver that could be reached from here\n"), nil
}

// reachable leaves out nameservers on the loopback, and those with IPv6, which
// containers do not have.
func reachable(content []byte) ([]byte, []netip.Addr) {
	var b bytes.Buffer
	var servers []netip.Addr
	for scan := bufio.NewScanner(bytes.NewReader(content)); scan.Scan(); {
		fields := strings.Fields(scan.Text())
		if len(fields) == 0 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			if len(fields) < 2 {
				continue
			}
			addr, err := netip.ParseAddr(fields[1])
			if err != nil || !addr.Is4() || addr.IsLoopback() || addr.IsUnspecified() {
				continue
			}
			servers = append(servers, addr)
			fmt.Fprintf(&b, "nameserver %s\n", addr)
		case "search", "domain", "options":
			b.WriteString(strings.Join(fields, " ") + "\n")
		}
	}
	return b.Bytes(), servers
}

// hostResolvers are the nameservers that are addresses of this host.
func hostResolvers() []netip.Addr {
	_, servers := hostResolvConf()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(servers, func(s netip.Addr) bool {
		return !slices.ContainsFunc(addrs, func(a net.Addr) bool {
			n, ok := a.(*net.IPNet)
			return ok && n.IP.Equal(net.IP(s.AsSlice()))
		})
	})
}
