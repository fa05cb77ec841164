// Package nolibc is what bottle's small static programs share, which are written in C
// without a library: nolibc.h with the start and the system calls, build.sh that builds
// one for amd64 and arm64, and the test that a committed program is what its source gives.
//
// The programs are committed, so that nobody needs a C compiler to build bottle. After a
// change of a source or of nolibc.h run go generate in the packages that have one.
package nolibc

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/internal/needs"
)

// Compiler is the version of gcc, but for its patch level, that the committed programs
// are built by. Another one gives other bytes.
const Compiler = "12.2"

// TestRebuild builds a source, a path below the caller's directory, and compares what
// comes out with the committed programs, of which there are NAME-amd64 and NAME-arm64 in
// that directory. Where a compiler of that version is missing it is [needs.Missing].
func TestRebuild(t *testing.T, source, name string) {
	_, here, _, _ := runtime.Caller(0)
	built := t.TempDir()
	if out, err := exec.Command(filepath.Join(filepath.Dir(here), "build.sh"), source, name, built).CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, out)
	}
	for arch, compiler := range map[string][2]string{
		"amd64": {"x86_64-linux-gnu-gcc", "gcc"},
		"arm64": {"aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"},
	} {
		t.Run(arch, func(t *testing.T) {
			version, err := exec.Command(needs.Program(t, compiler[0], compiler[1]), "-dumpfullversion").Output()
			if err != nil {
				t.Fatalf("%s -dumpfullversion: %v", compiler[0], err)
			}
			if !strings.HasPrefix(string(version), Compiler+".") {
				needs.Missing(t, "%s is version %s: the committed program was built by %s", compiler[0], bytes.TrimSpace(version), Compiler)
			}
			file := name + "-" + arch
			want, err := os.ReadFile(filepath.Join(built, file))
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("the committed %s is not what %s gives: run go generate", file, source)
			}
		})
	}
}
