package docker

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/bottle-run/bottle/runtime"
)

// maxHostname is the kernel's limit, less the room that a domain would need.
const maxHostname = 63

// containerConfig translates what a spec says about the process.
func containerConfig(spec runtime.ContainerSpec) *container.Config {
	config := &container.Config{
		Image:      spec.Image,
		Hostname:   spec.Hostname,
		User:       spec.User,
		WorkingDir: spec.WorkDir,
		Tty:        spec.TTY,
		Env:        environment(spec.Env),
		Labels:     containerLabels(spec.Labels),
		StopSignal: spec.StopSignal,
		// An image's own check would run commands that nobody asked for.
		Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
	}
	if config.Hostname == "" {
		config.Hostname = spec.Name
	}
	if len(config.Hostname) > maxHostname {
		config.Hostname = strings.TrimRight(config.Hostname[:maxHostname], "-._")
	}
	if spec.Entrypoint != nil {
		// An empty list would mean the image's; one empty string means none.
		config.Entrypoint = spec.Entrypoint
		if len(config.Entrypoint) == 0 {
			config.Entrypoint = []string{""}
		}
	}
	if spec.Command != nil {
		config.Cmd = spec.Command
	}
	if spec.Handshake != nil {
		// Once: the end of what is attached is the end of the input.
		config.OpenStdin, config.StdinOnce, config.AttachStdin = true, true, true
	}
	return config
}

// environment sorts, so that equal specs make equal containers.
func environment(env map[string]string) []string {
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// hostConfig translates what a spec says about the container's limits. isolated
// says that it is attached to internal networks alone, or to none.
func hostConfig(spec runtime.ContainerSpec, isolated bool) *container.HostConfig {
	init := !spec.NoInit
	pids := spec.Limits.PIDs
	if pids == 0 {
		pids = runtime.DefaultPIDs
	}
	host := &container.HostConfig{
		NetworkMode:    network.NetworkNone,
		AutoRemove:     spec.AutoRemove,
		RestartPolicy:  container.RestartPolicy{Name: container.RestartPolicyDisabled},
		CapDrop:        []string{"ALL"},
		CapAdd:         slices.Clone(spec.Capabilities),
		SecurityOpt:    []string{"no-new-privileges:true"},
		IpcMode:        container.IPCModePrivate,
		GroupAdd:       slices.Clone(spec.Groups),
		ReadonlyRootfs: spec.ReadOnly,
		Runtime:        spec.OCIRuntime,
		Init:           &init,
		// Read back through the API whatever the daemon's default is, and bounded.
		LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{"max-size": "64m", "max-file": "4"}},
		Resources: container.Resources{
			Memory:     spec.Limits.Memory,
			MemorySwap: spec.Limits.Memory,
			NanoCPUs:   int64(spec.Limits.CPUs * 1e9),
			PidsLimit:  &pids,
		},
	}
	if n := spec.Limits.NoFile; n > 0 {
		host.Ulimits = []*units.Ulimit{{Name: "nofile", Soft: n, Hard: n}}
	}
	if len(spec.Tmpfs) > 0 {
		host.Tmpfs = make(map[string]string, len(spec.Tmpfs))
	}
	for _, t := range spec.Tmpfs {
		host.Tmpfs[t.Target] = tmpfsOptions(t)
	}
	for _, m := range spec.Mounts {
		host.Mounts = append(host.Mounts, mount.Mount{Type: mount.TypeBind, Source: m.Source, Target: m.Target, ReadOnly: !m.Writable})
	}
	if len(spec.Networks) > 0 {
		// Between its networks a container is a dead end, even for root in it:
		// /proc/sys is read-only.
		host.Sysctls = map[string]string{"net.ipv4.ip_forward": "0"}
	}
	if isolated && len(spec.Networks) > 0 {
		// The embedded resolver of some versions asks the host's servers from the
		// host's side if they are on loopback (CVE-2024-29018), past every seal.
		// A server that is given is asked from the container's side, where nothing
		// listens.
		host.DNS = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
		host.DNSSearch = []string{"."}
		// Some versions then answer nothing at all; names of peers are answered at
		// once.
		host.DNSOptions = []string{"timeout:1", "attempts:1"}
	}
	return host
}

func tmpfsOptions(t runtime.Tmpfs) string {
	size, mode := t.Size, t.Mode
	if size == 0 {
		size = runtime.DefaultTmpfsSize
	}
	if mode == 0 {
		mode = 0o1777
	}
	return "rw,nosuid,nodev,noexec,size=" + strconv.FormatInt(size, 10) + ",mode=" + fmt.Sprintf("%04o", mode)
}

// endpointConfig translates an attachment.
func endpointConfig(a runtime.NetworkAttachment) *network.EndpointSettings {
	settings := &network.EndpointSettings{Aliases: slices.Clone(a.Aliases)}
	if a.Address.IsValid() {
		settings.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: a.Address}
	}
	return settings
}
