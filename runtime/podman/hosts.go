package podman

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"sort"
	"strings"
	"sync"
)

// member is a container's place on a network.
type member struct {
	id      string
	address netip.Addr
	names   []string
}

// announce writes the hosts file of a container that is about to start, and makes
// it known to the running containers of its internal networks.
func (e *engine) announce(ctx context.Context, c apiContainer, networks []apiNetwork) error {
	unlock := e.lockNetworks(networks)
	defer unlock()
	if err := e.rewriteHosts(ctx, c, networks); err != nil {
		return fmt.Errorf("hosts files: %w", err)
	}
	return nil
}

// withdraw takes a container that is gone out of the others' hosts files. Nobody
// is told of a failure: the next container that joins will set it right.
func (e *engine) withdraw(ctx context.Context, c apiContainer) {
	var networks []apiNetwork
	for name := range c.NetworkSettings.Networks {
		if n, err := e.findNetwork(ctx, name); err == nil && n.Internal {
			networks = append(networks, n)
		}
	}
	if len(networks) == 0 {
		return
	}
	unlock := e.lockNetworks(networks)
	defer unlock()
	if err := e.rewriteHosts(ctx, apiContainer{}, networks); err != nil {
		e.log.Debug("podman: hosts files", "err", err)
	}
}

// lockNetworks takes the locks of the internal networks, in order.
func (e *engine) lockNetworks(networks []apiNetwork) (unlock func()) {
	var names []string
	for _, n := range networks {
		if n.Internal {
			names = append(names, n.Name)
		}
	}
	sort.Strings(names)
	var unlocks []func()
	for _, n := range names {
		unlocks = append(unlocks, e.hosts.lock(n))
	}
	return func() {
		for _, u := range slices.Backward(unlocks) {
			u()
		}
	}
}

// rewriteHosts writes the hosts file of c, if it is not the zero container, and of
// everybody on the internal ones of networks.
func (e *engine) rewriteHosts(ctx context.Context, c apiContainer, networks []apiNetwork) error {
	var internal []string
	for _, n := range networks {
		if n.Internal {
			internal = append(internal, n.Name)
		}
	}
	all := map[string]apiContainer{}
	if c.ID != "" {
		all[c.ID] = c
	}
	if len(internal) > 0 {
		peers, err := e.peers(ctx, internal, c.ID)
		if err != nil {
			return err
		}
		for _, p := range peers {
			all[p.ID] = p
		}
	}
	// A peer may be on further internal networks, whose members its file must keep:
	// they are asked for too.
	more := map[string]bool{}
	for id, p := range all {
		if id == c.ID {
			continue
		}
		for name := range p.NetworkSettings.Networks {
			if !slices.Contains(internal, name) {
				more[name] = true
			}
		}
	}
	known := append([]string{}, internal...)
	for name := range more {
		if n, err := e.findNetwork(ctx, name); err == nil && n.Internal {
			known = append(known, name)
		}
	}
	others := map[string]apiContainer{}
	if len(known) > len(internal) {
		peers, err := e.peers(ctx, known[len(internal):], c.ID)
		if err != nil {
			return err
		}
		for _, p := range peers {
			others[p.ID] = p
		}
	}
	for id, p := range all {
		others[id] = p
	}
	for id, p := range all {
		content := hostsFile(p, known, others)
		if err := e.writeHosts(ctx, p, content); err != nil {
			if id == c.ID {
				return err
			}
			// What a container did to its own file is its own loss.
			e.log.Debug("podman: hosts file", "container", p.Name, "err", err)
		}
	}
	return nil
}

