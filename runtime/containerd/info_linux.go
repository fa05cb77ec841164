package containerd

import (
	"context"
	"fmt"
	goruntime "runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
)

// Brief implements [runtime.Runtime].
func (e *Engine) Brief(ctx context.Context) (runtime.Info, error) { return e.Info(ctx) }

// Info implements [runtime.Runtime].
func (e *Engine) Info(ctx context.Context) (runtime.Info, error) {
	version, err := e.client.Version(e.ctx(ctx))
	if err != nil {
		return runtime.Info{}, wrap(ctx, "ask for the version", e.address, err)
	}
	have := controllers()
	info := runtime.Info{
		Engine: engine, Version: strings.TrimPrefix(version.Version, "v"), APIVersion: "v1", Endpoint: "unix://" + e.address,
		OS: "linux", Arch: goruntime.GOARCH, Kernel: kernel(), CgroupVersion: have.version,
		NetworkStack: "netlink+nftables", StorageDriver: e.snapshotter, Builder: builderName(),
		OCIRuntimes: []string{"runc"}, DefaultRuntime: "runc", Missing: map[runtime.Feature]string{},
	}
	for _, name := range ociRuntimes {
		if _, err := ociRuntime(name); err == nil && !slices.Contains(info.OCIRuntimes, name) {
			info.OCIRuntimes = append(info.OCIRuntimes, name)
		}
	}
	for feature, controller := range map[runtime.Feature]string{
		runtime.FeatureMemoryLimit: "memory", runtime.FeaturePIDsLimit: "pids", runtime.FeatureCPULimit: "cpu",
	} {
		if reason := have.missing(controller); reason != "" {
			info.Missing[feature] = reason
		}
	}
	if reason := have.missingStats(); reason != "" {
		info.Missing[runtime.FeatureStats] = reason
	}
	if _, err := ociRuntime("runsc"); err != nil {
		info.Missing[runtime.FeatureGVisor] = err.Error()
	}
	if !have.swap && have.missing("memory") == "" {
		info.Warnings = append(info.Warnings, "This kernel does not account for swap: a memory limit does not bound swap.")
	}
	if _, servers := hostResolvConf(); len(servers) == 0 {
		info.Warnings = append(info.Warnings, fmt.Sprintf(
			"The host's nameservers are on its loopback, and none of %s names another: containers on egress networks resolve no outside names.",
			strings.Join(resolvSources, ", ")))
	}
	return info, nil
}

func kernel() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
