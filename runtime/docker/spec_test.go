package docker

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"

	"github.com/bottle-run/bottle/runtime"
)

func TestZeroSpecIsTheHardenedOne(t *testing.T) {
	host := hostConfig(runtime.ContainerSpec{}, true)
	if !slices.Equal(host.CapDrop, []string{"ALL"}) || len(host.CapAdd) != 0 {
		t.Errorf("capabilities: drop %q, add %q", host.CapDrop, host.CapAdd)
	}
	if !slices.Contains(host.SecurityOpt, "no-new-privileges:true") || len(host.SecurityOpt) != 1 {
		t.Errorf("security options: %q", host.SecurityOpt)
	}
	if host.Privileged || host.NetworkMode != network.NetworkNone || host.PidsLimit == nil || *host.PidsLimit != runtime.DefaultPIDs {
		t.Errorf("privileged %v, network %q, pids %v", host.Privileged, host.NetworkMode, host.PidsLimit)
	}
	if host.Init == nil || !*host.Init || host.IpcMode != container.IPCModePrivate || host.RestartPolicy.Name != container.RestartPolicyDisabled {
		t.Errorf("init %v, ipc %q, restart %q", host.Init, host.IpcMode, host.RestartPolicy.Name)
	}
}

func TestOnlyAHandshakeOpensTheInput(t *testing.T) {
	if c := containerConfig(runtime.ContainerSpec{Name: "c"}); c.OpenStdin || c.StdinOnce || c.AttachStdin {
		t.Errorf("without one: %+v", c)
	}
	if c := containerConfig(runtime.ContainerSpec{Name: "c", Handshake: &runtime.Handshake{}}); !c.OpenStdin || !c.StdinOnce {
		t.Errorf("its end would not be the process's: %+v", c)
	}
}

func TestHostConfig(t *testing.T) {
	attached := []runtime.NetworkAttachment{{Network: "n"}}
	for _, tc := range []struct {
		name     string
		spec     runtime.ContainerSpec
		isolated bool
		ok       func(*container.HostConfig) bool
	}{
		{"memory has no swap on top", runtime.ContainerSpec{Limits: runtime.Limits{Memory: 1 << 20}}, true,
			func(h *container.HostConfig) bool { return h.Memory == 1<<20 && h.MemorySwap == 1<<20 }},
		{"processors are counted in billionths", runtime.ContainerSpec{Limits: runtime.Limits{CPUs: 1.5}}, true,
			func(h *container.HostConfig) bool { return h.NanoCPUs == 1_500_000_000 }},
		{"open files are limited hard", runtime.ContainerSpec{Limits: runtime.Limits{NoFile: 99}}, true,
			func(h *container.HostConfig) bool {
				return len(h.Ulimits) == 1 && h.Ulimits[0].Name == "nofile" && h.Ulimits[0].Soft == 99 && h.Ulimits[0].Hard == 99
			}},
		{"a tmpfs executes nothing", runtime.ContainerSpec{Tmpfs: []runtime.Tmpfs{{Target: "/t", Size: 5, Mode: 0o700}}}, true,
			func(h *container.HostConfig) bool { return h.Tmpfs["/t"] == "rw,nosuid,nodev,noexec,size=5,mode=0700" }},
		{"a tmpfs without size or mode has the default ones", runtime.ContainerSpec{Tmpfs: []runtime.Tmpfs{{Target: "/t"}}}, true,
			func(h *container.HostConfig) bool {
				return h.Tmpfs["/t"] == "rw,nosuid,nodev,noexec,size=67108864,mode=1777"
			}},
		{"mounts are read-only unless asked", runtime.ContainerSpec{Mounts: []runtime.Mount{{Source: "/a", Target: "/b"}, {Source: "/c", Target: "/d", Writable: true}}}, true,
			func(h *container.HostConfig) bool {
				return len(h.Mounts) == 2 && h.Mounts[0].Type == mount.TypeBind && h.Mounts[0].ReadOnly && !h.Mounts[1].ReadOnly
			}},
		{"an attached container does not forward", runtime.ContainerSpec{Networks: attached}, false,
			func(h *container.HostConfig) bool { return h.Sysctls["net.ipv4.ip_forward"] == "0" }},
		{"an isolated one asks no resolver of the host's", runtime.ContainerSpec{Networks: attached}, true,
			func(h *container.HostConfig) bool {
				return slices.Equal(h.DNS, []netip.Addr{netip.MustParseAddr("127.0.0.1")}) && slices.Equal(h.DNSSearch, []string{"."})
			}},
		{"one with a way out asks the engine's", runtime.ContainerSpec{Networks: attached}, false,
			func(h *container.HostConfig) bool { return len(h.DNS) == 0 }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if h := hostConfig(tc.spec, tc.isolated); !tc.ok(h) {
				t.Errorf("got %+v", h)
			}
		})
	}
}

