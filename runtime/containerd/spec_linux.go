package containerd

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/contrib/seccomp"
	capability "github.com/containerd/containerd/v2/pkg/cap"
	"github.com/containerd/errdefs"
	"github.com/moby/sys/user"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
)

const (
	initFile = "init"
	logFile  = "log"
	// initPath is where a container finds its init: below a tmpfs of its own, so
	// that the image's files stay as they are.
	initPath = "/dev/init"
	// inputPath is where it finds the FIFO of a handshake.
	inputFile   = "input"
	inputPath   = "/dev/init.input"
	defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	// cgroupParent holds the containers' cgroups.
	cgroupParent = "/bottle"
	// ociVersion is old enough for every runc that works with containerd 1.6.
	ociVersion = "1.0.2"
)

// ociSpec says how to run a container: everything that is not asked for is denied.
// network is the path of its network namespace.
func (e *Engine) ociSpec(id string, spec runtime.ContainerSpec, image *image, root *rootfs, network string) (*specs.Spec, error) {
	args, err := arguments(spec, image.config)
	if err != nil {
		return nil, err
	}
	who, err := lookupUser(root, first(spec.User, image.config.User), spec.Groups)
	if err != nil {
		return nil, err
	}
	cwd := path.Clean("/" + first(spec.WorkDir, image.config.WorkDir))
	env := environment(spec, image.config.Env, who.home)
	caps, err := capabilities(spec.Capabilities)
	if err != nil {
		return nil, err
	}
	if err := checkCommand(root, args[0], cwd, variable(env, "PATH"), spec); err != nil {
		return nil, err
	}
	switch {
	case spec.NoInit:
	case spec.Handshake != nil:
		args = append([]string{initPath, "init", "-i", inputPath, "--"}, args...)
	default:
		args = append([]string{initPath, "init", "--"}, args...)
	}
	resources, err := resources(spec.Limits)
	if err != nil {
		return nil, err
	}
	s := &specs.Spec{
		Version:  ociVersion,
		Hostname: spec.Hostname,
		Root:     &specs.Root{Path: "rootfs", Readonly: spec.ReadOnly},
		Process: &specs.Process{
			Terminal:        spec.TTY,
			User:            specs.User{UID: who.uid, GID: who.gid, AdditionalGids: who.groups},
			Args:            args,
			Env:             env,
			Cwd:             cwd,
			NoNewPrivileges: true,
			Capabilities: &specs.LinuxCapabilities{
				// Not inheritable and not ambient: only root has them.
				Bounding: caps, Permitted: caps, Effective: caps,
			},
		},
		Mounts: e.mounts(id, spec),
		Linux: &specs.Linux{
			CgroupsPath:   path.Join(cgroupParent, id),
			Resources:     resources,
			Namespaces:    linuxNamespaces(network),
			MaskedPaths:   maskedPaths,
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
		Annotations: map[string]string{runtime.LabelManaged: "true"},
	}
	if n := spec.Limits.NoFile; n > 0 {
		s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: uint64(n), Hard: uint64(n)}}
	}
	// Last: the profile depends on the capabilities.
	s.Linux.Seccomp = seccomp.DefaultProfile(s)
	return s, nil
}

