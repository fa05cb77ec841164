package docker

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/client"

	"github.com/bottle-run/bottle/runtime"
)

// Info asks the daemon what it is and what it can do.
func (e *engine) Info(ctx context.Context) (runtime.Info, error) {
	const op = "describe engine"
	res, err := e.cli.Info(ctx, client.InfoOptions{})
	if err != nil {
		return runtime.Info{}, fail(ctx, op, e.endpoint.host, err)
	}
	d := res.Info
	info := runtime.Info{
		Engine:         Name,
		Version:        d.ServerVersion,
		APIVersion:     e.cli.ClientVersion(),
		Endpoint:       e.endpoint.host,
		Rootless:       isRootless(d.SecurityOptions),
		OS:             d.OSType,
		Arch:           goArch(d.Architecture),
		Kernel:         d.KernelVersion,
		CgroupVersion:  d.CgroupVersion,
		NetworkStack:   "libnetwork",
		StorageDriver:  d.Driver,
		DefaultRuntime: d.DefaultRuntime,
		Missing:        map[runtime.Feature]string{runtime.FeatureCopyTmpfs: "Docker copies below the mount, where nobody sees it"},
	}
	info.Components = e.components()
	for name := range d.Runtimes {
		// containerd's own names stand for what has a short one too.
		if !strings.HasPrefix(name, "io.containerd.") {
			info.OCIRuntimes = append(info.OCIRuntimes, name)
		}
	}
	slices.Sort(info.OCIRuntimes)
	for _, limit := range []struct {
		has     bool
		feature runtime.Feature
	}{
		{d.MemoryLimit, runtime.FeatureMemoryLimit},
		{d.PidsLimit, runtime.FeaturePIDsLimit},
		{d.CPUCfsQuota, runtime.FeatureCPULimit},
	} {
		if !limit.has {
			info.Missing[limit.feature] = "the host's control groups, as far as the daemon may use them, do not have it"
		}
	}
	if d.CgroupDriver == "none" {
		info.Missing[runtime.FeatureStats] = "the daemon uses no control groups"
	}
	if _, ok := d.Runtimes[gVisor]; !ok {
		info.Missing[runtime.FeatureGVisor] = noGVisor
	}
	builder, err := e.chooseBuilder(ctx)
	if err != nil {
		return runtime.Info{}, fail(ctx, op, e.endpoint.host, err)
	}
	info.Builder = "BuildKit in the daemon"
	if builder == builderClassic {
		info.Builder = "the daemon's classic builder"
	}
	if why := e.lacksHeredoc(builder); why != "" {
		info.Missing[runtime.FeatureHeredoc] = why
	}
	for _, w := range d.Warnings {
		info.Warnings = append(info.Warnings, strings.TrimPrefix(w, "WARNING: "))
	}
	return info, nil
}

// Brief implements [runtime.Runtime].
func (e *engine) Brief(ctx context.Context) (runtime.Info, error) { return e.Info(ctx) }

// components are the programs that the daemon names.
func (e *engine) components() []runtime.Component {
	var list []runtime.Component
	for _, c := range e.version.Components {
		if c.Name == "Engine" || c.Version == "" {
			continue
		}
		// A distribution's build has its package's version in place of a commit.
		version := c.Version
		if full := c.Details["GitCommit"]; strings.HasPrefix(full, version) {
			version = full
		}
		list = append(list, runtime.Component{Name: c.Name, Version: version})
	}
	// "Docker Desktop 4.44.3 (202357)"
	if rest, ok := strings.CutPrefix(e.version.Platform.Name, "Docker Desktop "); ok {
		version, _, _ := strings.Cut(rest, " ")
		list = append(list, runtime.Component{Name: "Docker Desktop", Version: version})
	}
	return list
}

const (
	gVisor   = "runsc"
	noGVisor = "runsc is not among the daemon's runtimes"
)

// majorVersion is the first number of a version, 0 if it has none.
func majorVersion(version string) int {
	first, _, _ := strings.Cut(version, ".")
	n, err := strconv.Atoi(first)
	if err != nil {
		return 0
	}
	return n
}

func isRootless(options []string) bool {
	return slices.ContainsFunc(options, func(o string) bool { return strings.Contains(o, "name=rootless") })
}

// goArch translates the kernel's name of an architecture into Go's.
func goArch(machine string) string {
	switch machine {
	case "x86_64":
		return "amd64"
	case "aarch64":
		return "arm64"
	case "armv7l", "armv6l":
		return "arm"
	case "i386", "i686":
		return "386"
	}
	return machine
}
