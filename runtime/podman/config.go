package podman

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"github.com/BurntSushi/toml"
)

// exitCommandDelay is for how many seconds what is left of an exec waits to be
// asked for its status: Podman's own 300 keeps two processes of each exec for
// five minutes, and with 0 the status is gone before it can be asked for.
const exitCommandDelay = 5

// configFiles returns the files of containers.conf that Podman reads, in its
// order. CONTAINERS_CONF replaces all others.
func configFiles(env func(string) string, home string) ([]string, error) {
	if f := env("CONTAINERS_CONF"); f != "" {
		return []string{f}, nil
	}
	user := env("XDG_CONFIG_HOME")
	if user == "" && home != "" {
		user = filepath.Join(home, ".config")
	}
	var files []string
	add := func(base string, dropins bool) error {
		files = append(files, base)
		if !dropins {
			return nil
		}
		more, err := filepath.Glob(filepath.Join(base+".d", "*.conf"))
		if err != nil {
			return err
		}
		sort.Strings(more)
		files = append(files, more...)
		return nil
	}
	if err := errors.Join(add("/usr/share/containers/containers.conf", false), add("/etc/containers/containers.conf", true)); err != nil {
		return nil, err
	}
	if user != "" {
		if err := add(filepath.Join(user, "containers", "containers.conf"), true); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// mergedConfig is the user's whole configuration with what bottle needs set in
// it. It is a copy, and not CONTAINERS_CONF_OVERRIDE, because Podman 4.3 does not
// know that variable.
func mergedConfig(env func(string) string, home string) ([]byte, error) {
	files, err := configFiles(env, home)
	if err != nil {
		return nil, err
	}
	all := map[string]any{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) && env("CONTAINERS_CONF") == "" {
			continue
		}
		if err != nil {
			return nil, err
		}
		one := map[string]any{}
		if err := toml.Unmarshal(b, &one); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		merge(all, one)
	}
	merge(all, map[string]any{"engine": map[string]any{"exit_command_delay": int64(exitCommandDelay)}})
	var out bytes.Buffer
	out.WriteString("# Podman's configuration as bottle found it, for the service that it starts.\n")
	enc := toml.NewEncoder(&out)
	enc.Indent = ""
	if err := enc.Encode(all); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// merge lays src over dst as Podman lays one file over another: tables key by
// key, everything else as a whole, and arrays that say {append=true} appended.
func merge(dst, src map[string]any) {
	for k, v := range src {
		switch v := v.(type) {
		case map[string]any:
			if old, ok := dst[k].(map[string]any); ok {
				merge(old, v)
				continue
			}
			fresh := map[string]any{}
			merge(fresh, v)
			dst[k] = fresh
		case []any:
			values, appends := splitAppend(v)
			if old, ok := dst[k].([]any); ok && (appends || appending(old)) {
				before, _ := splitAppend(old)
				values = append(append([]any{}, before...), values...)
			}
			if appends {
				// Podman's own defaults are still to be appended to.
				values = append(values, map[string]any{"append": true})
			}
			dst[k] = values
		default:
			dst[k] = v
		}
	}
}

// splitAppend separates the values of an array from its {append=…} attribute.
func splitAppend(in []any) (values []any, appends bool) {
	values = []any{}
	for _, v := range in {
		if m, ok := v.(map[string]any); ok && len(m) == 1 {
			if a, ok := m["append"].(bool); ok {
				appends = a
				continue
			}
		}
		values = append(values, v)
	}
	return values, appends
}

func appending(in []any) bool {
	_, a := splitAppend(in)
	return a
}

// configuredRuntimes are the OCI runtimes of a configuration: name to paths.
func configuredRuntimes(config []byte) map[string][]string {
	var c struct {
		Engine struct {
			Runtimes map[string][]string `toml:"runtimes"`
		} `toml:"engine"`
	}
	if toml.Unmarshal(config, &c) != nil {
		return nil
	}
	return c.Engine.Runtimes
}
