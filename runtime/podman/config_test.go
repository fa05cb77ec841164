package podman

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/BurntSushi/toml"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func merged(t *testing.T, env map[string]string, home string) map[string]any {
	t.Helper()
	b, err := mergedConfig(func(k string) string { return env[k] }, home)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := toml.Unmarshal(b, &m); err != nil {
		t.Fatalf("the merged configuration does not parse: %v\n%s", err, b)
	}
	return m
}

func TestConfigFilesAreReadAsPodmanReadsThem(t *testing.T) {
	home := t.TempDir()
	dir := filepath.Join(home, ".config", "containers")
	write(t, filepath.Join(dir, "containers.conf.d", "20-b.conf"), "")
	write(t, filepath.Join(dir, "containers.conf.d", "10-a.conf"), "")
	write(t, filepath.Join(dir, "containers.conf.d", "ignored.txt"), "")
	got, err := configFiles(func(string) string { return "" }, home)
	if err != nil {
		t.Fatal(err)
	}
	var own []string
	for _, f := range got {
		if rel, err := filepath.Rel(dir, f); err == nil && filepath.IsLocal(rel) {
			own = append(own, rel)
		}
	}
	want := []string{"containers.conf", "containers.conf.d/10-a.conf", "containers.conf.d/20-b.conf"}
	if !reflect.DeepEqual(own, want) || got[0] != "/usr/share/containers/containers.conf" || got[1] != "/etc/containers/containers.conf" {
		t.Errorf("expected the system's files and then %q, got %q", want, got)
	}
	replaced, err := configFiles(func(k string) string { return map[string]string{"CONTAINERS_CONF": "/x"}[k] }, home)
	if err != nil || !reflect.DeepEqual(replaced, []string{"/x"}) {
		t.Errorf("expected CONTAINERS_CONF to replace all others, got %q, %v", replaced, err)
	}
}

func TestConfigKeepsTheUsersSettings(t *testing.T) {
	home := t.TempDir()
	base := filepath.Join(home, "base.conf")
	write(t, base, `
[engine]
runtime = "runc"
exit_command_delay = 300
hooks_dir = ["/a"]
[engine.runtimes]
runsc = ["/opt/runsc"]
[network]
default_subnet = "10.1.0.0/16"
`)
	m := merged(t, map[string]string{"CONTAINERS_CONF": base}, home)
	engine := m["engine"].(map[string]any)
	if engine["exit_command_delay"] != int64(exitCommandDelay) {
		t.Errorf("expected a delay of %d, got %v", exitCommandDelay, engine["exit_command_delay"])
	}
	if engine["runtime"] != "runc" || m["network"].(map[string]any)["default_subnet"] != "10.1.0.0/16" {
		t.Errorf("expected the user's settings to be kept, got %v", m)
	}
	b, err := mergedConfig(func(k string) string { return map[string]string{"CONTAINERS_CONF": base}[k] }, home)
	if err != nil {
		t.Fatal(err)
	}
	if got := configuredRuntimes(b); !reflect.DeepEqual(got, map[string][]string{"runsc": {"/opt/runsc"}}) {
		t.Errorf("expected the user's runtimes, got %v", got)
	}
}

func TestConfigThatIsMissingOrBroken(t *testing.T) {
	home := t.TempDir()
	missing := func(k string) string {
		return map[string]string{"CONTAINERS_CONF": filepath.Join(home, "none")}[k]
	}
	if _, err := mergedConfig(missing, home); err == nil {
		t.Error("expected a named file that is missing to be an error")
	}
	write(t, filepath.Join(home, ".config", "containers", "containers.conf"), "[engine\n")
	if _, err := mergedConfig(func(string) string { return "" }, home); err == nil {
		t.Error("expected a file that does not parse to be an error")
	}
}

func TestMergeLaysOneFileOverAnother(t *testing.T) {
	parse := func(s string) map[string]any {
		m := map[string]any{}
		if err := toml.Unmarshal([]byte(s), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	for _, c := range []struct{ name, below, above, want string }{
		{"scalars are replaced", "[a]\nx = 1\ny = 2", "[a]\nx = 3", "[a]\nx = 3\ny = 2"},
		{"arrays are replaced", "[a]\nx = [\"1\", \"2\"]", "[a]\nx = [\"3\"]", "[a]\nx = [\"3\"]"},
		{"arrays that say so are appended", "[a]\nx = [\"1\"]", "[a]\nx = [\"2\", {append=true}]", "[a]\nx = [\"1\", \"2\", {append=true}]"},
		{"appending goes on in later files", "[a]\nx = [\"1\", {append=true}]", "[a]\nx = [\"2\"]", "[a]\nx = [\"1\", \"2\"]"},
		{"tables are merged by key", "[a.b]\nc = [\"1\"]", "[a.b]\nd = [\"2\"]", "[a.b]\nc = [\"1\"]\nd = [\"2\"]"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := parse(c.below)
			merge(got, parse(c.above))
			if want := parse(c.want); !reflect.DeepEqual(got, want) {
				t.Errorf("expected %v, got %v", want, got)
			}
		})
	}
}
