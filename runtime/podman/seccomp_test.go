package podman

import (
	"encoding/json"
	"slices"
	"testing"
)

const someProfile = `{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"archMap":[{"architecture":"SCMP_ARCH_X86_64"}],"syscalls":[
{"names":["read","clone","clone3","unshare","mount","syslog","keyctl"],"action":"SCMP_ACT_ALLOW","args":[],"includes":{},"excludes":{}},
{"names":["bpf","setns"],"action":"SCMP_ACT_ALLOW","args":[],"includes":{"caps":["CAP_SYS_ADMIN"]},"excludes":{}},
{"names":["bpf","setns"],"action":"SCMP_ACT_ERRNO","args":[],"includes":{},"excludes":{"caps":["CAP_SYS_ADMIN"]},"errnoRet":1}]}`

type seccompEntry struct {
	Names    []string         `json:"names"`
	Action   string           `json:"action"`
	Args     []map[string]any `json:"args"`
	ErrnoRet int              `json:"errnoRet"`
	Includes map[string]any   `json:"includes"`
}

func strictened(t *testing.T, capabilities ...string) []seccompEntry {
	t.Helper()
	b, err := strictProfile([]byte(someProfile), capabilities)
	if err != nil {
		t.Fatal(err)
	}
	var p struct {
		DefaultAction string         `json:"defaultAction"`
		ArchMap       []any          `json:"archMap"`
		Syscalls      []seccompEntry `json:"syscalls"`
	}
	if err := json.Unmarshal(b, &p); err != nil {
		t.Fatal(err)
	}
	if p.DefaultAction != "SCMP_ACT_ERRNO" || len(p.ArchMap) != 1 {
		t.Errorf("expected the rest of the profile to be kept, got %s", b)
	}
	return p.Syscalls
}

func allowed(entries []seccompEntry, name string) bool {
	return slices.ContainsFunc(entries, func(e seccompEntry) bool {
		return e.Action == "SCMP_ACT_ALLOW" && slices.Contains(e.Names, name) && len(e.Args) == 0 && len(e.Includes) == 0
	})
}

func TestStrictProfileTakesNamespacesAndMountsAway(t *testing.T) {
	entries := strictened(t)
	for _, name := range []string{"clone", "clone3", "unshare", "mount", "setns", "syslog", "keyctl"} {
		if allowed(entries, name) {
			t.Errorf("%s is allowed without a condition", name)
		}
	}
	if !allowed(entries, "read") {
		t.Error("read is not allowed any more")
	}
	if !slices.ContainsFunc(entries, func(e seccompEntry) bool {
		return e.Action == "SCMP_ACT_ALLOW" && slices.Equal(e.Names, []string{"clone"}) && len(e.Args) == 1 &&
			e.Args[0]["value"] == float64(newNamespaces) && e.Args[0]["op"] == "SCMP_CMP_MASKED_EQ" && e.Args[0]["index"] == 0.0
	}) {
		t.Error("expected clone without the flags of namespaces to be allowed")
	}
	if !slices.ContainsFunc(entries, func(e seccompEntry) bool {
		return e.Action == "SCMP_ACT_ERRNO" && e.ErrnoRet == eperm && slices.Contains(e.Names, "unshare") && !slices.Contains(e.Names, "setns")
	}) {
		t.Error("expected unshare to be refused, and setns by its own entry alone")
	}
}

func TestStrictProfileGivesBackWhatACapabilityIsFor(t *testing.T) {
	entries := strictened(t, "CAP_SYS_ADMIN")
	for _, name := range []string{"clone", "unshare", "mount"} {
		if !allowed(entries, name) {
			t.Errorf("%s is not allowed with SYS_ADMIN", name)
		}
	}
	if allowed(entries, "keyctl") || allowed(entries, "syslog") {
		t.Error("keyctl and syslog are not SYS_ADMIN's")
	}
	if !allowed(strictened(t, "SYSLOG"), "syslog") {
		t.Error("syslog is not allowed with SYSLOG")
	}
}

func TestBrokenProfilesAreErrors(t *testing.T) {
	for _, p := range []string{"", "{}", `{"syscalls":[1]}`} {
		if _, err := strictProfile([]byte(p), nil); err == nil {
			t.Errorf("%q: expected an error", p)
		}
	}
}