func TestContainerConfig(t *testing.T) {
	c := containerConfig(runtime.ContainerSpec{
		Name: strings.Repeat("n", 62) + ".x", Env: map[string]string{"B": "2\n=", "A": ""}, Labels: map[string]string{"l": "v"},
		Entrypoint: []string{}, Command: []string{},
	})
	if len(c.Hostname) != 62 {
		t.Errorf("hostname %q has %d characters", c.Hostname, len(c.Hostname))
	}
	if !slices.Equal(c.Env, []string{"A=", "B=2\n="}) {
		t.Errorf("environment %q", c.Env)
	}
	if c.Labels["l"] != "v" || !ownContainer(c.Labels) {
		t.Errorf("labels %q", c.Labels)
	}
	if !slices.Equal(c.Entrypoint, []string{""}) || c.Cmd == nil {
		t.Errorf("an empty entrypoint would become the image's: %q, %q", c.Entrypoint, c.Cmd)
	}
	if c := containerConfig(runtime.ContainerSpec{Name: "n"}); c.Entrypoint != nil || c.Cmd != nil || c.Hostname != "n" {
		t.Errorf("the image's command is replaced: %q, %q", c.Entrypoint, c.Cmd)
	}
}

func TestCommandCandidates(t *testing.T) {
	for _, tc := range []struct {
		command, workDir string
		env              []string
		want             []string
	}{
		{"/bin/x", "/w", nil, []string{"/bin/x"}},
		{"./x", "/w", nil, []string{"/w/x"}},
		{"a/x", "", nil, []string{"/a/x"}},
		{"x", "/w", []string{"PATH=/a:b::/c"}, []string{"/a/x", "/w/b/x", "/w/x", "/c/x"}},
		{"x", "", []string{"OTHER=1"}, []string{"/usr/local/sbin/x", "/usr/local/bin/x", "/usr/sbin/x", "/usr/bin/x", "/sbin/x", "/bin/x"}},
	} {
		if got := commandCandidates(tc.command, tc.workDir, tc.env); !slices.Equal(got, tc.want) {
			t.Errorf("%q in %q with %q: %q, want %q", tc.command, tc.workDir, tc.env, got, tc.want)
		}
	}
}

func TestMemoryMount(t *testing.T) {
	c := container.InspectResponse{
		HostConfig: &container.HostConfig{Tmpfs: map[string]string{"/tmp": "", "/run/": ""}},
		Mounts: []container.MountPoint{
			{Type: mount.TypeBind, Destination: "/tmp/real"}, {Type: mount.TypeTmpfs, Destination: "/data"}, {Type: mount.TypeVolume, Destination: "/vol"},
		},
	}
	for target, want := range map[string]string{
		"/": "", "/etc": "", "/tmp": "/tmp", "/tmp/x": "/tmp", "/tmpx": "", "/tmp/real": "", "/tmp/real/x": "",
		"/run/x": "/run", "/data/x/y": "/data", "/dev/shm/x": "/dev", "/proc/1": "/proc", "/vol/x": "",
	} {
		if got := memoryMount(c, target); got != want {
			t.Errorf("%s lies in %q, want %q", target, got, want)
		}
	}
}