// peers returns the containers that have an address on one of the networks, but
// for one.
func (e *engine) peers(ctx context.Context, networks []string, without string) ([]apiContainer, error) {
	var listed []listedContainer
	if err := e.list(ctx, call{method: http.MethodGet, path: "/containers/json", query: url.Values{
		"all": {"true"}, "filters": {filters(map[string][]string{"network": networks})},
	}}, &listed); err != nil {
		return nil, err
	}
	found := make([]*apiContainer, len(listed))
	var wg sync.WaitGroup
	for i, l := range listed {
		if l.ID == without || !slices.Contains([]string{"running", "initialized", "paused"}, l.State) {
			continue
		}
		wg.Go(func() {
			// Who is gone by now is no peer.
			if c, err := e.inspect(ctx, l.ID); err == nil {
				found[i] = &c
			}
		})
	}
	wg.Wait()
	var peers []apiContainer
	for _, f := range found {
		if f != nil {
			peers = append(peers, *f)
		}
	}
	return peers, nil
}

// hostsFile renders the hosts file of a container: itself, and who is with it on
// one of the networks.
func hostsFile(c apiContainer, networks []string, all map[string]apiContainer) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	line := func(m member) {
		if m.address.IsValid() {
			fmt.Fprintf(&b, "%s\t%s\n", m.address, strings.Join(m.names, " "))
		}
	}
	own := slices.Sorted(func(yield func(string) bool) {
		for name := range c.NetworkSettings.Networks {
			if !yield(name) {
				return
			}
		}
	})
	for _, name := range own {
		m := memberOf(c, name)
		if c.Config.Hostname != "" && !slices.Contains(m.names, c.Config.Hostname) {
			m.names = append([]string{c.Config.Hostname}, m.names...)
		}
		line(m)
	}
	if len(own) == 0 {
		fmt.Fprintf(&b, "127.0.1.1\t%s\n", strings.Join(slices.Compact([]string{c.Config.Hostname, c.Name}), " "))
	}
	var rest []member
	for _, name := range own {
		if !slices.Contains(networks, name) {
			continue
		}
		for id, p := range all {
			if _, on := p.NetworkSettings.Networks[name]; on && id != c.ID {
				rest = append(rest, memberOf(p, name))
			}
		}
	}
	slices.SortFunc(rest, func(a, b member) int {
		if n := a.address.Compare(b.address); n != 0 {
			return n
		}
		return strings.Compare(a.id, b.id)
	})
	for _, m := range rest {
		line(m)
	}
	return b.Bytes()
}

// memberOf describes a container's place on a network. Podman's own alias, the
// beginning of the container's id, is left out.
func memberOf(c apiContainer, network string) member {
	ep := c.NetworkSettings.Networks[network]
	m := member{id: c.ID, names: []string{c.Name}}
	m.address, _ = netip.ParseAddr(ep.IPAddress)
	for _, a := range askedAliases(c, ep) {
		if !slices.Contains(m.names, a) {
			m.names = append(m.names, a)
		}
	}
	return m
}

// askedAliases are the aliases that Podman did not add.
func askedAliases(c apiContainer, ep apiEndpoint) []string {
	var list []string
	for _, a := range ep.Aliases {
		if len(a) != 12 || !strings.HasPrefix(c.ID, a) {
			list = append(list, a)
		}
	}
	return list
}

// writeHosts replaces the content of a container's hosts file. On this machine it
// is a file of Podman's that is mounted into the container, and has to stay the
// same file. Elsewhere the container has a plain file (see UseImageHosts).
func (e *engine) writeHosts(ctx context.Context, c apiContainer, content []byte) error {
	if !e.local {
		return e.putHosts(ctx, c.ID, content)
	}
	f, err := openHosts(c.HostsPath)
	if err != nil {
		return err
	}
	defer f.Close()
	if old, err := f.Stat(); err == nil && old.Size() == int64(len(content)) {
		same := make([]byte, len(content))
		if n, _ := f.ReadAt(same, 0); n == len(same) && bytes.Equal(same, content) {
			return nil
		}
	}
	// One write, then the cut: a reader in between sees old lines at the end, and
	// never half of one of ours.
	if _, err := f.WriteAt(content, 0); err != nil {
		return err
	}
	return f.Truncate(int64(len(content)))
}

// openHosts opens a hosts file: never through a link, and only a regular file.
func openHosts(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|noFollow, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return f, nil
}
