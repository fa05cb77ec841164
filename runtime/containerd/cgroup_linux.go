package containerd

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// cgroups says which controllers this host has.
type cgroups struct {
	version string // "1" or "2"
	names   []string
	swap    bool // swap can be limited
}

var controllers = sync.OnceValue(func() cgroups {
	var st unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &st); err == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		c := cgroups{version: "2"}
		if content, err := os.ReadFile(cgroupRoot + "/cgroup.controllers"); err == nil {
			c.names = strings.Fields(string(content))
		}
		_, err := os.Stat("/proc/swaps")
		c.swap = err == nil
		return c
	}
	c := cgroups{version: "1"}
	for _, name := range []string{"memory", "cpu", "pids", "freezer", "devices"} {
		if _, err := os.Stat(filepath.Join(cgroupRoot, name, "cgroup.procs")); err == nil {
			c.names = append(c.names, name)
		}
	}
	_, err := os.Stat(cgroupRoot + "/memory/memory.memsw.limit_in_bytes")
	c.swap = err == nil
	return c
})

// missing says why a controller cannot be used, or nothing.
func (c cgroups) missing(name string) string {
	if slices.Contains(c.names, name) {
		return ""
	}
	return fmt.Sprintf("this host's cgroups (version %s) have no controller %q", c.version, name)
}

// oomKilled asks a container's cgroup, which is there until its task is deleted.
func oomKilled(id string) bool {
	file, key := filepath.Join(cgroupRoot, cgroupParent, id, "memory.events"), "oom_kill"
	if controllers().version == "1" {
		file = filepath.Join(cgroupRoot, "memory", cgroupParent, id, "memory.oom_control")
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return false
	}
	for scan := bufio.NewScanner(bytes.NewReader(content)); scan.Scan(); {
		if fields := strings.Fields(scan.Text()); len(fields) == 2 && fields[0] == key {
			n, err := strconv.Atoi(fields[1])
			return err == nil && n > 0
		}
	}
	return false
}

// hybridCgroups reports whether both versions are mounted.
func hybridCgroups() bool {
	var st unix.Statfs_t
	return controllers().version == "1" &&
		unix.Statfs(cgroupRoot+"/unified", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}
