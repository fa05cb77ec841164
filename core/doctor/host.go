package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// Host is what the checks see of this machine.
type Host struct {
	// Root is the file system; paths in it have no leading slash.
	Root fs.FS
	// UID and User are whom bottle runs as.
	UID  int
	User string
	// LookupEnv finds an environment variable.
	LookupEnv func(string) (string, bool)
	// Version asks a program that no API tells about for its version ("runc"). It is
	// empty if there is none; nil asks nothing.
	Version func(ctx context.Context, program string) string
}

// ProgramVersion asks a program for its version with --version: the last word of
// the first line, "runc version 1.1.5+ds1".
func ProgramVersion(ctx context.Context, program string) string {
	out, err := exec.CommandContext(ctx, program, "--version").Output()
	if err != nil {
		return ""
	}
	first, rest, _ := strings.Cut(string(out), "\n")
	fields := strings.Fields(first)
	if len(fields) == 0 {
		return ""
	}
	version := fields[len(fields)-1]
	// Debian's build has its package's version in place of a commit.
	if commit, ok := strings.CutPrefix(rest, "commit: "); ok {
		if commit, _, _ = strings.Cut(commit, "\n"); strings.HasPrefix(commit, version) {
			return commit
		}
	}
	return version
}

// text reads a small file; it is empty if it cannot be read.
func (h Host) text(name string) string {
	content, err := fs.ReadFile(h.Root, name)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(content))
}

func (h Host) exists(name string) bool {
	_, err := fs.Stat(h.Root, name)
	return err == nil
}

// check looks at what concerns every engine of this machine.
func (h Host) check() []Finding {
	var list []Finding
	add := func(s Severity, check, fix, format string, args ...any) {
		list = append(list, Finding{Severity: s, Check: check, Text: fmt.Sprintf(format, args...), Fix: fix})
	}
	if major, minor, ok := h.kernel(); ok && (major < 5 || major == 5 && minor < 6) {
		add(Problem, "kernel", "use Linux 5.6 or newer", "the kernel is %d.%d: it has no openat2, by which files are copied safely into containers", major, minor)
	}
	if status := h.text("proc/self/status"); status != "" && !strings.Contains(status, "\nSeccomp:") {
		add(Problem, "seccomp", "use a kernel built with CONFIG_SECCOMP_FILTER", "the kernel has no seccomp: containers may make any system call")
	}
	if filesystems := h.text("proc/filesystems"); filesystems != "" && !strings.Contains(filesystems, "\toverlay") {
		add(Warning, "overlay", "modprobe overlay, and have it loaded at boot (/etc/modules-load.d)", "the kernel has no overlay file system loaded: images are copied whole, or not at all")
	}
	if h.text("proc/sys/kernel/unprivileged_bpf_disabled") == "0" {
		add(Note, "bpf", "sysctl kernel.unprivileged_bpf_disabled=1", "every user may load BPF programs; the engines' seccomp profiles keep containers from it")
	}
	switch {
	case h.exists("sys/fs/cgroup/cgroup.controllers"):
	case h.exists("sys/fs/cgroup/unified/cgroup.procs") || h.exists("sys/fs/cgroup/unified"):
		add(Warning, "cgroup-version", "boot with systemd.unified_cgroup_hierarchy=1", "control groups are hybrid (v1 and v2): rootless engines cannot set limits, and crun refuses to run")
	case h.exists("sys/fs/cgroup/memory") || h.exists("sys/fs/cgroup/pids"):
		add(Warning, "cgroup-version", "boot with systemd.unified_cgroup_hierarchy=1", "control groups are of version 1: rootless engines cannot set limits")
	}
	return list
}

