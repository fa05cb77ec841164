package podman

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/containers/podman/v5/pkg/bindings"

	rt "github.com/bottle-run/bottle/runtime"
)

// describe asks the daemon who it is, once. It is slow (Podman runs several
// programs to answer), so nothing that a launch waits for calls it without need.
func (e *engine) describe(ctx context.Context) (*hostInfo, error) {
	e.mu.Lock()
	info := e.info
	e.mu.Unlock()
	if info != nil {
		return info, nil
	}
	info = &hostInfo{}
	if err := e.ask(ctx, call{method: http.MethodGet, path: "/info"}, info); err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.info = info
	e.mu.Unlock()
	return info, nil
}

// Info implements [runtime.Runtime].
func (e *engine) Info(ctx context.Context) (rt.Info, error) {
	const op = "ask about the engine"
	h, err := e.describe(ctx)
	if err != nil {
		return rt.Info{}, wrap(ctx, op, "", err)
	}
	// The cached answer does not say whether the connection still works.
	if err := e.ask(ctx, call{method: http.MethodGet, path: "/_ping"}, nil); err != nil {
		return rt.Info{}, wrap(ctx, op, "", err)
	}
	info := rt.Info{
		Engine:         Name,
		Version:        h.Version.Version,
		APIVersion:     h.Version.APIVersion,
		Endpoint:       e.uri,
		Ephemeral:      e.service != nil,
		Rootless:       h.Host.Security.Rootless,
		OS:             h.Host.OS,
		Arch:           h.Host.Arch,
		Kernel:         h.Host.Kernel,
		CgroupVersion:  strings.TrimPrefix(h.Host.CgroupVersion, "v"),
		NetworkStack:   h.Host.NetworkBackend,
		StorageDriver:  h.Store.GraphDriverName,
		Builder:        "buildah " + h.Host.BuildahVersion,
		DefaultRuntime: h.Host.OCIRuntime.Name,
		Missing:        missingFeatures(h),
	}
	if v := ociVersion(h.Host.OCIRuntime.Name, h.Host.OCIRuntime.Package, h.Host.OCIRuntime.Version); v != "" {
		info.Components = append(info.Components, rt.Component{Name: h.Host.OCIRuntime.Name, Version: v})
	}
	info.Components = append(info.Components, rt.Component{Name: "buildah", Version: h.Host.BuildahVersion})
	info.OCIRuntimes = e.ociRuntimes(h)
	if !slices.Contains(info.OCIRuntimes, "runsc") {
		info.Missing[rt.FeatureGVisor] = "Podman knows no OCI runtime runsc here"
	}
	if h.Host.NetworkBackend != "netavark" {
		info.Warnings = append(info.Warnings, "the network backend is "+h.Host.NetworkBackend+", not netavark: internal networks are not proved to be sealed")
	}
	if !h.Host.Security.SeccompEnabled {
		info.Warnings = append(info.Warnings, "seccomp is off on this engine: containers may make any system call")
	}
	if !e.local {
		info.Warnings = append(info.Warnings, "the engine is not on this machine: containers with NET_ADMIN or NET_RAW are refused on internal networks, and files copied out belong to the container's user")
	}
	if e.service == nil {
		info.Warnings = append(info.Warnings, "the service is the user's: each exec leaves a monitor for the exit_command_delay of its configuration (300 s unless set)")
	}
	return info, nil
}

// Brief implements [runtime.Runtime]. What a service that was started here can limit is known
// without asking it, mostly.
func (e *engine) Brief(ctx context.Context) (rt.Info, error) {
	if e.service == nil {
		return e.Info(ctx)
	}
	const op = "ask about the engine"
	// It tells whether the connection works.
	if err := e.ask(ctx, call{method: http.MethodGet, path: "/_ping"}, nil); err != nil {
		return rt.Info{}, wrap(ctx, op, "", err)
	}
	info := rt.Info{
		Engine: Name, Version: bindings.ServiceVersion(e.conn).String(), Endpoint: e.uri, Ephemeral: true,
		OS: runtime.GOOS, Arch: runtime.GOARCH, Missing: map[rt.Feature]string{},
	}
	for _, f := range []rt.Feature{rt.FeatureMemoryLimit, rt.FeaturePIDsLimit, rt.FeatureCPULimit} {
		why, err := e.limited(ctx, f)
		if err != nil {
			return rt.Info{}, wrap(ctx, op, "", err)
		}
		if why != "" {
			info.Missing[f] = why
		}
	}
	return info, nil
}

