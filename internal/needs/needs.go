// Package needs is for tests that compare with a program which may not be installed.
package needs

import (
	"os"
	"os/exec"
	"testing"
)

// Missing ends a test that cannot be run here, and says why. It skips the test on a
// contributor's machine and fails it where CI is set in the environment: what continuous
// integration leaves out, nobody has checked.
func Missing(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("CI is set, and "+format, args...)
	}
	t.Skipf("NOT CHECKED: "+format, args...)
}

// Program returns the path of a program, or ends the test by [Missing]. The package is
// the one of Debian that has it.
func Program(t testing.TB, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "%s is not installed (Debian: %s)", name, pkg)
	}
	return path
}
