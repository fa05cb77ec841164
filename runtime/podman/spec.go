package podman

import (
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"

	"github.com/bottle-run/bottle/runtime"
)

// cpuPeriod is the period of the processor quota, in microseconds.
const cpuPeriod = 100000

// plan is a container to run: the spec and what the engine says about its parts.
type plan struct {
	spec     runtime.ContainerSpec
	image    apiImage
	networks []apiNetwork // as in spec.Networks
	local    bool
	ipv6     bool // containers have IPv6
	pids     bool // the engine can limit processes
	argv     []string
}

// managedFiles are bind-mounted by Podman over whatever the container has there.
var managedFiles = []string{"/etc/hosts", "/etc/resolv.conf", "/etc/hostname", "/run/.containerenv", "/run/podman-init"}

// request renders the spec.
func (p *plan) request() (apiSpec, error) {
	s := p.spec
	labels := map[string]string{}
	maps.Copy(labels, s.Labels)
	labels[runtime.LabelManaged], labels[labelContainer] = "true", "true"
	out := apiSpec{
		Name:             s.Name,
		Image:            s.Image,
		Entrypoint:       []string{},
		Command:          p.argv,
		Env:              s.Env,
		Terminal:         s.TTY,
		Stdin:            s.Handshake != nil,
		Labels:           labels,
		LogConfiguration: apiLogConfig{Driver: "k8s-file"},
		OCIRuntime:       s.OCIRuntime,
		Systemd:          "false",
		SdNotifyMode:     "ignore",
		Hostname:         s.Hostname,
		Remove:           s.AutoRemove,
		// Podman's --rm does so too: what will not outlive the process need not
		// survive a crash of the host.
		Volatile: s.AutoRemove,

		Init:               !s.NoInit,
		WorkDir:            s.WorkDir,
		CreateWorkingDir:   s.WorkDir != "",
		ReadOnlyFilesystem: s.ReadOnly,

		User:            s.User,
		Groups:          s.Groups,
		CapDrop:         []string{"ALL"},
		NoNewPrivileges: true,

		IpcNS: apiNamespace{"private"},
		PidNS: apiNamespace{"private"},
		UtsNS: apiNamespace{"private"},
		NetNS: apiNamespace{"none"},

		UseImageHosts: !p.local,
	}
	for _, c := range s.Capabilities {
		out.CapAdd = append(out.CapAdd, "CAP_"+strings.TrimPrefix(strings.ToUpper(c), "CAP_"))
	}
	if s.StopSignal != "" {
		sig, err := signalNumber(s.StopSignal)
		if err != nil {
			return apiSpec{}, err
		}
		out.StopSignal = &sig
	}
	for _, m := range s.Mounts {
		mode := "ro"
		if m.Writable {
			mode = "rw"
		}
		out.Mounts = append(out.Mounts, apiMount{Destination: m.Target, Type: "bind", Source: m.Source,
			Options: []string{"rbind", mode, "nosuid", "nodev"}})
	}
	for _, t := range s.Tmpfs {
		out.Mounts = append(out.Mounts, apiMount{Destination: t.Target, Type: "tmpfs", Source: "tmpfs", Options: []string{
			"nosuid", "nodev", "noexec", "notmpcopyup", "rw",
			"size=" + strconv.FormatInt(t.Size, 10), fmt.Sprintf("mode=%04o", t.Mode),
		}})
	}
	p.network(&out)
	p.limits(&out)
	return out, nil
}

func (p *plan) network(out *apiSpec) {
	// Without a capability a server may have any port of its own container's.
	out.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
	if len(p.networks) == 0 {
		return
	}
	out.NetNS = apiNamespace{"bridge"}
	out.Networks = map[string]apiNetOpts{}
	out.Sysctl["net.ipv4.ip_forward"] = "0"
	outside := false
	for i, n := range p.networks {
		ifname := "eth" + strconv.Itoa(i)
		opts := apiNetOpts{Aliases: p.spec.Networks[i].Aliases, InterfaceName: ifname}
		if a := p.spec.Networks[i].Address; a.IsValid() {
			opts.StaticIPs = []string{a.String()}
		}
		out.Networks[n.Name] = opts
		if p.ipv6 {
			// The networks have no IPv6; link-local addresses would come by themselves.
			out.Sysctl["net.ipv6.conf."+ifname+".disable_ipv6"] = "1"
		}
		outside = outside || !n.Internal
	}
	if !outside {
		// Nothing answers there, at once: a resolver of the host's would only tell
		// the container about the host.
		out.DNSServers = []string{"127.0.0.1"}
	}
}

