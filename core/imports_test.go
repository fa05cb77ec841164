package core_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bottle-run/bottle/internal/needs"
)

const module = "github.com/bottle-run/bottle/"

// TestImportsPointOneWay holds the rules between the rooms: cmd → core → runtime;
// engines know neither core nor each other; core knows no engine; sidecars know
// neither core nor the runtime; only cmd/bottle knows which engines there are; what
// is in internal serves all and knows none.
func TestImportsPointOneWay(t *testing.T) {
	needs.Program(t, "go", "golang-go")
	out, err := exec.Command("go", "list", "-deps", "-f", `{{if not .Standard}}{{.ImportPath}}{{range .Imports}} {{.}}{{end}}{{end}}`, module+"...").Output()
	if err != nil {
		needs.Missing(t, "imports can only be listed in the source tree: %v", err)
	}
	imports := map[string][]string{}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) > 0 && strings.HasPrefix(fields[0], module) {
			imports[strings.TrimPrefix(fields[0], module)] = fields[1:]
		}
	}
	if len(imports["core"]) == 0 || len(imports["cmd/bottle"]) == 0 {
		t.Fatalf("the list is not what was expected: %d packages", len(imports))
	}
	engines := []string{"runtime/docker", "runtime/podman", "runtime/containerd"}
	for pkg, list := range imports {
		for _, imported := range list {
			if imported, ours := strings.CutPrefix(imported, module); ours {
				if why := forbidden(pkg, imported, engines); why != "" {
					t.Errorf("%s imports %s: %s", pkg, imported, why)
				}
			}
		}
	}
}

func forbidden(pkg, imported string, engines []string) string {
	in := func(pkg, room string) bool { return pkg == room || strings.HasPrefix(pkg, room+"/") }
	for _, engine := range engines {
		if !in(imported, engine) || in(pkg, engine) {
			continue
		}
		if pkg != "cmd/bottle" && !in(pkg, "hack") {
			return "only cmd/bottle knows the engines"
		}
	}
	switch {
	case in(pkg, "runtime") && (in(imported, "core") || in(imported, "cmd") || in(imported, "sidecar")):
		return "the runtime is below everything"
	case in(pkg, "core") && in(imported, "cmd"):
		return "core is below cmd"
	case in(pkg, "sidecar") && (in(imported, "core") || in(imported, "runtime") || in(imported, "cmd")):
		return "sidecars stand alone"
	case in(imported, "runtime/fake") && !strings.Contains(pkg, "_test") && !in(pkg, "runtime"):
		return "the fake engine is for tests"
	case in(imported, "runtime/faulty"):
		return "faults are for tests"
	case in(imported, "internal/needs") && !in(pkg, "internal"):
		return "what tests need is for tests"
	case in(pkg, "internal") && !in(imported, "internal"):
		return "what all rooms share knows none of them"
	}
	return ""
}

// TestNoEngineIsNamed holds that core and the conformance suite decide nothing by
// an engine's name.
func TestNoEngineIsNamed(t *testing.T) {
	decides := regexp.MustCompile(`(==|!=|case|HasPrefix\(.*,|Contains\(.*,)\s*"(docker|podman|containerd)"`)
	files := 0
	for _, room := range []string{".", "../runtime/conformance"} {
		err := filepath.WalkDir(room, func(name string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || filepath.Ext(name) != ".go" {
				return err
			}
			files++
			text, err := os.ReadFile(name)
			if errors.Is(err, fs.ErrNotExist) {
				return nil // gone since the directory was read
			}
			for n, line := range strings.Split(string(text), "\n") {
				if decides.MatchString(line) {
					t.Errorf("%s:%d: %s", name, n+1, line)
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if files < 30 {
		t.Errorf("only %d files were looked at", files)
	}
}
