package podman

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/BurntSushi/toml"
)

// Podman's default profile lets a container make user namespaces, and mount in
// them, so that Podman can run in Podman. For a hostile container that is most of
// the kernel's attack surface, with every capability. What Docker's profile keeps
// behind a capability is kept behind it here too. The profile is read by the
// service, so this is for an engine on this machine.

// gated are the system calls that need a capability, which Podman's profile allows
// to all. An empty one means that no capability gives them back.
var gated = map[string]string{
	"unshare": "SYS_ADMIN", "setns": "SYS_ADMIN", "clone": "SYS_ADMIN", "clone3": "SYS_ADMIN",
	"mount": "SYS_ADMIN", "umount": "SYS_ADMIN", "umount2": "SYS_ADMIN", "pivot_root": "SYS_ADMIN",
	"move_mount": "SYS_ADMIN", "open_tree": "SYS_ADMIN", "open_tree_attr": "SYS_ADMIN", "mount_setattr": "SYS_ADMIN",
	"fsopen": "SYS_ADMIN", "fsmount": "SYS_ADMIN", "fsconfig": "SYS_ADMIN", "fspick": "SYS_ADMIN",
	"bpf": "SYS_ADMIN", "perf_event_open": "SYS_ADMIN", "quotactl": "SYS_ADMIN", "quotactl_fd": "SYS_ADMIN",
	"syslog": "SYSLOG", "reboot": "SYS_BOOT",
	"keyctl": "", "add_key": "", "request_key": "",
}

// newNamespaces are the flags of clone(2) that make a namespace: NEWNS, NEWCGROUP,
// NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET.
const newNamespaces = 0x7e020000

const eperm = 1

// strictProfile takes out of a profile what gated says, for a container with the
// given capabilities.
func strictProfile(profile []byte, capabilities []string) ([]byte, error) {
	var p map[string]any
	if err := json.Unmarshal(profile, &p); err != nil {
		return nil, err
	}
	calls, ok := p["syscalls"].([]any)
	if !ok {
		return nil, errors.New("it has no system calls")
	}
	has := map[string]bool{}
	for _, c := range capabilities {
		has[strings.TrimPrefix(strings.ToUpper(c), "CAP_")] = true
	}
	taken := map[string]bool{}
	for name, c := range gated {
		if !has[c] && !has["ALL"] {
			taken[name] = true
		}
	}
	mentioned := map[string]bool{}
	for _, entry := range calls {
		e, ok := entry.(map[string]any)
		if !ok {
			return nil, errors.New("it has an entry that is none")
		}
		names, _ := e["names"].([]any)
		conditional := len(asMap(e["includes"])) > 0
		if e["action"] == "SCMP_ACT_ALLOW" && !conditional {
			names = slices.DeleteFunc(names, func(n any) bool { s, _ := n.(string); return taken[s] })
			e["names"] = names
		}
		for _, n := range names {
			if s, ok := n.(string); ok {
				mentioned[s] = true
			}
		}
	}
	calls = slices.DeleteFunc(calls, func(entry any) bool {
		names, _ := entry.(map[string]any)["names"].([]any)
		return len(names) == 0
	})
	if taken["clone"] {
		// Threads and processes, but no namespaces. clone3 hides its flags in memory:
		// without it, libraries fall back to clone.
		calls = append(calls,
			map[string]any{"names": []string{"clone"}, "action": "SCMP_ACT_ALLOW", "args": []any{map[string]any{
				"index": 0, "value": newNamespaces, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ",
			}}, "excludes": map[string]any{"arches": []string{"s390", "s390x"}}},
			map[string]any{"names": []string{"clone"}, "action": "SCMP_ACT_ALLOW", "args": []any{map[string]any{
				"index": 1, "value": newNamespaces, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ",
			}}, "includes": map[string]any{"arches": []string{"s390", "s390x"}}},
			map[string]any{"names": []string{"clone3"}, "action": "SCMP_ACT_ERRNO", "errnoRet": 38, "errno": "ENOSYS"},
		)
		mentioned["clone"], mentioned["clone3"] = true, true
	}
	var refused []string
	for name := range taken {
		if !mentioned[name] {
			refused = append(refused, name)
		}
	}
	if len(refused) > 0 {
		slices.Sort(refused)
		calls = append(calls, map[string]any{"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": eperm, "errno": "EPERM"})
	}
	p["syscalls"] = calls
	return json.Marshal(p)
}

func asMap(v any) map[string]any {
	m, _ := v.(map[string]any)
	return m
}

// profiles keeps the profiles that were written for the service to read.
type profiles struct {
	mu    sync.Mutex
	dir   string
	lock  *os.File          // held as long as the directory is needed
	files map[string]string // by capabilities
}

// seccompProfile returns the file with the profile for a container, or "" if the
// engine is elsewhere or has no profile in a file: then it has the engine's own.
func (e *engine) seccompProfile(capabilities []string) (string, error) {
	if !e.local {
		return "", nil
	}
	e.profiles.mu.Lock()
	defer e.profiles.mu.Unlock()
	sorted := slices.Sorted(slices.Values(capabilities))
	key := strings.Join(sorted, ",")
	if f, ok := e.profiles.files[key]; ok {
		return f, nil
	}
	base, err := defaultProfile()
	if errors.Is(err, fs.ErrNotExist) {
		e.log.Warn("podman: no seccomp profile in a file; the engine's own is used", "err", err)
		return "", nil
	}
	if err != nil {
		return "", err
	}
	strict, err := strictProfile(base, capabilities)
	if err != nil {
		return "", fmt.Errorf("seccomp profile: %w", err)
	}
	if e.profiles.dir == "" {
		dir, err := baseDir()
		if err != nil {
			return "", err
		}
		unlock, err := lockDir(dir) // against the sweep
		if err != nil {
			return "", err
		}
		defer unlock()
		if e.profiles.dir, err = os.MkdirTemp(dir, "p"); err != nil {
			return "", err
		}
		if e.profiles.lock, err = holdDir(e.profiles.dir); err != nil {
			return "", err
		}
		e.profiles.files = map[string]string{}
	}
	sum := sha256.Sum256(strict)
	file := filepath.Join(e.profiles.dir, "seccomp-"+hex.EncodeToString(sum[:6])+".json")
	if err := os.WriteFile(file, strict, 0o600); err != nil {
		return "", err
	}
	e.profiles.files[key] = file
	return file, nil
}

// forgetProfiles removes the files. Containers have their own copy of what was in
// them from the moment they are created.
func (e *engine) forgetProfiles() {
	e.profiles.mu.Lock()
	defer e.profiles.mu.Unlock()
	if e.profiles.dir != "" {
		_ = os.RemoveAll(e.profiles.dir)
		_ = e.profiles.lock.Close()
		_ = os.Remove(filepath.Dir(e.profiles.dir)) // if nothing else is there
		e.profiles.dir, e.profiles.files = "", nil
	}
}

// defaultProfile reads the profile that Podman would use.
func defaultProfile() ([]byte, error) {
	home, _ := os.UserHomeDir()
	files := []string{"/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json"}
	if config, err := mergedConfig(os.Getenv, home); err == nil {
		var c struct {
			Containers struct {
				Profile string `toml:"seccomp_profile"`
			} `toml:"containers"`
		}
		if toml.Unmarshal(config, &c) == nil && filepath.IsAbs(c.Containers.Profile) {
			files = append([]string{c.Containers.Profile}, files...)
		}
	}
	var err error
	for _, f := range files {
		var b []byte
		if b, err = os.ReadFile(f); err == nil {
			return b, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return nil, err
}
