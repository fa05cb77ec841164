package containerd

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/bottle-run/bottle/runtime"
)

// ociRuntimes are those that the shim can drive.
var ociRuntimes = []string{"runc", "crun", "youki", "runsc"}

// ociVariable, with an OCI runtime's name in capitals behind it, names its program
// where that is not the one in PATH: a wrapper that adds flags, say.
const ociVariable = "BOTTLE_OCI_RUNTIME_"

// ociRuntime returns the program of an OCI runtime, empty for containerd's default,
// or why it cannot be used.
func ociRuntime(name string) (string, error) {
	if name == "" || name == "runc" {
		return "", nil
	}
	if !slices.Contains(ociRuntimes, name) {
		return "", invalid("there is no OCI runtime %q: this engine knows %s", name, strings.Join(ociRuntimes, ", "))
	}
	if program := os.Getenv(ociVariable + strings.ToUpper(name)); program != "" {
		if !filepath.IsAbs(program) || unix.Access(program, unix.X_OK) != nil {
			return "", invalid("%s is %q, which is no program", ociVariable+strings.ToUpper(name), program)
		}
		return program, nil
	}
	program, err := exec.LookPath(name)
	switch {
	case err != nil && name == "runsc":
		return "", runtime.NotImplemented(runtime.FeatureGVisor, "runsc is not in PATH")
	case err != nil:
		return "", invalid("OCI runtime %q is not installed: it is not in PATH", name)
	}
	switch {
	case name == "crun" && hybridCgroups():
		return "", invalid("OCI runtime crun refuses a host that has both versions of cgroups")
	case name == "runsc" && runscFailsHere(program):
		return "", runtime.NotImplemented(runtime.FeatureGVisor, "this runsc cannot tell network namespaces apart on this kernel; install a newer one, or name a wrapper that adds --network=host by "+ociVariable+"RUNSC")
	}
	return program, nil
}

var runscDate = regexp.MustCompile(`(?:version|release-)[^0-9]*(?:0\.0~)?(20\d{6})`)

// runscFailsHere recognizes a runsc that takes every network namespace for the
// host's: it looks for a sysctl that used to be the host's alone.
func runscFailsHere(program string) bool {
	if !everyNamespaceHasBuffers() {
		return false
	}
	out, err := exec.Command(program, "--version").Output()
	if err != nil {
		return true
	}
	date := runscDate.FindStringSubmatch(string(out))
	return date == nil || date[1] < "20250101"
}

var everyNamespaceHasBuffers = sync.OnceValue(func() bool {
	visible := false
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		_, err := os.Stat("/proc/sys/net/core/rmem_default")
		visible = err == nil
		return nil
	})
	return err != nil || visible
})