func (p *plan) limits(out *apiSpec) {
	l := p.spec.Limits
	var r apiResources
	if l.Memory > 0 {
		r.Memory = &apiMemory{Limit: l.Memory, Swap: &l.Memory}
	}
	if p.pids {
		limit := l.PIDs
		if limit == 0 {
			limit = runtime.DefaultPIDs
		}
		r.Pids = &apiPids{Limit: limit}
	}
	if l.CPUs > 0 {
		r.CPU = &apiCPU{Quota: int64(math.Ceil(l.CPUs * cpuPeriod)), Period: cpuPeriod}
	}
	if r != (apiResources{}) {
		out.ResourceLimits = &r
	}
	if l.NoFile > 0 {
		n := uint64(l.NoFile)
		out.Rlimits = []apiRlimit{{Type: "NOFILE", Hard: n, Soft: n}}
	}
}

// commandLine is what the container will run: the spec's, or the image's.
func commandLine(s runtime.ContainerSpec, image apiImage) ([]string, error) {
	argv := slices.Clone(image.Config.Entrypoint)
	command := image.Config.Cmd
	if s.Entrypoint != nil {
		argv, command = slices.Clone(s.Entrypoint), nil
	}
	if s.Command != nil {
		command = s.Command
	}
	argv = append(argv, command...)
	if len(argv) == 0 {
		return nil, runtime.Errorf(errdefs.ErrInvalidArgument, "neither the spec nor the image names a command")
	}
	return argv, nil
}

// searchPath is the PATH by which the command is looked up.
func searchPath(s runtime.ContainerSpec, image apiImage) []string {
	value := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	for _, kv := range image.Config.Env {
		if v, ok := strings.CutPrefix(kv, "PATH="); ok {
			value = v
		}
	}
	if v, ok := s.Env["PATH"]; ok {
		value = v
	}
	return strings.Split(value, ":")
}

// workDir is the directory in which the command starts.
func workDir(s runtime.ContainerSpec, image apiImage) string {
	switch {
	case s.WorkDir != "":
		return s.WorkDir
	case image.Config.WorkingDir != "":
		return image.Config.WorkingDir
	}
	return "/"
}

// candidates are the paths at which a command may be.
func candidates(argv0, dir string, searched []string) []string {
	if strings.Contains(argv0, "/") {
		if !path.IsAbs(argv0) {
			argv0 = path.Join(dir, argv0)
		}
		return []string{argv0}
	}
	var list []string
	for _, d := range searched {
		if d == "" {
			d = dir
		}
		list = append(list, path.Join("/", d, argv0))
	}
	return list
}

// below reports whether a path is dir or in it.
func below(p, dir string) bool {
	dir = path.Clean(dir)
	return dir == "/" || p == dir || strings.HasPrefix(p, dir+"/")
}

// mounted reports whether a path is covered by a mount of the spec's.
func mounted(s runtime.ContainerSpec, p string) bool {
	return slices.ContainsFunc(s.Tmpfs, func(t runtime.Tmpfs) bool { return below(p, t.Target) }) ||
		slices.ContainsFunc(s.Mounts, func(m runtime.Mount) bool { return below(p, m.Target) })
}

// checkFiles refuses files that the container would not see.
func checkFiles(s runtime.ContainerSpec) error {
	for _, f := range s.Files {
		if mounted(s, f.Path) {
			return runtime.Errorf(errdefs.ErrInvalidArgument, "file %s lies below a mount", f.Path)
		}
		if slices.Contains(managedFiles, f.Path) {
			return runtime.Errorf(errdefs.ErrInvalidArgument, "file %s is the engine's own", f.Path)
		}
	}
	return nil
}

// signalNumber is the number of a signal given by name or number, on Linux.
func signalNumber(name string) (int, error) {
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n <= 64 {
		return n, nil
	}
	if n, ok := signals[strings.TrimPrefix(strings.ToUpper(name), "SIG")]; ok {
		return int(n), nil
	}
	return 0, runtime.Errorf(errdefs.ErrInvalidArgument, "unknown signal %q", name)
}

// signals are Linux's: this program may run elsewhere.
var signals = map[string]syscall.Signal{
	"HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": 9,
	"USR1": 10, "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CONT": 18,
	"STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27,
	"WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31, "RTMIN": 34, "RTMAX": 64,
}