// rootless checks what an engine needs that runs as an ordinary user on this
// machine.
func (h Host) rootless(engine string) []Finding {
	var list []Finding
	add := func(s Severity, check, fix, format string, args ...any) {
		list = append(list, Finding{Severity: s, Check: check, Engine: engine, Text: fmt.Sprintf(format, args...), Fix: fix})
	}
	for _, name := range []string{"subuid", "subgid"} {
		if n := h.subordinate("etc/" + name); n < 65536 {
			add(Problem, name, fmt.Sprintf("usermod --add-%ss 100000-165535 %s, in a range that /etc/%[1]s gives to nobody else; then start the engine anew", name, h.User),
				"user %s has %d subordinate ids in /etc/%s, and an image needs 65536", h.User, n, name)
		}
	}
	for _, program := range []string{"newuidmap", "newgidmap"} {
		if !h.exists("usr/bin/"+program) && !h.exists("bin/"+program) && !h.exists("usr/local/bin/"+program) {
			add(Problem, "uidmap", "install your distribution's package uidmap (or shadow-utils)", "there is no %s, by which a user gets subordinate ids", program)
		}
	}
	switch info, err := fs.Stat(h.Root, "dev/net/tun"); {
	case errors.Is(err, fs.ErrNotExist):
		add(Problem, "dev-net-tun", "modprobe tun, and have it loaded at boot (/etc/modules-load.d)", "there is no /dev/net/tun: rootless containers have no way out")
	case err == nil && info.Mode().Perm()&0o006 != 0o006:
		add(Problem, "dev-net-tun", "chmod 0666 /dev/net/tun, for good by a udev rule", "/dev/net/tun has mode %04o, and user %s needs to open it: rootless containers have no way out", info.Mode().Perm(), h.User)
	}
	if n := h.text("proc/sys/user/max_user_namespaces"); n == "0" {
		add(Problem, "user-namespaces", "sysctl user.max_user_namespaces=15000", "user namespaces are switched off")
	}
	if h.text("proc/sys/kernel/unprivileged_userns_clone") == "0" {
		add(Problem, "user-namespaces", "sysctl kernel.unprivileged_userns_clone=1", "only root may make user namespaces")
	}
	if h.text("proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1" {
		add(Warning, "user-namespaces", "give the engine's programs an AppArmor profile that allows userns (packages have one), or sysctl kernel.apparmor_restrict_unprivileged_userns=0", "AppArmor restricts user namespaces to programs that have a profile")
	}
	if used, most := h.keys(); most > 0 && used > most*4/5 {
		add(Warning, "keys", "stop some bottles, or sysctl kernel.keys.maxkeys=5000 kernel.keys.maxbytes=500000",
			"user %s has %d of the %d keys that the kernel gives a user, and each running container takes one", h.User, used, most)
	}
	if dir, ok := h.LookupEnv("XDG_RUNTIME_DIR"); !ok || dir == "" {
		add(Warning, "runtime-dir", "log in through systemd-logind (loginctl), or set XDG_RUNTIME_DIR to a directory of your own with mode 0700", "XDG_RUNTIME_DIR is not set: the engine keeps its state in a temporary directory")
	}
	if h.exists("sys/fs/cgroup/cgroup.controllers") && h.exists("run/systemd/system") {
		base := fmt.Sprintf("sys/fs/cgroup/user.slice/user-%d.slice/user@%d.service/cgroup.controllers", h.UID, h.UID)
		have := strings.Fields(h.text(base))
		var missing []string
		for _, c := range []string{"cpu", "memory", "pids"} {
			if h.exists(base) && !slices.Contains(have, c) {
				missing = append(missing, c)
			}
		}
		if len(missing) > 0 {
			add(Warning, "cgroup-delegation", "put [Service] and Delegate=cpu memory pids into /etc/systemd/system/user@.service.d/delegate.conf, then systemctl daemon-reload and log in anew",
				"the controllers %s are not delegated to user %s: these limits cannot be set", strings.Join(missing, ", "), h.User)
		}
	}
	if h.exists("run/systemd/system") && !h.exists("var/lib/systemd/linger/"+h.User) {
		add(Note, "linger", "loginctl enable-linger "+h.User, "bottles that are left running (--detach) end when user %s logs out", h.User)
	}
	return list
}

// subordinate is the largest range that a file of subuid(5) gives the user.
func (h Host) subordinate(file string) int {
	most := 0
	for line := range strings.Lines(h.text(file)) {
		fields := strings.Split(strings.TrimSpace(line), ":")
		if len(fields) != 3 || fields[0] != h.User && fields[0] != strconv.Itoa(h.UID) {
			continue
		}
		if n, err := strconv.Atoi(fields[2]); err == nil {
			most = max(most, n)
		}
	}
	return most
}

// keys are how many keys the user has and may have, of /proc/key-users (keyrings(7)).
func (h Host) keys() (used, most int) {
	for line := range strings.Lines(h.text("proc/key-users")) {
		if uid, rest, _ := strings.Cut(strings.TrimSpace(line), ":"); uid != strconv.Itoa(h.UID) {
			continue
		} else if fields := strings.Fields(rest); len(fields) < 3 {
			break
		} else if _, err := fmt.Sscanf(fields[2], "%d/%d", &used, &most); err == nil {
			return used, most
		}
	}
	return 0, 0
}

func (h Host) kernel() (major, minor int, ok bool) {
	v, ok := parseVersion(h.text("proc/sys/kernel/osrelease"))
	return v.n[0], v.n[1], ok
}

// routes are the host's IPv4 routes but default ones, by interface.
func (h Host) routes() map[netip.Prefix]string {
	routes := map[netip.Prefix]string{}
	for i, line := range strings.Split(h.text("proc/net/route"), "\n") {
		fields := strings.Fields(line)
		if i == 0 || len(fields) < 8 {
			continue
		}
		address, err1 := strconv.ParseUint(fields[1], 16, 32)
		mask, err2 := strconv.ParseUint(fields[7], 16, 32)
		if err1 != nil || err2 != nil || mask == 0 {
			continue
		}
		// The kernel writes them in its own byte order, which is little endian on
		// every machine that bottle is built for.
		bits := 0
		for m := mask; m != 0; m >>= 1 {
			bits += int(m & 1)
		}
		ip := netip.AddrFrom4([4]byte{byte(address), byte(address >> 8), byte(address >> 16), byte(address >> 24)})
		routes[netip.PrefixFrom(ip, bits)] = fields[0]
	}
	return routes
}