var maskedPaths = []string{
	"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
	"/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
	"/sys/firmware", "/sys/devices/virtual/powercap",
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// arguments are the command line, put together as Docker does.
func arguments(spec runtime.ContainerSpec, config runtime.ImageConfig) ([]string, error) {
	entrypoint, command := config.Entrypoint, config.Cmd
	if spec.Entrypoint != nil {
		entrypoint, command = spec.Entrypoint, nil
	}
	if spec.Command != nil {
		command = spec.Command
	}
	args := slices.Concat(entrypoint, command)
	if len(args) == 0 {
		return nil, invalid("no command is given, and image %q has none", spec.Image)
	}
	return args, nil
}

// environment adds to the image's variables what containers have everywhere, and
// then the spec's.
func environment(spec runtime.ContainerSpec, image []string, home string) []string {
	var env []string
	set := func(name, value string) {
		env = slices.DeleteFunc(env, func(kv string) bool { return strings.HasPrefix(kv, name+"=") })
		env = append(env, name+"="+value)
	}
	set("PATH", defaultPath)
	set("HOSTNAME", spec.Hostname)
	if spec.TTY {
		set("TERM", "xterm")
	}
	for _, kv := range image {
		name, value, _ := strings.Cut(kv, "=")
		set(name, value)
	}
	names := make([]string, 0, len(spec.Env))
	for name := range spec.Env {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		set(name, spec.Env[name])
	}
	if variable(env, "HOME") == "" {
		set("HOME", home)
	}
	return env
}

func variable(env []string, name string) string {
	for _, kv := range env {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

func capabilities(names []string) ([]string, error) {
	known := capability.Known()
	all := []string{}
	for _, n := range names {
		if !slices.Contains(known, "CAP_"+n) {
			return nil, invalid("there is no capability %q", n)
		}
		all = append(all, "CAP_"+n)
	}
	return all, nil
}

// account is a user as the kernel knows it.
type account struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// databaseLimit bounds /etc/passwd and /etc/group, which a container may have
// written.
const databaseLimit = 4 << 20

// lookupUser resolves "user[:group]" and supplementary groups in a container's
// own files.
func lookupUser(root *rootfs, spec string, groups []string) (account, error) {
	passwd, err := database(root, "/etc/passwd")
	if err != nil {
		return account{}, err
	}
	group, err := database(root, "/etc/group")
	if err != nil {
		return account{}, err
	}
	found, err := user.GetExecUser(spec, &user.ExecUser{Home: "/"}, bytes.NewReader(passwd), bytes.NewReader(group))
	if err != nil {
		return account{}, runtime.Errorf(errdefs.ErrInvalidArgument, "user %q: %v", spec, err)
	}
	who := account{uid: uint32(found.Uid), gid: uint32(found.Gid), home: found.Home}
	sgids := found.Sgids
	if len(groups) > 0 {
		more, err := user.GetAdditionalGroups(groups, bytes.NewReader(group))
		if err != nil {
			return account{}, runtime.Errorf(errdefs.ErrInvalidArgument, "groups %s: %v", strings.Join(groups, ", "), err)
		}
		sgids = append(sgids, more...)
	}
	for _, gid := range sgids {
		if g := uint32(gid); !slices.Contains(who.groups, g) {
			who.groups = append(who.groups, g)
		}
	}
	return who, nil
}

func database(root *rootfs, name string) ([]byte, error) {
	content, err := root.readFile(name, databaseLimit)
	switch {
	case err == nil, errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return content, nil
	}
	return nil, fmt.Errorf("read %s of the container: %w", name, err)
}

// checkCommand says what would keep the command from being executed, before there
// is a process that could fail.
func checkCommand(root *rootfs, name, cwd, searchPath string, spec runtime.ContainerSpec) error {
	hidden := func(file string) bool {
		for _, special := range []string{"/proc", "/dev", "/sys"} {
			if within(file, special) {
				return true
			}
		}
		return slices.ContainsFunc(spec.Mounts, func(m runtime.Mount) bool { return within(file, m.Target) }) ||
			slices.ContainsFunc(spec.Tmpfs, func(t runtime.Tmpfs) bool { return within(file, t.Target) })
	}
	var candidates []string
	if strings.Contains(name, "/") {
		candidates = []string{absolute(cwd, name)}
	} else {
		for dir := range strings.SplitSeq(searchPath, ":") {
			candidates = append(candidates, absolute(cwd, path.Join(dir, name)))
		}
	}
	denied := false
	for _, file := range candidates {
		if hidden(file) {
			return nil // not to be seen from here
		}
		st, err := root.stat(file)
		if err != nil {
			continue
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG && st.Mode&0o111 != 0 {
			return nil
		}
		denied = true
	}
	if denied {
		return runtime.Errorf(errdefs.ErrPermissionDenied, "the command %q may not be executed", name)
	}
	return notFound("the image %q has no command %q", spec.Image, name)
}

func absolute(cwd, name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(cwd, name)
}

// within reports whether a clean path is a directory or below it.
func within(file, dir string) bool {
	return file == dir || strings.HasPrefix(file, strings.TrimSuffix(dir, "/")+"/")
}

func linuxNamespaces(network string) []specs.LinuxNamespace {
	all := []specs.LinuxNamespace{
		{Type: specs.PIDNamespace}, {Type: specs.IPCNamespace}, {Type: specs.UTSNamespace},
		{Type: specs.MountNamespace}, {Type: specs.NetworkNamespace, Path: network},
	}
	if _, err := os.Stat("/proc/self/ns/cgroup"); err == nil {
		all = append(all, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	return all
}

func (e *Engine) mounts(id string, spec runtime.ContainerSpec) []specs.Mount {
	all := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
		{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
	}
	bind := func(source, target string, options ...string) {
		all = append(all, specs.Mount{Destination: target, Type: "bind", Source: source, Options: append([]string{"rbind", "rprivate"}, options...)})
	}
	for _, name := range []string{hostsFile, resolvFile, hostnameFile} {
		bind(filepath.Join(e.containerDir(id), name), "/etc/"+name, "ro", "nosuid", "nodev", "noexec")
	}
	if !spec.NoInit {
		bind(filepath.Join(e.containerDir(id), initFile), initPath, "ro", "nosuid", "nodev")
	}
	if spec.Handshake != nil {
		bind(filepath.Join(e.containerDir(id), inputFile), inputPath, "ro", "nosuid", "nodev", "noexec")
	}
	for _, m := range spec.Mounts {
		mode := "ro"
		if m.Writable {
			mode = "rw"
		}
		bind(m.Source, m.Target, mode, "nosuid", "nodev")
	}
	for _, t := range spec.Tmpfs {
		all = append(all, specs.Mount{Destination: t.Target, Type: "tmpfs", Source: "tmpfs", Options: []string{
			"nosuid", "nodev", "noexec", "mode=" + strconv.FormatUint(uint64(t.Mode), 8), "size=" + strconv.FormatInt(t.Size, 10),
		}})
	}
	return all
}

// checkTargets refuses files at places that a mount hides.
func checkTargets(spec runtime.ContainerSpec) error {
	for _, f := range spec.Files {
		for _, dir := range []string{"/proc", "/sys", "/dev", "/etc/" + hostsFile, "/etc/" + resolvFile, "/etc/" + hostnameFile} {
			if within(f.Path, dir) {
				return invalid("file %s: %s is bottle's own in a container", f.Path, dir)
			}
		}
	}
	return nil
}

func resources(limits runtime.Limits) (*specs.LinuxResources, error) {
	have := controllers()
	r := &specs.LinuxResources{Devices: allowedDevices()}
	if limits.Memory > 0 {
		if reason := have.missing("memory"); reason != "" {
			return nil, runtime.NotImplemented(runtime.FeatureMemoryLimit, reason)
		}
		memory := limits.Memory
		r.Memory = &specs.LinuxMemory{Limit: &memory}
		if have.swap {
			r.Memory.Swap = &memory
		}
	}
	if limits.CPUs > 0 {
		if reason := have.missing("cpu"); reason != "" {
			return nil, runtime.NotImplemented(runtime.FeatureCPULimit, reason)
		}
		period := uint64(100_000)
		quota := int64(limits.CPUs * float64(period))
		r.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
	}
	pids := limits.PIDs
	if reason := have.missing("pids"); reason != "" {
		if pids > 0 {
			return nil, runtime.NotImplemented(runtime.FeaturePIDsLimit, reason)
		}
		return r, nil
	}
	if pids == 0 {
		pids = runtime.DefaultPIDs
	}
	r.Pids = &specs.LinuxPids{Limit: &pids}
	return r, nil
}

// allowedDevices are the usual ones; runc makes them.
func allowedDevices() []specs.LinuxDeviceCgroup {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range [][2]int64{
		{1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, // null, zero, full, random, urandom
		{5, 0}, {5, 1}, {5, 2}, // tty, console, ptmx
	} {
		rules = append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &d[0], Minor: &d[1], Access: "rwm"})
	}
	pts := int64(136)
	return append(rules, specs.LinuxDeviceCgroup{Allow: true, Type: "c", Major: &pts, Access: "rwm"})
}
