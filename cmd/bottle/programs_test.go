package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// programsVariable names a directory with the programs below testdata that go into images,
// compiled: hack/test makes one, for all engines, and rootless Podman's user has no modules.
const programsVariable = "BOTTLE_TEST_PROGRAMS"

// testProgram returns the program testdata/NAME, static.
func testProgram(t *testing.T, name string) []byte {
	t.Helper()
	dir := os.Getenv(programsVariable)
	if dir == "" {
		dir = t.TempDir()
		cmd := exec.CommandContext(t.Context(), "go", "build", "-ldflags=-s -w", "-buildvcs=false", "-o", dir+"/", "./testdata/"+name)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build %s (or name a directory that has it: %s): %v: %s", name, programsVariable, err, out)
		}
	}
	program, err := os.ReadFile(filepath.Join(dir, name))
	check(t, err)
	return program
}