// ociVersion is the version of an OCI runtime: of its package, such as
// "runc_1.1.5+ds1-1+deb12u1_amd64" or "crun-1.14-1.fc39.x86_64", else what the
// program says of itself, such as "runc version 1.1.5".
func ociVersion(name, pkg, says string) string {
	for _, sep := range []string{"_", "-"} {
		if v, ok := strings.CutPrefix(pkg, name+sep); ok && v != "" && v[0] >= '0' && v[0] <= '9' {
			if sep == "_" {
				v, _, _ = strings.Cut(v, "_") // the architecture
			}
			return v
		}
	}
	first, _, _ := strings.Cut(says, "\n")
	if v, ok := strings.CutPrefix(first, name+" version "); ok {
		return strings.TrimSpace(v)
	}
	return ""
}

// missingFeatures says what the daemon's host cannot do.
func missingFeatures(h *hostInfo) map[rt.Feature]string {
	m := map[rt.Feature]string{}
	for f, controller := range map[rt.Feature]string{
		rt.FeatureMemoryLimit: "memory", rt.FeaturePIDsLimit: "pids", rt.FeatureCPULimit: "cpu",
	} {
		switch {
		case slices.Contains(h.Host.CgroupControllers, controller):
		case h.Host.CgroupVersion == "v1" && h.Host.Security.Rootless:
			m[f] = "a rootless engine cannot set limits on a host with cgroup v1"
		case h.Host.Security.Rootless:
			m[f] = "the " + controller + " controller is not delegated to this user's cgroup"
		default:
			m[f] = "the host has no " + controller + " cgroup controller"
		}
	}
	if h.Host.CgroupVersion == "v1" && h.Host.Security.Rootless {
		m[rt.FeatureStats] = "a rootless engine cannot tell on a host with cgroup v1"
	}
	if v := h.Host.BuildahVersion; olderThan(v, 1, 33) {
		m[rt.FeatureHeredoc] = "buildah " + v + " has no heredoc (1.33 has)"
	}
	return m
}

// limited says why a limit cannot be set, or "". For an engine of this machine
// the answer mostly needs no question.
func (e *engine) limited(ctx context.Context, f rt.Feature) (string, error) {
	e.mu.Lock()
	known := e.info != nil
	e.mu.Unlock()
	if e.service != nil && !known {
		switch {
		case os.Geteuid() == 0 && hasController(f):
			return "", nil
		case os.Geteuid() != 0 && !cgroup2():
			return "a rootless engine cannot set limits on a host with cgroup v1", nil
		}
	}
	h, err := e.describe(ctx)
	if err != nil {
		return "", err
	}
	return missingFeatures(h)[f], nil
}

// hasController reports whether /proc/cgroups enables what a limit needs.
func hasController(f rt.Feature) bool {
	name := map[rt.Feature]string{rt.FeatureMemoryLimit: "memory", rt.FeaturePIDsLimit: "pids", rt.FeatureCPULimit: "cpu"}[f]
	b, err := os.ReadFile("/proc/cgroups")
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(b)) {
		if fields := strings.Fields(line); len(fields) == 4 && fields[0] == name {
			return fields[3] == "1"
		}
	}
	return false
}

func cgroup2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// hybridCgroups reports whether the host has both versions of cgroups.
func hybridCgroups() bool {
	b, err := os.ReadFile("/proc/self/mountinfo")
	return err == nil && !cgroup2() && strings.Contains(string(b), " - cgroup2 ")
}

func olderThan(version string, major, minor int) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	a, err1 := strconv.Atoi(parts[0])
	b, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (a < major || a == major && b < minor)
}

// usualRuntimes are the OCI runtimes that Podman knows without configuration.
var usualRuntimes = []string{"crun", "runc", "runsc"}

// ociRuntimes are the runtimes that the engine has. The daemon tells its default
// alone; where it is this machine's, the others are looked for as Podman does.
func (e *engine) ociRuntimes(h *hostInfo) []string {
	found := map[string]bool{h.Host.OCIRuntime.Name: true}
	if e.local && runtime.GOOS == "linux" {
		home, _ := os.UserHomeDir()
		config, _ := mergedConfig(os.Getenv, home)
		for name, paths := range configuredRuntimes(config) {
			if slices.ContainsFunc(paths, isExecutable) {
				found[name] = true
			}
		}
		for _, name := range usualRuntimes {
			if name == "crun" && hybridCgroups() {
				continue // it refuses such a host
			}
			if _, err := exec.LookPath(name); err == nil {
				found[name] = true
			}
		}
	}
	list := make([]string, 0, len(found))
	for name := range found {
		list = append(list, name)
	}
	sort.Strings(list)
	return list
}

func isExecutable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}
